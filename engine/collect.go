package engine

import (
	"context"
	"fmt"

	"davit/oci"
	"davit/store/gc"
)

// Collect deletes blobs and layers that neither an image, a container nor the build cache needs, and
// returns how many bytes of the disk that frees; layers' files go in the background (layer.Store.Wait).
func (s *shared) Collect(ctx context.Context) (int64, error) {
	report, err := gc.Collect(ctx, s.Content, s.Layers, s.roots)
	if err != nil {
		return 0, fmt.Errorf("collect what is not needed: %w", err)
	}
	return report.BlobBytes + report.LayerBytes, nil
}

// roots are what images, containers and builds need.
func (s *shared) roots(ctx context.Context) (gc.Roots, error) {
	roots, err := s.Options.Images.Roots(ctx)
	if err != nil {
		return gc.Roots{}, err
	}
	roots.Layers = append(roots.Layers, s.cacheLayers()...)
	roots.Layers = append(roots.Layers, s.snapshotLayers()...)
	return roots, nil
}

func (s *shared) snapshotLayers() [][]oci.DiffID {
	var stacks [][]oci.DiffID
	for _, snapshot := range s.Snapshots.List() {
		stacks = append(stacks, snapshot.Layers)
	}
	return stacks
}

// stacksInUse are the layers of images and of containers.
func (s *shared) stacksInUse(ctx context.Context) ([][]oci.DiffID, error) {
	roots, err := s.Options.Images.Roots(ctx)
	return append(roots.Layers, s.snapshotLayers()...), err
}
