package cli

import (
	"errors"
	"fmt"
	"net/url"
	"os"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"davit/api/client"
	"davit/cli/opts"
	"davit/oci/ref"
)

func (a *app) commitCommand() *cobra.Command {
	var author, message string
	var changes []string
	var pause, noPause bool
	cmd := &cobra.Command{
		Use:   "commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
		Short: "Create a new image from a container's changes",
		Args:  rangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			query := url.Values{"container": {args[0]}, "changes": changes}
			setIf(query, "author", author)
			setIf(query, "comment", message)
			if noPause || !pause {
				query.Set("pause", "0")
			}
			if len(args) == 2 {
				r, err := ref.Parse(args[1])
				if err != nil {
					return err
				}
				query.Set("repo", r.FamiliarName())
				setIf(query, "tag", r.Tag)
			}
			engine, err := a.client()
			if err != nil {
				return err
			}
			var committed container.CommitResponse
			if err := engine.Post(cmd.Context(), "/commit", query, nil, &committed); err != nil {
				return err
			}
			fmt.Fprintln(a.out, committed.ID)
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&author, "author", "a", "", `Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")`)
	flags.VarP(opts.ListOf(&changes), "change", "c", "Apply Dockerfile instruction to the created image")
	flags.StringVarP(&message, "message", "m", "", "Commit message")
	flags.BoolVarP(&pause, "pause", "p", true, "Pause container during commit")
	flags.BoolVar(&noPause, "no-pause", false, "Disable pausing container during commit")
	_ = flags.MarkHidden("pause")
	return cmd
}

func (a *app) exportCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "export [OPTIONS] CONTAINER",
		Short: "Export a container's filesystem as a tar archive",
		Args:  exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if output == "" && isTerminal(a.out) {
				return errors.New("cowardly refusing to save to a terminal. Use the -o flag or redirect")
			}
			engine, err := a.client()
			if err != nil {
				return err
			}
			response, err := engine.Do(cmd.Context(), client.Request{Method: "GET", Path: "/containers/" + url.PathEscape(args[0]) + "/export"})
			if err != nil {
				return err
			}
			defer response.Body.Close()
			if output == "" {
				_, err = copyTo(a.out, response.Body)
				return err
			}
			file, err := os.Create(output)
			if err != nil {
				return err
			}
			_, err = copyTo(file, response.Body)
			return errors.Join(err, file.Close())
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	return cmd
}
