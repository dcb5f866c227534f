package engine

import (
	"context"
	"fmt"

	"davit/store/gc"
)

// Collect deletes blobs and layers that neither an image nor a container needs, and returns how many
// bytes that freed.
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
	for _, snapshot := range s.Snapshots.List() {
		roots.Layers = append(roots.Layers, snapshot.Layers)
	}
	return roots, nil
}
