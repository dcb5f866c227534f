package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"davit/oci/errdefs"
)

func (a *app) createCommand() *cobra.Command {
	f := &createFlags{}
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] IMAGE [COMMAND] [ARG...]",
		Short: "Create a new container",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			request, err := f.request(cmd.Flags(), args)
			if err != nil {
				return err
			}
			id, err := a.create(cmd.Context(), f, request)
			if err != nil {
				return err
			}
			fmt.Fprintln(a.out, id)
			return nil
		},
	}
	f.add(cmd.Flags())
	return cmd
}

// create makes a container, pulling its image when it is missing (or always, if asked), and writes its
// ID to --cidfile.
func (a *app) create(ctx context.Context, f *createFlags, request container.CreateRequest) (string, error) {
	file, err := openCIDFile(f.cidFile)
	if err != nil {
		return "", err
	}
	created, err := a.createPulling(ctx, f, request)
	if err != nil {
		if file != nil {
			err = errors.Join(err, file.Close(), os.Remove(f.cidFile))
		}
		return "", err
	}
	for _, warning := range created.Warnings {
		fmt.Fprintln(a.err, "WARNING:", warning)
	}
	if file == nil {
		return created.ID, nil
	}
	_, err = file.WriteString(created.ID)
	return created.ID, errors.Join(err, file.Close())
}

// openCIDFile claims the file before the container exists: it must be new.
func openCIDFile(path string) (*os.File, error) {
	if path == "" {
		return nil, nil
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("container ID file found, make sure the other container isn't running or delete %s", path)
	}
	return file, err
}

func (a *app) createPulling(ctx context.Context, f *createFlags, request container.CreateRequest) (container.CreateResponse, error) {
	var created container.CreateResponse
	switch f.pull {
	case "always":
		if err := a.pullImage(ctx, request.Image, f.platform, f.quiet, a.err); err != nil {
			return created, err
		}
	case "missing", "never", "":
	default:
		return created, fmt.Errorf("invalid pull option: '%s': must be one of \"always\", \"missing\" or \"never\"", f.pull)
	}
	engine, err := a.client()
	if err != nil {
		return created, err
	}
	query := url.Values{}
	for key, value := range map[string]string{"name": f.name, "platform": f.platform} {
		if value != "" {
			query.Set(key, value)
		}
	}
	err = engine.Post(ctx, "/containers/create", query, request, &created)
	if f.pull != "missing" || !errors.Is(err, errdefs.ErrNotFound) || !isMissingImage(err) {
		return created, err
	}
	fmt.Fprintf(a.err, "Unable to find image '%s' locally\n", familiar(request.Image))
	if err := a.pullImage(ctx, request.Image, f.platform, f.quiet, a.err); err != nil {
		return created, err
	}
	return created, engine.Post(ctx, "/containers/create", query, request, &created)
}
