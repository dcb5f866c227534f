// Package delta lets a registry send of a layer only what differs from layers that the client has.
//
// For each image that is pushed it makes, in the background, the chunk lists of the layers (package
// store/chunk): those of the uncompressed archives. They are attached to the image as an artifact
// (ArtifactType, its subject the image's manifest), so that everybody can see them, and whoever knows
// nothing of them sees a plain OCI image. A layer that comes after others of its repository also has a
// pack: the chunks that are new in it, so that the layer need not be decompressed to send them.
//
// In the registry's records, under "repo/<name>/":
//
//	_indexed/<alg>-<hex of manifest>   the digest of the image's artifact
//	_chunks/<alg>-<hex of layer>       record: DiffID, list and pack of a layer
//	_lately                            the layers indexed most lately, latest first
//
// All of it can be made again: what is missing is made when somebody asks for it, who gets the plain layer.
package delta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/registry/storage"
	"davit/store/chunk"
	"davit/store/delta"
)

// The media types of the artifact and of its parts.
const (
	ArtifactType  = "application/vnd.davit.layer.chunks.v1"
	ListMediaType = "application/vnd.davit.layer.chunks.list.v1"
	PackMediaType = "application/vnd.davit.layer.chunks.pack.v1+zstd"

	layerAnnotation  = "davit.layer"
	diffIDAnnotation = "davit.layer.diffid"
)

const (
	maxManifest = 16 << 20
	maxHave     = 64 // layers that a client may offer
	maxChunks   = 1 << 22
	keepLately  = 16
	// packLimit is the percentage of an archive that a pack holds at most.
	packLimit = 12
)

// Repositories is what a Service needs of the registry. What is not there is errdefs.ErrNotFound.
type Repositories interface {
	// Holds returns the size of a blob that the repository holds.
	Holds(ctx context.Context, name string, d oci.Digest) (int64, error)
	// Manifest reads a manifest.
	Manifest(ctx context.Context, name string, d oci.Digest) ([]byte, error)
	// Attach puts an artifact's blobs and its manifest into the repository.
	Attach(ctx context.Context, name string, manifest []byte, blobs [][]byte) error
	// Detach removes an artifact, by its digest and its subject's.
	Detach(ctx context.Context, name string, artifact, subject oci.Digest) error
	// Kept says whether a manifest is there, or can be brought back.
	Kept(ctx context.Context, name string, d oci.Digest) (bool, error)
}

// Service makes chunk lists and answers with deltas. Its methods may be called at the same time.
type Service struct {
	store storage.Store
	repos Repositories
	log   *slog.Logger
	delay time.Duration
	busy  chan struct{} // one for each layer that is being decompressed for a client

	mu    sync.Mutex
	queue []image
	noted chan struct{} // holds one when the queue has grown
}

// image is one to make lists for.
type image struct {
	repository string
	manifest   oci.Digest
}

// New returns a Service. Lists are made once nothing was noted for the delay, so that pushes are not slowed.
func New(store storage.Store, repos Repositories, delay time.Duration, log *slog.Logger) *Service {
	return &Service{
		store: store, repos: repos, log: log, delay: delay,
		busy: make(chan struct{}, runtime.GOMAXPROCS(0)), noted: make(chan struct{}, 1),
	}
}

// layerRecord is what _chunks keeps of a layer.
type layerRecord struct {
	Unfit  bool       `json:"unfit,omitempty"` // there is no list, and there will be none
	DiffID oci.DiffID `json:"diffID,omitempty"`
	List   oci.Digest `json:"list,omitempty"`
	Pack   oci.Digest `json:"pack,omitempty"`
	// Before are the layers that the pack's chunks are not in, latest first.
	Before []oci.Digest `json:"before,omitempty"`
}

func dashed(d oci.Digest) string { return d.Algorithm() + "-" + d.Hex() }

func chunksKey(name string) string { return "repo/" + name + "/_chunks" }

func indexedKey(name string) string { return "repo/" + name + "/_indexed" }

func latelyKey(name string) string { return "repo/" + name + "/_lately" }

// record reads a record; one that is not there leaves the value as it is.
func (s *Service) record(ctx context.Context, key string, into any) error {
	value, err := s.store.GetRecord(ctx, key)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(value, into); err != nil {
		return fmt.Errorf("read record %s: %w", key, err)
	}
	return nil
}

func (s *Service) putRecord(ctx context.Context, key string, value any) error {
	b, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return s.store.PutRecord(ctx, key, b)
}

// layer returns what is known of a layer that the repository holds.
func (s *Service) layer(ctx context.Context, name string, d oci.Digest) (rec layerRecord, err error) {
	if _, err := s.repos.Holds(ctx, name, d); err != nil {
		return rec, err
	}
	err = s.record(ctx, chunksKey(name)+"/"+dashed(d), &rec)
	return rec, err
}

// list reads a layer's chunk list.
func (s *Service) list(ctx context.Context, rec layerRecord) (chunk.List, error) {
	if rec.List == "" {
		return nil, errdefs.NotFound("the layer has no chunk list")
	}
	b, err := s.small(ctx, rec.List)
	if err != nil {
		return nil, err
	}
	return chunk.Decode(b)
}

// small reads a blob of this package's making.
func (s *Service) small(ctx context.Context, d oci.Digest) ([]byte, error) {
	blob, err := s.store.OpenBlob(ctx, d)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(blob, maxChunks*20))
	return b, errors.Join(err, blob.Close())
}

// Prune removes what belonged to images and layers that are gone. The collector calls it before it looks
// for blobs that nothing refers to.
func (s *Service) Prune(ctx context.Context, name string) error {
	images, err := s.store.ListRecords(ctx, indexedKey(name))
	if err != nil {
		return err
	}
	for _, image := range images {
		if err := s.pruneImage(ctx, name, image); err != nil {
			return fmt.Errorf("prune chunk lists of %s: %w", image, err)
		}
	}
	layers, err := s.store.ListRecords(ctx, chunksKey(name))
	if err != nil {
		return err
	}
	for _, layer := range layers {
		key := chunksKey(name) + "/" + layer
		if _, err := s.store.RecordTime(ctx, "repo/"+name+"/_blobs/"+layer); !errors.Is(err, errdefs.ErrNotFound) {
			if err != nil {
				return err
			}
			continue
		}
		if err := s.store.DeleteRecord(ctx, key); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			return err
		}
	}
	return nil
}

func (s *Service) pruneImage(ctx context.Context, name, image string) error {
	manifest, err := oci.ParseDigest(strings.Replace(image, "-", ":", 1))
	if err != nil {
		return err
	}
	kept, err := s.repos.Kept(ctx, name, manifest)
	if err != nil || kept {
		return err
	}
	var artifact oci.Digest
	key := indexedKey(name) + "/" + image
	if err := s.record(ctx, key, &artifact); errors.Is(err, errdefs.ErrNotFound) {
		return nil // another process was here
	} else if err != nil {
		return err
	}
	if artifact != "" {
		if err := s.repos.Detach(ctx, name, artifact, manifest); err != nil {
			return err
		}
	}
	return s.store.DeleteRecord(ctx, key)
}

// bases are the layers among those offered that have lists, without doubles.
func (s *Service) bases(ctx context.Context, name string, have []oci.Digest) ([]delta.Base, error) {
	if len(have) > maxHave {
		return nil, errdefs.Invalid("%d layers are offered, %d are allowed", len(have), maxHave)
	}
	var bases []delta.Base
	chunks := 0
	for i, d := range have {
		if slices.Contains(have[:i], d) {
			continue
		}
		rec, err := s.layer(ctx, name, d)
		var list chunk.List
		if err == nil {
			list, err = s.list(ctx, rec)
		}
		if errors.Is(err, errdefs.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if chunks += len(list); chunks > maxChunks {
			break
		}
		bases = append(bases, delta.Base{DiffID: rec.DiffID, Chunks: list})
	}
	return bases, nil
}
