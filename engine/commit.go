package engine

import (
	"context"
	"runtime"
	"slices"
	"strings"

	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"davit/engine/container"
	"davit/image"
	"davit/internal/version"
	"davit/oci"
	"davit/oci/errdefs"
	"davit/oci/ref"
)

// CommitOptions say what the image is to be.
type CommitOptions struct {
	Repo, Tag string
	Author    string
	Comment   string
	Pause     bool     // while its files are copied
	Changes   []string // Dockerfile instructions
	Config    *wire.Config
}

// Commit makes an image of what a container wrote, on top of its image.
func (x *Archives) Commit(ctx context.Context, name string, o CommitOptions) (string, error) {
	a, err := x.roster.find(name)
	if err != nil {
		return "", err
	}
	var names []ref.Ref
	if o.Repo != "" {
		target, err := commitName(o.Repo, o.Tag)
		if err != nil {
			return "", err
		}
		names = append(names, target)
	}
	r := a.record()
	config, err := x.commitConfig(ctx, r, o)
	if err != nil {
		return "", err
	}
	img, err := x.commitImage(ctx, a, config, names, o.Pause)
	if err != nil {
		x.afterFull(ctx, err)
		return "", err
	}
	more := map[string]string{"comment": o.Comment, "imageID": string(img.ID), "imageRef": ""}
	for _, name := range names {
		more["imageRef"] = name.Familiar()
		x.tellImage(events.ActionTag, string(img.ID), name.Familiar())
	}
	x.tell(r, events.ActionCommit, more)
	return string(img.ID), nil
}

// commitImage makes the image of a configuration and what the container wrote.
func (x *Archives) commitImage(ctx context.Context, a *actor, config oci.Image, names []ref.Ref, pause bool) (image.Image, error) {
	release := x.Layers.Lease()
	defer release()
	diffID, err := x.commitLayer(ctx, a, pause)
	if err != nil {
		return image.Image{}, err
	}
	below := a.record().Image
	config.RootFS.DiffIDs = slices.Clone(below.Layers)
	if diffID == "" {
		config.History[len(config.History)-1].EmptyLayer = true
	} else {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, diffID)
	}
	return x.Images.Put(ctx, image.PutOptions{Config: config, Parent: below.ID, Names: names, By: image.ByCommit})
}

func commitName(repo, tag string) (ref.Ref, error) {
	if tag != "" {
		repo += ":" + tag
	}
	target, err := ref.Parse(repo)
	if err != nil {
		return ref.Ref{}, err
	}
	if target.Digest != "" {
		return ref.Ref{}, errdefs.Invalid("cannot commit to a digest reference")
	}
	return target.WithDefaultTag(), nil
}

// commitLayer copies what the container wrote, while it stands still. If that is nothing, there is no layer.
func (x *Archives) commitLayer(ctx context.Context, a *actor, pause bool) (oci.DiffID, error) {
	end, err := a.begin(ctx)
	if err != nil {
		return "", err
	}
	defer end()
	if pause && a.record().State.Status == container.Running {
		client, err := x.link.get(ctx)
		if err != nil {
			return "", err
		}
		if err := client.Pause(ctx, a.id); err != nil {
			return "", err
		}
		defer func() {
			if err := client.Resume(context.WithoutCancel(ctx), a.id); err != nil {
				x.Log.Error("resume container after commit", "container", a.id, "error", err)
			}
		}()
	}
	own, places, err := x.changes(ctx, a.id)
	if err != nil || len(own) == 0 {
		return "", err
	}
	return x.Snapshots.Commit(ctx, a.id, places)
}

// commitConfig is the configuration of the image to be: the container's, with what is asked for.
func (x *Archives) commitConfig(ctx context.Context, r *container.Record, o CommitOptions) (oci.Image, error) {
	base := oci.Image{Architecture: runtime.GOARCH, OS: "linux", RootFS: oci.RootFS{Type: "layers"}}
	if img, err := x.Images.Get(ctx, r.Image.ID); err == nil {
		base = img.Config
	}
	source := r.Config
	if o.Config != nil {
		merged, err := container.Merge(o.Config, imageConfig(r.Config))
		if err != nil {
			return oci.Image{}, err
		}
		source = merged
	}
	config, err := image.ApplyChanges(imageConfig(source), o.Changes)
	if err != nil {
		return oci.Image{}, err
	}
	now := x.Now().UTC()
	base.Created, base.Author, base.Comment, base.Config, base.Container = &now, o.Author, o.Comment, config, r.ID
	base.DockerVersion = version.Version
	base.History = append(append([]oci.History{}, base.History...), oci.History{
		Created: &now, CreatedBy: strings.Join(append(append([]string{}, r.Config.Entrypoint...), r.Config.Cmd...), " "),
		Author: o.Author, Comment: o.Comment,
	})
	return base, nil
}

// imageConfig is what an image keeps of a container's configuration.
func imageConfig(c *wire.Config) oci.Config {
	o := oci.Config{
		User: c.User, Env: c.Env, Entrypoint: c.Entrypoint, Cmd: c.Cmd, Volumes: c.Volumes, WorkingDir: c.WorkingDir,
		Labels: c.Labels, StopSignal: c.StopSignal, StopTimeout: c.StopTimeout, OnBuild: c.OnBuild, Shell: c.Shell,
	}
	for port := range c.ExposedPorts {
		if o.ExposedPorts == nil {
			o.ExposedPorts = map[string]struct{}{}
		}
		o.ExposedPorts[port.String()] = struct{}{}
	}
	if h := c.Healthcheck; h != nil {
		o.Healthcheck = &oci.Healthcheck{
			Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, StartInterval: h.StartInterval, Retries: h.Retries,
		}
	}
	return o
}
