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

// Report says what a collection deleted.
type Report struct {
	Blobs      []oci.Digest
	BlobBytes  int64
	Layers     []layer.Entry
	LayerBytes int64 // sum of Entry.Size
}

// Collect asks roots for the roots, marks, and sweeps. An unreadable manifest among the roots ends it
// before anything is deleted.
func Collect(ctx context.Context, blobs *content.Store, layers *layer.Store, roots func(context.Context) (Roots, error)) (Report, error) {
	return Report{}, errdefs.NotImplemented("gc.Collect")
}
