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

	"davit/api/client"
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
	var created container.CreateResponse
	err = a.pulling(ctx, f, request.Image, func(query url.Values) error {
		return a.engine.Post(ctx, "/containers/create", query, client.Sparse{Value: request}, &created)
	})
	if err != nil {
		return "", errors.Join(err, file.remove())
	}
	a.warn(created.Warnings)
	return created.ID, file.write(created.ID)
}

func (a *app) warn(warnings []string) {
	for _, warning := range warnings {
		fmt.Fprintln(a.err, "WARNING:", warning)
	}
}

// cidFile is the file of --cidfile, or nil.
type cidFile struct{ *os.File }

// openCIDFile claims the file before the container exists: it must be new.
func openCIDFile(path string) (*cidFile, error) {
	if path == "" {
		return nil, nil
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("container ID file found, make sure the other container isn't running or delete %s", path)
	}
	return &cidFile{file}, err
}

func (c *cidFile) write(id string) error {
	if c == nil {
		return nil
	}
	_, err := c.WriteString(id)
	return errors.Join(err, c.Close())
}

func (c *cidFile) remove() error {
	if c == nil {
		return nil
	}
	return errors.Join(c.Close(), os.Remove(c.Name()))
}

// pulling makes an attempt to create a container, with the query that f asks for; when the image is missing
// it pulls that and tries again. It connects to the engine first.
func (a *app) pulling(ctx context.Context, f *createFlags, image string, attempt func(url.Values) error) error {
	switch f.pull {
	case "always":
		if err := a.pullImage(ctx, image, f.platform, f.quiet, a.err); err != nil {
			return err
		}
	case "missing", "never", "":
	default:
		return fmt.Errorf("invalid pull option: '%s': must be one of \"always\", \"missing\" or \"never\"", f.pull)
	}
	if _, err := a.client(); err != nil {
		return err
	}
	query := url.Values{}
	for key, value := range map[string]string{"name": f.name, "platform": f.platform} {
		if value != "" {
			query.Set(key, value)
		}
	}
	err := attempt(query)
	if f.pull != "missing" || !errors.Is(err, errdefs.ErrNotFound) || !isMissingImage(err) {
		return err
	}
	fmt.Fprintf(a.err, "Unable to find image '%s' locally\n", familiar(image))
	if err := a.pullImage(ctx, image, f.platform, f.quiet, a.err); err != nil {
		return err
	}
	return attempt(query)
}
