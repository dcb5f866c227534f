package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/oci/ref"
	"davit/store/layer"
	"davit/store/metadata"
)

// Put makes an image of layers that are in the layer store, and names it. Its manifest lists the layers
// as plain tars, which the layer store makes again when somebody asks; they are compressed only when
// they leave the machine.
func (s *Store) Put(ctx context.Context, o PutOptions) (Image, error) {
	defer s.o.Content.Lease()()
	defer s.o.Layers.Lease()()
	config, err := json.Marshal(withRootFS(o.Config))
	if err != nil {
		return Image{}, fmt.Errorf("encode image configuration: %w", err)
	}
	return s.putConfig(ctx, config, oci.MediaTypeConfig, o.Parent, o.Names, o.By)
}

// withRootFS gives an image without layers the form that the specification asks for.
func withRootFS(config oci.Image) oci.Image {
	config.RootFS.Type = "layers"
	if config.RootFS.DiffIDs == nil {
		config.RootFS.DiffIDs = []oci.DiffID{}
	}
	return config
}

// putConfig is Put for a configuration whose bytes are fixed, as a loaded one's. The caller holds leases.
func (s *Store) putConfig(ctx context.Context, config []byte, mediaType string, parent oci.Digest, as []ref.Ref, by Cause) (Image, error) {
	var decoded oci.Image
	if err := json.Unmarshal(config, &decoded); err != nil {
		return Image{}, fmt.Errorf("read image configuration: %w", err)
	}
	layers := decoded.RootFS.DiffIDs
	for i := range layers {
		if !s.o.Layers.Has(layers[:i+1]...) {
			return Image{}, errdefs.NotFound("layer %s of the image is not here", layers[i])
		}
	}
	if err := s.o.Layers.Sync(ctx); err != nil {
		return Image{}, fmt.Errorf("make layers durable: %w", err)
	}
	desc, err := s.o.Content.PutBytes(ctx, mediaType, config)
	if err != nil {
		return Image{}, fmt.Errorf("store image configuration: %w", err)
	}
	manifest, err := s.plainManifest(ctx, desc, layers)
	if err != nil {
		return Image{}, err
	}
	return s.record(ctx, desc.Digest, imageRecord{Manifest: manifest, Layers: layers, Parent: parent}, manifest, as, by)
}

// plainManifest stores the manifest of an image with its layers as tars.
func (s *Store) plainManifest(ctx context.Context, config oci.Descriptor, layers []oci.DiffID) (oci.Descriptor, error) {
	sizes := s.tarSizes(layers)
	m := oci.Manifest{SchemaVersion: 2, MediaType: oci.MediaTypeManifest, Config: config, Layers: make([]oci.Descriptor, len(layers))}
	for i, id := range layers {
		m.Layers[i] = oci.Descriptor{MediaType: oci.MediaTypeLayer, Digest: oci.Digest(id), Size: sizes[id]}
	}
	return s.putManifest(ctx, m)
}

func (s *Store) putManifest(ctx context.Context, m oci.Manifest) (oci.Descriptor, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return oci.Descriptor{}, fmt.Errorf("encode image manifest: %w", err)
	}
	desc, err := s.o.Content.PutBytes(ctx, m.MediaType, b)
	if err != nil {
		return oci.Descriptor{}, fmt.Errorf("store image manifest: %w", err)
	}
	return desc, nil
}

// tarSizes returns the bytes of each layer's tar.
func (s *Store) tarSizes(layers []oci.DiffID) map[oci.DiffID]int64 {
	sizes := make(map[oci.DiffID]int64, len(layers))
	for _, id := range layers {
		sizes[id] = 0
	}
	for _, entry := range s.o.Layers.List() {
		if _, wanted := sizes[entry.DiffID]; wanted {
			sizes[entry.DiffID] = entry.TarSize
		}
	}
	return sizes
}

// record writes an image's record, keeping what an earlier one knew, and its names, in one transaction.
func (s *Store) record(ctx context.Context, id oci.Digest, rec imageRecord, target oci.Descriptor, as []ref.Ref, by Cause) (Image, error) {
	err := s.o.DB.Update(func(tx *metadata.Tx) error {
		old, err := images().Get(tx, string(id))
		switch {
		case err == nil:
			rec = merge(old, rec)
		case errors.Is(err, errdefs.ErrNotFound):
			rec.Updated = s.o.Now().UTC()
		default:
			return fmt.Errorf("look up image %s: %w", id.Short(), err)
		}
		if err := images().Put(tx, string(id), rec); err != nil {
			return fmt.Errorf("record image %s: %w", id.Short(), err)
		}
		for _, r := range as {
			if err := s.setName(tx, r, nameRecord{ID: id, Target: target}, by); err != nil {
				return err
			}
		}
		rec, err = images().Get(tx, string(id))
		return err
	})
	if err != nil {
		return Image{}, err
	}
	if len(as) > 0 {
		if err := s.writeIndex(ctx); err != nil {
			return Image{}, err
		}
	}
	return s.image(ctx, id, rec)
}

// merge keeps an image's names and origin, and prefers the manifest whose blobs are all here.
func merge(old, now imageRecord) imageRecord {
	now.Names, now.Updated = old.Names, old.Updated
	if now.Parent == "" {
		now.Parent = old.Parent
	}
	if old.Complete && !now.Complete {
		now.Manifest, now.Complete = old.Manifest, true
	}
	return now
}

// Ensure unpacks again, from their blobs, what layers of the image are not there: after a power failure,
// the youngest may be missing.
func (s *Store) Ensure(ctx context.Context, img Image) error {
	missing := false
	for i := range img.Layers {
		missing = missing || !s.o.Layers.Has(img.Layers[:i+1]...)
	}
	if !missing {
		return nil
	}
	manifest, err := s.Manifest(ctx, img)
	if err != nil {
		return err
	}
	for i, desc := range manifest.Layers {
		if err := s.ensureLayer(ctx, desc, img.Layers[:i+1]); err != nil {
			return fmt.Errorf("unpack layer %s of image %s again: %w", desc.Digest.Short(), img.ID.Short(), err)
		}
	}
	return nil
}

func (s *Store) ensureLayer(ctx context.Context, desc oci.Descriptor, chain []oci.DiffID) error {
	if s.o.Layers.Has(chain...) {
		return nil
	}
	blob, err := s.o.Content.Open(ctx, desc)
	if err != nil {
		return err
	}
	defer blob.Close()
	tar, _, err := layer.Decompress(blob)
	if err != nil {
		return err
	}
	defer tar.Close()
	return s.o.Layers.Unpack(ctx, chain[len(chain)-1], chain[:len(chain)-1], tar)
}

// Manifest returns an image's manifest, decoded. Layers of media type oci.MediaTypeLayer may be in the
// layer store only.
func (s *Store) Manifest(ctx context.Context, img Image) (oci.Manifest, error) {
	b, err := s.o.Content.ReadAll(ctx, img.Manifest, maxConfig)
	if err != nil {
		return oci.Manifest{}, fmt.Errorf("read manifest of image %s: %w", img.ID.Short(), err)
	}
	return decodeManifest(b)
}

// created is a time for a configuration: whole to the nanosecond, in UTC.
func created(t time.Time) *time.Time {
	t = t.UTC()
	return &t
}
