package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/store/chunk"
	"davit/store/delta"
)

// sinceFile is the file of an archive that holds only what is new, and says since when.
const sinceFile = "davit-since.json"

// sinceRecord is the content of sinceFile.
type sinceRecord struct {
	Since []sinceImage `json:"since"`
}

// sinceImage is an image that whoever loads the archive must have.
type sinceImage struct {
	Name   string       `json:"name"` // as the user of save wrote it
	ID     oci.Digest   `json:"id"`
	Layers []oci.DiffID `json:"layers"`
}

// deltaPath is where an archive has the delta of a layer.
func deltaPath(layer oci.Digest) string {
	return "davit-deltas/" + layer.Algorithm() + "/" + layer.Hex()
}

// SaveSince writes images for somebody who has the images since: layers that those have are left out, and
// the others are deltas to them. The archive is an OCI image layout without the layers' blobs, and
//
//	davit-since.json                  the images that must be there
//	davit-deltas/sha256/<hex>         a delta (package store/delta), by the layer's digest in the manifest
//
// Load reads it. What it is loaded from has the same image ID and manifest.
func (s *Store) SaveSince(ctx context.Context, list, since []string, w io.Writer) error {
	saved, err := s.toSave(ctx, list)
	if err != nil {
		return err
	}
	a := &sinceArchiver{archiver: archiver{store: s, tar: tar.NewWriter(w), written: map[oci.Digest]bool{}}}
	for _, name := range since {
		img, err := s.Resolve(ctx, name, nil)
		if err == nil {
			err = s.Ensure(ctx, img)
		}
		if err != nil {
			return err
		}
		a.since = append(a.since, sinceImage{Name: name, ID: img.ID, Layers: img.Layers})
	}
	for _, item := range saved {
		if err := s.Ensure(ctx, item.img); err != nil {
			return err
		}
	}
	if err := a.write(ctx, saved); err != nil {
		return fmt.Errorf("save images: %w", err)
	}
	return nil
}

// sinceArchiver writes one archive of what is new.
type sinceArchiver struct {
	archiver
	since []sinceImage
	bases []delta.Base // the layers of since, once they are needed
}

func (a *sinceArchiver) write(ctx context.Context, saved []savedImage) error {
	index := oci.Index{SchemaVersion: 2, MediaType: oci.MediaTypeIndex, Manifests: []oci.Descriptor{}}
	if err := errors.Join(a.directories(), a.json(sinceFile, sinceRecord{a.since})); err != nil {
		return err
	}
	for _, item := range saved {
		manifest, err := a.store.Manifest(ctx, item.img)
		if err != nil {
			return err
		}
		for i, desc := range manifest.Layers {
			if err := a.layer(ctx, desc, item.img.Layers[:i+1]); err != nil {
				return fmt.Errorf("layer %s: %w", desc.Digest.Short(), err)
			}
		}
		if err := errors.Join(a.blob(ctx, manifest.Config), a.blob(ctx, item.img.Manifest)); err != nil {
			return err
		}
		index.Manifests = append(index.Manifests, named(item.img.Manifest, item)...)
	}
	layout := map[string]string{"imageLayoutVersion": "1.0.0"}
	if err := errors.Join(a.json("index.json", index), a.json("oci-layout", layout)); err != nil {
		return err
	}
	return a.tar.Close()
}

// layer writes a layer's delta, unless one of the images has it over the same layers.
func (a *sinceArchiver) layer(ctx context.Context, desc oci.Descriptor, stack []oci.DiffID) error {
	has := func(img sinceImage) bool {
		return len(img.Layers) >= len(stack) && slices.Equal(img.Layers[:len(stack)], stack)
	}
	if slices.ContainsFunc(a.since, has) || a.written[desc.Digest] {
		return nil
	}
	a.written[desc.Digest] = true
	if err := a.findBases(ctx); err != nil {
		return err
	}
	file, err := os.CreateTemp(a.store.o.TempDir, "save-*")
	if err != nil {
		return err
	}
	defer file.Close()
	if err := os.Remove(file.Name()); err != nil {
		return err
	}
	if err := a.delta(ctx, file, stack); err != nil {
		return err
	}
	size, err := file.Seek(0, io.SeekCurrent)
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err == nil {
		err = a.header(deltaPath(desc.Digest), size)
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(a.tar, file)
	return err
}

// delta writes how the topmost layer of a stack is made of the bases.
func (a *sinceArchiver) delta(ctx context.Context, w io.Writer, stack []oci.DiffID) (err error) {
	want, err := a.store.chunks(ctx, stack)
	if err != nil {
		return err
	}
	archive, err := a.store.o.Layers.Archive(ctx, stack...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, archive.Close()) }()
	ops, bases := delta.Used(delta.Plan(want, a.bases), a.bases)
	return delta.Write(w, want, ops, bases, delta.FromArchive(io.NewSectionReader(archive, 0, archive.Size()), want))
}

// findBases cuts the layers of the images that are there already.
func (a *sinceArchiver) findBases(ctx context.Context) error {
	if a.bases != nil {
		return nil
	}
	a.bases = []delta.Base{}
	seen := map[oci.DiffID]bool{}
	for _, img := range a.since {
		for i, id := range img.Layers {
			if seen[id] || len(a.bases) == delta.MaxBases {
				continue
			}
			seen[id] = true
			list, err := a.store.chunks(ctx, img.Layers[:i+1])
			if err != nil {
				return err
			}
			a.bases = append(a.bases, delta.Base{DiffID: id, Chunks: list})
		}
	}
	return nil
}

// chunks cuts the topmost layer of a stack, and verifies it.
func (s *Store) chunks(ctx context.Context, stack []oci.DiffID) (chunk.List, error) {
	pr, pw := io.Pipe()
	defer pr.Close() // ends the goroutine in any case
	go func() { pw.CloseWithError(s.o.Layers.Tar(ctx, pw, stack...)) }()
	return chunk.ListOf(pr)
}

// deltas returns what an archive that holds only what is new is applied to, or nil for one that holds all.
// It fails when the images that it is new to are not here.
func (l *loader) deltas() (*deltas, error) {
	if !l.archive.has(sinceFile) {
		return nil, nil
	}
	var rec sinceRecord
	if err := l.archive.json(sinceFile, &rec); err != nil {
		return nil, err
	}
	d := &deltas{source: l.archive, only: true, stacks: map[oci.DiffID][]oci.DiffID{}}
	for _, img := range rec.Since {
		for i, id := range img.Layers {
			if !l.store.o.Layers.Has(img.Layers[:i+1]...) {
				return nil, errdefs.NotFound("the archive holds only what is new since %s (image %s), which is not here: pull or load that first",
					img.Name, img.ID.Short())
			}
			d.stacks[id] = img.Layers[:i+1]
		}
	}
	return d, nil
}

// Delta implements DeltaSource over the deltas of an archive, which were made for the images that it names.
func (a *archive) Delta(ctx context.Context, layer, _ oci.Descriptor, _ []oci.Digest) (io.ReadCloser, error) {
	r, err := a.open(deltaPath(layer.Digest))
	if err != nil {
		return nil, err
	}
	return io.NopCloser(&contextReader{ctx, r}), nil
}
