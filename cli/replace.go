package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"davit/api/client"
	"davit/cli/progress"
	"davit/oci/errdefs"
	"davit/oci/ref"
)

// replaceRequest is what the engine is asked; times are nanoseconds.
type replaceRequest struct {
	Image     string        `json:"image,omitempty"`
	Timeout   time.Duration `json:"timeout,omitempty"`
	Grace     time.Duration `json:"grace,omitempty"`
	Drain     time.Duration `json:"drain,omitempty"`
	Keep      bool          `json:"keep,omitempty"`
	StopFirst bool          `json:"stopFirst,omitempty"`
	Force     bool          `json:"force,omitempty"`
}

type replaceAnswer struct{ ID, ImageID, Kept, Unchanged string }

func (a *app) replaceCommand() *cobra.Command {
	var q replaceRequest
	var pull, quiet bool
	cmd := &cobra.Command{
		Use:   "replace [OPTIONS] CONTAINER",
		Short: "Give a container another image while it goes on serving",
		Long: `Give a container another image while it goes on serving.

A new container starts beside the old one, with the same configuration: environment, mounts, networks, limits,
labels. When its health check says so (or without one, when it has run for --grace and listens at the published
TCP ports that the old one listens at), name, network aliases and published ports move to it, in one step: no
connection attempt is refused. Connections to the old container may end in peace (--drain); then it gets its stop
signal and is removed. When the new container does not become healthy, it is removed, the old one goes on as if
nothing had been, and the exit status is 1.

Volumes are mounted in both containers while both run. For a program that must have its data for itself, as
databases must, and for containers with a fixed address, use --stop-first: it is down while the new one starts, and
comes back if that fails.

Interrupted before the ports have moved, or if the engine dies then, it goes back; after that it is finished, if
need be by the next engine.`,
		Example: `  davit replace web --image app:2
  davit replace web --pull              # what its own tag names at the registry now
  davit replace web --image app@{1}     # the image that app:latest was before`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.replace(cmd.Context(), args[0], q, pull, quiet)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&q.Image, "image", "", "Image of the new container (default: what the container's own image name means now)")
	flags.BoolVar(&pull, "pull", false, "Pull the image first, even if it is here")
	flags.DurationVar(&q.Timeout, "timeout", 0, "How long the new container may take to be healthy (default: as long as its health check can take, or 1m)")
	flags.DurationVar(&q.Grace, "grace", 3*time.Second, "How long a container without health check has to run")
	flags.DurationVar(&q.Drain, "drain", 10*time.Second, "How long connections to the old container may go on")
	flags.BoolVar(&q.Keep, "keep", false, "Keep the old container, stopped, under the name CONTAINER.old")
	flags.BoolVar(&q.StopFirst, "stop-first", false, "Stop the old container before the new one starts")
	flags.BoolVar(&q.Force, "force", false, "Replace even a container that has the image already")
	flags.BoolVarP(&quiet, "quiet", "q", false, "Print the new container's ID alone")
	return cmd
}

func (a *app) replace(ctx context.Context, name string, q replaceRequest, pull, quiet bool) error {
	if pull {
		image, err := a.imageToPull(ctx, name, q.Image)
		if err != nil {
			return err
		}
		if err := a.pullImage(ctx, image, "", quiet, a.err); err != nil {
			return err
		}
	}
	err := a.replaceOnce(ctx, name, q, quiet)
	if pull || q.Image == "" || !errors.Is(err, errdefs.ErrNotFound) || !isMissingImage(err) {
		return err
	}
	fmt.Fprintf(a.err, "Unable to find image '%s' locally\n", familiar(q.Image))
	if err := a.pullImage(ctx, q.Image, "", quiet, a.err); err != nil {
		return err
	}
	return a.replaceOnce(ctx, name, q, quiet)
}

// imageToPull is the image that was asked for, or the name that the container was made from.
func (a *app) imageToPull(ctx context.Context, name, image string) (string, error) {
	if image == "" {
		var old container.InspectResponse
		if err := a.get(ctx, apiPath("containers", name, "json"), nil, &old); err != nil {
			return "", err
		}
		image = old.Config.Image
	}
	if _, err := ref.Parse(image); err != nil {
		return "", fmt.Errorf("%s is no name to pull; give one with --image", image)
	}
	return image, nil
}

func (a *app) replaceOnce(ctx context.Context, name string, q replaceRequest, quiet bool) error {
	var done replaceAnswer
	shown := display(a.err)
	if quiet {
		shown = display(io.Discard)
	}
	shown.Aux = func(aux json.RawMessage) { _ = json.Unmarshal(aux, &done) } // what is no answer leaves it empty
	err := a.follow(ctx, client.Request{Method: "POST", Path: apiPath("davit/containers", name, "replace"), JSON: q}, shown)
	var failure *progress.Failure
	var answered *client.Error
	switch {
	case errors.As(err, &failure), errors.As(err, &answered):
		return err
	case err != nil:
		return fmt.Errorf("%w: the engine went away; when it starts again it goes back, or finishes if the ports had moved", err)
	case done.Unchanged != "":
		fmt.Fprintln(a.err, done.Unchanged)
		return nil
	case done.ID == "":
		return errors.New("the engine went away; when it starts again it goes back, or finishes if the ports had moved")
	}
	if done.Kept != "" && !quiet {
		fmt.Fprintln(a.err, "the old container is kept as", done.Kept)
	}
	fmt.Fprintln(a.out, done.ID)
	return nil
}
