package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/moby/moby/api/types/image"
	"github.com/spf13/cobra"

	"davit/api/client"
	"davit/oci/errdefs"
)

func (a *app) rmiCommand() *cobra.Command {
	var force, noPrune bool
	var platforms []string
	cmd := &cobra.Command{
		Use:   "rmi [OPTIONS] IMAGE [IMAGE...]",
		Short: "Remove one or more images",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			query := url.Values{}
			setTrue(query, "force", force)
			setTrue(query, "noprune", noPrune)
			for _, platform := range platforms {
				encoded, err := platformJSON(platform)
				if err != nil {
					return err
				}
				query.Add("platforms", encoded)
			}
			return a.removeImages(cmd.Context(), args, query, force)
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force removal of the image")
	cmd.Flags().BoolVar(&noPrune, "no-prune", false, "Do not delete untagged parents")
	cmd.Flags().StringSliceVar(&platforms, "platform", nil, "Remove only the given platform variant")
	return cmd
}

// removeImages goes on after a failure. With force, an image that is not there is reported but is no failure.
func (a *app) removeImages(ctx context.Context, names []string, query url.Values, force bool) error {
	status := 0
	for _, name := range names {
		var done []image.DeleteResponse
		if err := a.delete(ctx, apiPath("images", name), query, &done); err != nil {
			if !force || !errors.Is(err, errdefs.ErrNotFound) {
				status = 1
			}
			if err = a.complain(err); err != nil {
				return err
			}
			continue
		}
		a.printDeleted(done)
	}
	if status != 0 {
		return &exitError{status, ""}
	}
	return nil
}

func (a *app) printDeleted(done []image.DeleteResponse) {
	for _, d := range done {
		if d.Deleted != "" {
			fmt.Fprintln(a.out, "Deleted:", d.Deleted)
		} else {
			fmt.Fprintln(a.out, "Untagged:", d.Untagged)
		}
	}
}

// complain prints an answer that is an error, for a command that goes on with the next name. Any other error
// is returned: the next name would meet it too.
func (a *app) complain(err error) error {
	var answered *client.Error
	if !errors.As(err, &answered) {
		return err
	}
	fmt.Fprintln(a.err, "Error response from daemon:", answered)
	return nil
}
