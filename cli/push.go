package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"davit/oci/ref"
)

func (a *app) pushCommand() *cobra.Command {
	var all, quiet bool
	var platform string
	cmd := &cobra.Command{
		Use:   "push [OPTIONS] NAME[:TAG]",
		Short: "Upload an image to a registry",
		Args:  exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := ref.Parse(args[0])
			if err != nil {
				return err
			}
			switch {
			case all && (name.Tag != "" || name.Digest != ""):
				return errors.New("tag can't be used with --all-tags/-a")
			case !all && name.Tag == "" && name.Digest == "":
				name = name.WithDefaultTag()
				if !quiet {
					fmt.Fprintln(a.out, "Using default tag: latest")
				}
			}
			return a.push(cmd.Context(), name, platform, quiet)
		},
	}
	cmd.Flags().BoolVarP(&all, "all-tags", "a", false, "Push all tags of an image to the repository")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Suppress verbose output")
	addPlatform(cmd, &platform)
	addIgnored(cmd)
	return cmd
}

func (a *app) push(ctx context.Context, name ref.Ref, platform string, quiet bool) error {
	encoded, err := platformJSON(platform)
	if err != nil {
		return err
	}
	query := url.Values{}
	setIf(query, "tag", name.Tag)
	setIf(query, "platform", encoded)
	if err := a.transfer(ctx, name, apiPath("images", name.FamiliarName(), "push"), query, quiet, a.out); err != nil {
		return err
	}
	if quiet {
		fmt.Fprintln(a.out, name)
	}
	return nil
}
