package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"davit/api/client"
	"davit/cli/opts"
)

func (a *app) saveCommand() *cobra.Command {
	var output string
	var platforms, since []string
	cmd := &cobra.Command{
		Use:   "save [OPTIONS] IMAGE [IMAGE...]",
		Short: "Save one or more images to a tar archive (streamed to STDOUT by default)",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			query := url.Values{"names": args, "since": since}
			if err := addPlatforms(query, platforms); err != nil {
				return err
			}
			if output == "" && isTerminal(a.out) {
				return errors.New("cowardly refusing to save to a terminal. Use the -o flag or redirect")
			}
			return a.download(cmd.Context(), "/images/get", query, output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	cmd.Flags().Var(opts.ListOf(&since), "since", "Save only what is not in this image, which must be there where the archive is loaded; may be repeated")
	cmd.Flags().StringSliceVar(&platforms, "platform", nil, "Save only the given platform variant")
	return cmd
}

// addPlatforms adds the parameter of requests that may name several platforms.
func addPlatforms(query url.Values, platforms []string) error {
	for _, platform := range platforms {
		encoded, err := platformJSON(platform)
		if err != nil {
			return err
		}
		query.Add("platform", encoded)
	}
	return nil
}

// download writes the engine's answer to a file, or to the output when there is no name.
func (a *app) download(ctx context.Context, path string, query url.Values, output string) error {
	engine, err := a.client()
	if err != nil {
		return err
	}
	response, err := engine.Do(ctx, client.Request{Method: "GET", Path: path, Query: query})
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if output == "" {
		_, err = io.Copy(a.out, response.Body)
		return err
	}
	return writeFile(output, response.Body)
}

// writeFile replaces a regular file as a whole, so that a broken stream leaves the old one; a device or
// pipe is written to as it is.
func writeFile(name string, content io.Reader) (err error) {
	info, err := os.Stat(name)
	switch {
	case err == nil && info.IsDir():
		return fmt.Errorf("write %s: is a directory", name)
	case err == nil && !info.Mode().IsRegular():
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, content)
		return errors.Join(err, f.Close())
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".davit-*") // mode 0600, as docker's
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("write %s: %w", name, err), os.Remove(f.Name()))
		}
	}()
	_, err = io.Copy(f, content)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
