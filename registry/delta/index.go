package delta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/store/chunk"
	"davit/store/delta"
	"davit/store/layer"
)

const (
	queueLimit = 1024
	// longestDelay bounds, in delays, how long steady pushing puts the lists off.
	longestDelay = 60

	// An archive that is so much larger than its blob has no list: it is mostly one byte, or an attack.
	maxRatio = 200
)

// Note says that an image was pushed. Nothing waits for its lists; when too many images wait, the oldest is
// passed over until somebody asks for it.
func (s *Service) Note(repository string, manifest oci.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	noted := image{repository, manifest}
	if slices.Contains(s.queue, noted) {
		return
	}
	s.queue = append(s.queue, noted)
	if len(s.queue) > queueLimit {
		s.queue = s.queue[1:]
	}
	select {
	case s.noted <- struct{}{}:
	default:
	}
}

// Run makes lists until ctx ends.
func (s *Service) Run(ctx context.Context) {
	for s.quiet(ctx) {
		for next, ok := s.next(); ok && ctx.Err() == nil; next, ok = s.next() {
			began := time.Now()
			if err := s.Index(ctx, next.repository, next.manifest); err != nil && ctx.Err() == nil {
				s.log.Warn("make chunk lists", "repository", next.repository, "manifest", next.manifest, "error", err)
				continue
			}
			s.log.Debug("made chunk lists", "repository", next.repository, "manifest", next.manifest, "time", time.Since(began))
		}
	}
}

// quiet waits for an image, and then until none came for the delay. It is false when ctx ends.
func (s *Service) quiet(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-s.noted:
	}
	latest := time.Now().Add(longestDelay * s.delay)
	timer := time.NewTimer(s.delay)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case <-s.noted:
			timer.Reset(min(s.delay, time.Until(latest)))
		}
	}
}

func (s *Service) next() (image, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return image{}, false
	}
	next := s.queue[0]
	s.queue = s.queue[1:]
	return next, true
}

// indexing is the making of one image's lists.
type indexing struct {
	*Service
	name   string
	lately []oci.Digest
	layers []oci.Descriptor // of the artifact
	blobs  [][]byte
	made   map[oci.Digest]layerRecord
	fresh  bool // a list was made that was not there
}

// Index makes the chunk lists of an image's layers, where they are not there yet, and attaches them to it.
// A manifest that is no image's, or that has no layer worth it, gets none.
func (s *Service) Index(ctx context.Context, name string, manifest oci.Digest) error {
	b, err := s.repos.Manifest(ctx, name, manifest)
	if err != nil {
		return fmt.Errorf("read manifest: %w", err)
	}
	var m oci.Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return fmt.Errorf("read manifest: %w", err)
	}
	if m.Config.MediaType != oci.MediaTypeConfig && m.Config.MediaType != oci.MediaTypeDockerConfig {
		return nil
	}
	x := &indexing{Service: s, name: name, made: map[oci.Digest]layerRecord{}}
	if err := s.record(ctx, latelyKey(name), &x.lately); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	for _, desc := range m.Layers {
		if err := x.layer(ctx, desc); err != nil {
			return fmt.Errorf("layer %s: %w", desc.Digest, err)
		}
	}
	subject := oci.Descriptor{MediaType: m.MediaType, Digest: manifest, Size: int64(len(b))}
	if subject.MediaType == "" {
		subject.MediaType = oci.MediaTypeManifest
	}
	return x.attach(ctx, subject)
}

// layer makes a layer's list, or finds it.
func (x *indexing) layer(ctx context.Context, desc oci.Descriptor) error {
	if desc.Size < delta.Worthwhile || len(desc.URLs) > 0 {
		return nil
	}
	rec, err := x.Service.layer(ctx, x.name, desc.Digest)
	if err == nil && (rec.Unfit || x.whole(ctx, rec)) {
		x.describe(desc.Digest, rec, nil, nil)
		return nil
	}
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	before, known, err := x.known(ctx, desc.Digest)
	if err != nil {
		return err
	}
	list, pack, diffID, err := x.cut(ctx, desc, known)
	if errors.Is(err, errdefs.ErrInvalid) {
		x.log.Debug("layer has no chunk list", "repository", x.name, "layer", desc.Digest, "reason", err)
		x.made[desc.Digest] = layerRecord{Unfit: true}
		return nil
	}
	if err != nil {
		return err
	}
	encoded := list.Encode()
	rec = layerRecord{DiffID: diffID, List: oci.DigestOf(encoded)}
	if pack != nil {
		rec.Pack, rec.Before = oci.DigestOf(pack), before
	}
	x.describe(desc.Digest, rec, encoded, pack)
	x.made[desc.Digest] = rec
	return nil
}

// whole says whether the blobs of a record are there.
func (x *indexing) whole(ctx context.Context, rec layerRecord) bool {
	for _, d := range []oci.Digest{rec.List, rec.Pack} {
		if d == "" {
			continue
		}
		if _, err := x.repos.Holds(ctx, x.name, d); err != nil {
			return false
		}
	}
	return rec.List != ""
}

// describe adds a layer's list and pack to the artifact; the blobs are nil when they are there already.
func (x *indexing) describe(layer oci.Digest, rec layerRecord, list, pack []byte) {
	for _, part := range []struct {
		mediaType string
		digest    oci.Digest
		content   []byte
	}{{ListMediaType, rec.List, list}, {PackMediaType, rec.Pack, pack}} {
		if part.digest == "" {
			continue
		}
		x.layers = append(x.layers, oci.Descriptor{
			MediaType: part.mediaType, Digest: part.digest, Size: int64(len(part.content)),
			Annotations: map[string]string{layerAnnotation: string(layer), diffIDAnnotation: string(rec.DiffID)},
		})
		if part.content != nil {
			x.blobs = append(x.blobs, part.content)
		}
	}
}

// known returns the layers indexed lately and the chunks that they have.
func (x *indexing) known(ctx context.Context, layer oci.Digest) ([]oci.Digest, map[chunk.Sum]bool, error) {
	before := slices.DeleteFunc(slices.Clone(x.lately), func(d oci.Digest) bool { return d == layer })
	bases, err := x.bases(ctx, x.name, before)
	if err != nil {
		return nil, nil, err
	}
	known := map[chunk.Sum]bool{}
	for _, base := range bases {
		for _, c := range base.Chunks {
			known[c.Sum] = true
		}
	}
	return before, known, nil
}

// cut decompresses a layer into chunks. An archive that cannot be read, or that grows too large, is
// errdefs.ErrInvalid. pack is nil when no chunk is known, or too many are not.
func (x *indexing) cut(ctx context.Context, desc oci.Descriptor, known map[chunk.Sum]bool) (list chunk.List, pack []byte, id oci.DiffID, err error) {
	blob, err := x.store.OpenBlob(ctx, desc.Digest)
	if err != nil {
		return nil, nil, "", err
	}
	defer blob.Close()
	archive, _, err := layer.Decompress(blob)
	if err != nil {
		return nil, nil, "", errdefs.As(errdefs.ErrInvalid, err)
	}
	defer archive.Close()
	digest := oci.Digest("sha256:").Hash()
	packing := newPacking(known)
	var size int64
	err = chunk.Cut(io.TeeReader(archive, digest), func(b []byte) error {
		if size += int64(len(b)); size > maxRatio*desc.Size || len(list) == maxChunks {
			return errors.New("the archive is too large")
		}
		c := chunk.Chunk{Size: len(b), Sum: chunk.SumOf(b)}
		list = append(list, c)
		packing.add(c, b)
		return ctx.Err()
	})
	if ctx.Err() != nil {
		return nil, nil, "", ctx.Err()
	}
	if err != nil {
		return nil, nil, "", errdefs.As(errdefs.ErrInvalid, err)
	}
	pack, err = packing.encode(size * packLimit / 100)
	return list, pack, oci.DiffID(oci.SumDigest("sha256", digest)), err
}

// attach stores the artifact, then the records that lead to it.
func (x *indexing) attach(ctx context.Context, subject oci.Descriptor) error {
	var artifact oci.Digest
	if len(x.layers) > 0 {
		manifest, err := x.artifact(ctx, subject)
		if err != nil {
			return err
		}
		if err := x.repos.Attach(ctx, x.name, manifest, append(x.blobs, []byte(emptyConfig))); err != nil {
			return fmt.Errorf("attach chunk lists: %w", err)
		}
		artifact = oci.DigestOf(manifest)
		if err := x.putRecord(ctx, indexedKey(x.name)+"/"+dashed(subject.Digest), artifact); err != nil {
			return err
		}
	}
	for layer, rec := range x.made {
		if err := x.putRecord(ctx, chunksKey(x.name)+"/"+dashed(layer), rec); err != nil {
			return err
		}
		if !rec.Unfit {
			x.lately = slices.Insert(x.lately, 0, layer)
			x.fresh = true
		}
	}
	if !x.fresh {
		return nil
	}
	return x.putRecord(ctx, latelyKey(x.name), x.lately[:min(len(x.lately), keepLately)])
}

const emptyConfig = "{}" // image-spec, manifest.md, "Guidance for an Empty Descriptor"

// artifact is the manifest of an image's lists.
func (x *indexing) artifact(ctx context.Context, subject oci.Descriptor) ([]byte, error) {
	for i, desc := range x.layers {
		if desc.Size > 0 {
			continue
		}
		size, err := x.repos.Holds(ctx, x.name, desc.Digest)
		if err != nil {
			return nil, err
		}
		x.layers[i].Size = size
	}
	return json.Marshal(oci.Manifest{
		SchemaVersion: 2, MediaType: oci.MediaTypeManifest, ArtifactType: ArtifactType,
		Config: oci.Descriptor{MediaType: oci.MediaTypeEmpty, Digest: oci.DigestOf([]byte(emptyConfig)), Size: int64(len(emptyConfig))},
		Layers: x.layers, Subject: &subject,
	})
}
