package layer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"

	"davit/internal/diskusage"
	"davit/oci"
)

// Used is a layer and what it takes.
type Used struct {
	Entry
	Disk int64  // bytes on the disk, with all that the store keeps of the layer
	Path string // its directory; after a Sweep it is gone
	Kept bool   // one of the stacks that were asked about holds it
}

// Usage measures all layers, in no particular order. keep are stacks, each lowest first.
func (s *Store) Usage(ctx context.Context, keep [][]oci.DiffID) ([]Used, error) {
	kept, all := directories(keep), s.index()
	used := make([]Used, 0, len(all))
	for dir, r := range all {
		disk, err := s.measure(ctx, dir)
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("measure layer %s: %w", r.DiffID, err)
		}
		used = append(used, Used{r.Entry, disk, filepath.Join(s.root, dir), kept[dir]})
	}
	return used, nil
}

// index copies the index of layers.
func (s *Store) index() map[string]record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.layers)
}

// Disk returns the bytes that the topmost of layers takes on the disk.
func (s *Store) Disk(ctx context.Context, layers ...oci.DiffID) (int64, error) {
	r, err := s.need(layers)
	if err != nil {
		return 0, err
	}
	return s.measure(ctx, r.dir())
}

// measure walks a layer once: it does not change any more when it is durable.
func (s *Store) measure(ctx context.Context, dir string) (int64, error) {
	s.mu.Lock()
	disk, known := s.disk[dir]
	s.mu.Unlock()
	if known {
		return disk, nil
	}
	_, err := os.Stat(filepath.Join(s.root, dir, "durable"))
	settled := err == nil
	u, err := diskusage.Of(ctx, filepath.Join(s.root, dir))
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.layers[dir]; there && settled {
		s.disk[dir] = u.Bytes
	}
	return u.Bytes, nil
}

// directories are those that stacks of layers, each lowest first, may need.
func directories(stacks [][]oci.DiffID) map[string]bool {
	kept := map[string]bool{}
	for _, stack := range stacks {
		for i, id := range stack {
			kept[record{Entry: Entry{DiffID: id}}.dir()] = true
			kept[chainDir(stack[:i+1])] = true
		}
	}
	return kept
}

// Sweep deletes the layers that none of the stacks keep, each lowest first, holds and no lease protects,
// and returns them. Their files go in the background (Wait).
func (s *Store) Sweep(ctx context.Context, keep [][]oci.DiffID) ([]Used, error) {
	kept := directories(keep)
	var swept []Used
	for dir, r := range s.index() {
		if kept[dir] {
			continue
		}
		disk, err := s.measure(ctx, dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return swept, fmt.Errorf("sweep layers: %w", err)
		}
		deleted, err := s.leases.Delete(dir, func() error { return s.drop(dir) })
		if err != nil {
			return swept, fmt.Errorf("sweep layers: %w", err)
		}
		if deleted {
			swept = append(swept, Used{Entry: r.Entry, Disk: disk, Path: filepath.Join(s.root, dir)})
		}
	}
	return swept, ctx.Err()
}

// Wait returns once the files of layers that were swept are deleted.
func (s *Store) Wait(ctx context.Context) error { return s.trash.Wait(ctx) }

// drop takes a layer out of the index and its files away.
func (s *Store) drop(dir string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.trash.Put(filepath.Join(s.root, dir)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	delete(s.layers, dir)
	delete(s.disk, dir)
	return nil
}
