package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"

	"github.com/docker/go-units"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/oci/ref"
	"davit/store/delta"
	"davit/store/metadata"
)

// DeltaSource is a Source that can send of a layer what differs from layers that are here.
type DeltaSource interface {
	Source
	// Delta opens a layer in the form of package store/delta, for somebody who has the layers of the same
	// repository that have names. manifest is that of the image that the layer is wanted for. It fails
	// when there is no delta, or none that is worth it: Fetch has the layer as it is.
	Delta(ctx context.Context, layer, manifest oci.Descriptor, have []oci.Digest) (io.ReadCloser, error)
}

const (
	maxHave = 16 // layers offered
	// maxRatio bounds what comes out of a delta, in sizes of the compressed layer.
	maxRatio = 256
	// maxOffline bounds what comes out of a delta in an archive, in bytes.
	maxOffline = 1 << 36
)

// deltas is what one copy knows of layers that new ones may be made of. The nil value knows nothing.
type deltas struct {
	source   DeltaSource
	manifest oci.Descriptor
	have     []oci.Digest
	stacks   map[oci.DiffID][]oci.DiffID // of each layer that a delta may copy from
	only     bool                        // the source has deltas only

	fetched atomic.Int64 // bytes of deltas
	instead atomic.Int64 // bytes of the layers that they stand for
}

// deltas looks for layers here whose blobs the repository has, those of the image named last first.
func (s *Store) deltas(source Source, r ref.Ref, from chosen) (*deltas, error) {
	able, ok := source.(DeltaSource)
	if !ok {
		return nil, nil
	}
	d := &deltas{source: able, manifest: from.desc, stacks: map[oci.DiffID][]oci.DiffID{}}
	err := s.o.DB.View(func(tx *metadata.Tx) error {
		older, err := inRepository(tx, r.Name())
		for _, rec := range older {
			if err == nil {
				err = s.offer(tx, d, rec, r.Name(), from.config.RootFS.DiffIDs)
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look for layers to copy from: %w", err)
	}
	return d, nil
}

// inRepository returns the images that have a name in the repository, the one changed last first.
func inRepository(tx *metadata.Tx, name string) ([]imageRecord, error) {
	var found []imageRecord
	seen := map[oci.Digest]bool{}
	for key, rec := range names().All(tx) {
		if repository(key) != name || seen[rec.ID] {
			continue
		}
		seen[rec.ID] = true
		img, err := images().Get(tx, string(rec.ID))
		if err != nil {
			return nil, err
		}
		found = append(found, img)
	}
	slices.SortFunc(found, func(a, b imageRecord) int { return b.Updated.Compare(a.Updated) })
	return found, nil
}

// offer adds an image's layers, uppermost first, without those that the new image has too.
func (s *Store) offer(tx *metadata.Tx, d *deltas, rec imageRecord, repository string, fresh []oci.DiffID) error {
	for i := len(rec.Layers); i > 0 && len(d.have) < maxHave; i-- {
		id := rec.Layers[i-1]
		if d.stacks[id] != nil || slices.Contains(fresh, id) || !s.o.Layers.Has(rec.Layers[:i]...) {
			continue
		}
		known, err := layerRecordOf(tx, id)
		if err != nil {
			return err
		}
		for _, form := range known.Forms {
			if form.Descriptor.Size >= delta.Worthwhile && slices.Contains(form.Repositories, repository) {
				d.have = append(d.have, form.Descriptor.Digest)
				d.stacks[id] = rec.Layers[:i]
				break
			}
		}
	}
	return nil
}

// deltaLayer copies a layer by its delta. done is false when that was not possible, for whatever reason,
// and the source has the layer as it is.
func (c *copier) deltaLayer(ctx context.Context, desc oci.Descriptor, diffIDs []oci.DiffID) (done bool, err error) {
	d := c.deltas
	if !d.worthAsking(desc) {
		return false, nil
	}
	if _, err := c.store.o.Content.Info(ctx, desc.Digest); err == nil {
		return false, nil // its blob is here
	}
	body, err := d.source.Delta(ctx, desc, d.manifest, d.have)
	if err != nil {
		c.store.o.Log.DebugContext(ctx, "no delta", "layer", desc.Digest, "reason", err)
		return false, d.final(err)
	}
	in := &counter{Reader: body, report: c.report, id: desc.Digest.Short(), status: "Downloading"}
	err = errors.Join(c.applyDelta(ctx, in, desc, diffIDs), body.Close())
	if err != nil {
		c.store.o.Log.WarnContext(ctx, "delta is of no use", "layer", desc.Digest, "error", err)
		return false, d.final(err)
	}
	d.fetched.Add(in.current)
	d.instead.Add(desc.Size)
	c.report.status(desc.Digest.Short(), "Pull complete")
	return true, nil
}

// worthAsking says whether the source may have a delta of a layer that saves something.
func (d *deltas) worthAsking(desc oci.Descriptor) bool {
	return d != nil && (d.only || len(d.have) > 0 && desc.Size >= delta.Worthwhile)
}

// final is the failure of a delta for which there is nothing in its place.
func (d *deltas) final(err error) error {
	if d.only {
		return err
	}
	return nil
}

// limit is how many bytes may come out of the delta of a layer.
func (d *deltas) limit(desc oci.Descriptor) int64 {
	if d.only {
		return maxOffline
	}
	return maxRatio * desc.Size
}

// applyDelta unpacks the layer that a delta makes; the layer store verifies it against its DiffID.
func (c *copier) applyDelta(ctx context.Context, in io.Reader, desc oci.Descriptor, diffIDs []oci.DiffID) (err error) {
	r, err := delta.NewReader(in, c.deltas.limit(desc))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	err = r.Use(func(id oci.DiffID) (delta.Archive, error) {
		stack := c.deltas.stacks[id]
		if stack == nil {
			return nil, errdefs.NotFound("it was not offered")
		}
		return c.store.o.Layers.Archive(ctx, stack...)
	})
	if err != nil {
		return err
	}
	return c.unpack(ctx, diffIDs, r)
}

// used says whether a layer came as a delta: it has no blob to be unpacked from again.
func (d *deltas) used() bool { return d != nil && d.instead.Load() > 0 }

// summary tells people what the deltas saved.
func (d *deltas) summary() string {
	return fmt.Sprintf("Delta: %s instead of %s", units.HumanSize(float64(d.fetched.Load())), units.HumanSize(float64(d.instead.Load())))
}
