package engine

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/moby/moby/api/types/jsonstream"

	"davit/build"
	"davit/image"
	"davit/oci"
	"davit/oci/errdefs"
	"davit/oci/ref"
	"davit/oci/rootfs"
	"davit/registry/auth"
	"davit/store/snapshot"
)

// buildLayers gives the builder its layers; it implements build.Layers.
type buildLayers struct{ *shared }

// Prepare implements build.Layers. A step that a crash interrupts is run again, so nothing is synced.
func (b buildLayers) Prepare(ctx context.Context, key string, layers []oci.DiffID) (rootfs.Rootfs, error) {
	return b.Snapshots.Prepare(ctx, key, layers, snapshot.Options{Volatile: true})
}

// Commit implements build.Layers.
func (b buildLayers) Commit(ctx context.Context, key string) (oci.DiffID, error) {
	return b.Snapshots.Seal(ctx, key)
}

// Remove implements build.Layers.
func (b buildLayers) Remove(ctx context.Context, key string) error {
	err := b.Snapshots.Remove(ctx, key)
	if isNotFound(err) {
		return nil
	}
	return err
}

// Dirs implements build.Layers.
func (b buildLayers) Dirs(_ context.Context, layers []oci.DiffID) ([]string, error) {
	return b.Layers.Dirs(layers...)
}

// Size implements build.Layers.
func (b buildLayers) Size(_ context.Context, layers []oci.DiffID) (int64, error) {
	return b.Layers.Size(layers...)
}

// Lease implements build.Layers.
func (b buildLayers) Lease() func() { return b.Layers.Lease() }

// buildImages gives the builder its images; it implements build.Images.
type buildImages struct{ *shared }

// Base implements build.Images: the image that is here, unless a newer one is asked for, else the
// registry's.
func (b buildImages) Base(ctx context.Context, r build.BaseRequest) (build.Base, error) {
	if !r.Pull {
		img, err := b.Images.Resolve(ctx, r.Name, &r.Platform)
		if err == nil {
			return b.base(ctx, img)
		}
		if !errors.Is(err, errdefs.ErrNotFound) {
			return build.Base{}, err
		}
	}
	name, err := ref.Parse(r.Name)
	if err != nil {
		return build.Base{}, err
	}
	name = name.WithDefaultTag()
	creds, _ := r.Auth.(map[string]auth.Credentials)
	repo, err := b.Registries.Repository(name, creds[name.Domain])
	if err != nil {
		return build.Base{}, err
	}
	defer repo.Close()
	pulled, err := b.Images.Pull(ctx, name, image.PullOptions{Source: repo, Platform: &r.Platform, Progress: pullProgress(r.Progress)})
	if err != nil {
		return build.Base{}, err
	}
	return b.base(ctx, pulled.Image)
}

// pullProgress puts a pull's progress into the form that a build passes on.
func pullProgress(send func(json.RawMessage)) func(image.Progress) {
	if send == nil {
		return nil
	}
	return func(p image.Progress) {
		line, err := json.Marshal(jsonstream.Message{ID: p.ID, Status: p.Status, Progress: &jsonstream.Progress{Current: p.Current, Total: p.Total}})
		if err == nil {
			send(line)
		}
	}
}

func (b buildImages) base(ctx context.Context, img image.Image) (build.Base, error) {
	return build.Base{ID: img.ID, Config: img.Config}, b.Images.Ensure(ctx, img)
}

// Has implements build.Images.
func (b buildImages) Has(_ context.Context, id oci.Digest) bool { return b.Images.Has(id) }

// Put implements build.Images.
func (b buildImages) Put(ctx context.Context, config oci.Image) (oci.Digest, error) {
	img, err := b.Images.Put(ctx, image.PutOptions{Config: config})
	return img.ID, err
}

// Tag implements build.Images.
func (b buildImages) Tag(ctx context.Context, id oci.Digest, name string) error {
	target, err := ref.Parse(name)
	if err != nil {
		return err
	}
	target = target.WithDefaultTag()
	if img, err := b.Images.Resolve(ctx, target.String(), nil); err == nil && img.ID == id {
		return nil
	}
	return b.Images.Tag(ctx, string(id), target, image.ByBuild)
}
