package cli

import (
	"context"
	"errors"
	"io"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"davit/api/client"
)

func (a *app) loadCommand() *cobra.Command {
	var input string
	var quiet bool
	var platforms []string
	cmd := &cobra.Command{
		Use:   "load [OPTIONS]",
		Short: "Load an image from a tar archive or STDIN",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			query := url.Values{"quiet": {"0"}}
			setTrue(query, "quiet", quiet || !isTerminal(a.out))
			if err := addPlatforms(query, platforms); err != nil {
				return err
			}
			return a.load(cmd.Context(), query, input)
		},
	}
	cmd.Flags().StringVarP(&input, "input", "i", "", "Read from tar archive file, instead of STDIN")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Suppress the load output")
	cmd.Flags().StringSliceVar(&platforms, "platform", nil, "Load only the given platform variant")
	return cmd
}

func (a *app) load(ctx context.Context, query url.Values, input string) error {
	source := a.in
	switch {
	case input != "":
		f, err := os.Open(input)
		if err != nil {
			return err
		}
		defer f.Close()
		source = f
	case isTerminal(a.in):
		return errors.New("requested load from stdin, but stdin is empty")
	}
	engine, err := a.client()
	if err != nil {
		return err
	}
	header := client.Header{"Content-Type": "application/x-tar"}
	response, err := engine.Do(ctx, client.Request{Method: "POST", Path: "/images/load", Query: query, Header: header, Body: source})
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if strings.HasPrefix(response.Header["Content-Type"], "application/json") {
		return display(a.out).Show(response.Body)
	}
	_, err = io.Copy(a.out, response.Body)
	return err
}
