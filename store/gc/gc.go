// Package gc finds the blobs and layers that nothing needs any more, and deletes them: mark from the
// roots, then sweep.
//
//	name -> index -> manifest -> config ....... blobs
//	                          -> layer blob     blobs
//	        config.rootfs.diff_ids ............ layers
//	container -> snapshot -> layers ........... layers
//
// The callers that know the roots (image names, containers, pulls that broke off and shall be
// continued, build cache) give them; gc follows the references between blobs. What was added or asked
// for since the oldest lease of its store, or since the collection began, is kept, so nobody needs to
// stop working while gc runs.
package gc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/store/content"
	"davit/store/layer"
)

// Roots are what must stay.
type Roots struct {
	Blobs  []oci.Descriptor // manifests and indexes with what they refer to; other blobs as they are
	Layers [][]oci.DiffID   // stacks, lowest first: each layer of each stays
}

// Report says what a collection deleted. Bytes are those of the disk.
type Report struct {
	Blobs      []oci.Digest
	BlobBytes  int64 // and of partial ingests that nobody continued
	Layers     []layer.Used
	LayerBytes int64
}

// maxManifest bounds a manifest, index or config, in bytes.
const maxManifest = 32 << 20

// Collect asks roots for the roots, marks, and sweeps. A manifest that is not in the store is passed
// over (an index names platforms that were never pulled); an unreadable one ends the collection before
// anything is deleted.
func Collect(ctx context.Context, blobs *content.Store, layers *layer.Store, roots func(context.Context) (Roots, error)) (Report, error) {
	defer blobs.Lease()() // from before the look at the roots: nothing that comes meanwhile is swept
	defer layers.Lease()()
	from, err := roots(ctx)
	if err != nil {
		return Report{}, fmt.Errorf("collect garbage: %w", err)
	}
	m := &marker{blobs: blobs, seen: map[oci.Digest]bool{}, stacks: from.Layers}
	for _, desc := range from.Blobs {
		if err := m.mark(ctx, desc); err != nil {
			return Report{}, fmt.Errorf("collect garbage: %w", err)
		}
	}
	report := Report{}
	var blobErr, layerErr error
	var swept []content.Blob
	swept, blobErr = blobs.Sweep(ctx, func(d oci.Digest) bool { return m.seen[d] })
	for _, blob := range swept {
		report.Blobs = append(report.Blobs, blob.Digest)
		report.BlobBytes += blob.Disk
	}
	partial, partialErr := blobs.SweepIngests(ctx, content.IngestAge)
	report.BlobBytes += partial
	report.Layers, layerErr = layers.Sweep(ctx, m.stacks)
	for _, l := range report.Layers {
		report.LayerBytes += l.Disk
	}
	return report, errors.Join(blobErr, partialErr, layerErr)
}

// marker follows references between blobs.
type marker struct {
	blobs  *content.Store
	seen   map[oci.Digest]bool
	stacks [][]oci.DiffID
}

// mark keeps the blob that desc names and what it refers to.
func (m *marker) mark(ctx context.Context, desc oci.Descriptor) error {
	if m.seen[desc.Digest] {
		return nil
	}
	m.seen[desc.Digest] = true
	switch {
	case oci.IsIndex(desc.MediaType):
		var index oci.Index
		if found, err := m.read(ctx, desc, &index); err != nil || !found {
			return err
		}
		return m.markAll(ctx, index.Manifests)
	case oci.IsManifest(desc.MediaType):
		var manifest oci.Manifest
		if found, err := m.read(ctx, desc, &manifest); err != nil || !found {
			return err
		}
		return m.markAll(ctx, append(manifest.Layers, manifest.Config))
	case desc.MediaType == oci.MediaTypeConfig, desc.MediaType == oci.MediaTypeDockerConfig:
		var config oci.Image
		if found, err := m.read(ctx, desc, &config); err != nil || !found {
			return err
		}
		m.stacks = append(m.stacks, config.RootFS.DiffIDs)
	}
	return nil
}

func (m *marker) markAll(ctx context.Context, descs []oci.Descriptor) error {
	for _, desc := range descs {
		if err := m.mark(ctx, desc); err != nil {
			return err
		}
	}
	return nil
}

// read decodes a blob; found is false when the store does not have it.
func (m *marker) read(ctx context.Context, desc oci.Descriptor, into any) (found bool, err error) {
	b, err := m.blobs.ReadAll(ctx, oci.Descriptor{Digest: desc.Digest}, maxManifest)
	if errors.Is(err, errdefs.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return false, errdefs.As(errdefs.ErrDataLoss, fmt.Errorf("read %s: %w", desc.Digest, err))
	}
	return true, nil
}
