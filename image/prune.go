package image

import (
	"context"
	"errors"
	"fmt"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/store/metadata"
)

// Prune removes the images that no container uses and that have no tag, or with o.All whatever their
// names, and what broken pulls left.
func (s *Store) Prune(ctx context.Context, o PruneOptions) (Pruned, error) {
	candidates, err := s.List(ctx, ListOptions{Until: o.Until, Labels: o.Labels, NotLabels: o.NotLabels})
	if err != nil {
		return Pruned{}, err
	}
	users := s.users()
	var pruned Pruned
	for _, img := range candidates {
		if len(users[img.ID]) > 0 || !o.All && !img.Dangling() {
			continue
		}
		deleted, err := s.pruneImage(ctx, img)
		pruned.Deleted = append(pruned.Deleted, deleted...)
		if err != nil {
			return pruned, err
		}
	}
	if err := s.forgetPulls(); err != nil {
		return pruned, err
	}
	partial, err := s.o.Content.SweepIngests(ctx, 0)
	if err != nil {
		return pruned, err
	}
	if s.o.Collect != nil {
		if pruned.Reclaimed, err = s.o.Collect(ctx); err != nil {
			return pruned, fmt.Errorf("delete unused content: %w", err)
		}
	}
	pruned.Reclaimed += partial
	return pruned, s.writeIndex(ctx)
}

// pruneImage removes an image name by name, or by its ID when it has none. A conflict means that
// somebody began to use it: it stays.
func (s *Store) pruneImage(ctx context.Context, img Image) ([]Deleted, error) {
	names := append(append([]string{}, img.RepoTags...), img.RepoDigests...)
	if len(names) == 0 {
		names = []string{string(img.ID)}
	}
	var all []Deleted
	for _, name := range names {
		deleted, err := s.remove(ctx, name, RemoveOptions{})
		all = append(all, deleted...)
		if err != nil && !errors.Is(err, errdefs.ErrConflict) && !errors.Is(err, errdefs.ErrNotFound) {
			return all, err
		}
	}
	return all, nil
}

// forgetPulls lets go of what broken pulls keep.
func (s *Store) forgetPulls() error {
	return s.o.DB.Update(func(tx *metadata.Tx) error {
		var keys []string
		for key := range pulls().All(tx) {
			keys = append(keys, key)
		}
		for _, key := range keys {
			if err := pulls().Delete(tx, key); err != nil {
				return fmt.Errorf("forget broken pull of %s: %w", key, err)
			}
		}
		return nil
	})
}

// DiskUsage returns every image's share of the layers on the disk.
func (s *Store) DiskUsage(ctx context.Context) ([]Usage, error) {
	list, err := s.List(ctx, ListOptions{})
	if err != nil {
		return nil, err
	}
	images := map[oci.DiffID]int{} // how many images have the layer
	for _, img := range list {
		for id := range layerSet(img.Layers) {
			images[id]++
		}
	}
	usage := make([]Usage, len(list))
	for i, img := range list {
		usage[i].Image = img
		for id, n := range layerSet(img.Layers) {
			size, err := s.o.Layers.Disk(ctx, img.Layers[:n]...)
			if errors.Is(err, errdefs.ErrNotFound) {
				continue // it comes back from its blob when it is needed
			}
			if err != nil {
				return nil, fmt.Errorf("measure image %s: %w", img.ID.Short(), err)
			}
			if images[id] > 1 {
				usage[i].Shared += size
			} else {
				usage[i].Unique += size
			}
		}
	}
	return usage, nil
}

// layerSet maps each layer to its place, counted from 1.
func layerSet(layers []oci.DiffID) map[oci.DiffID]int {
	set := make(map[oci.DiffID]int, len(layers))
	for i, id := range layers {
		set[id] = i + 1
	}
	return set
}
