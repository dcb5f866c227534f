package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/store/content"
	"davit/store/gc"
	"davit/store/layer"
	"davit/store/metadata"
)

// Options are the parts that a Store works with.
type Options struct {
	DB      *metadata.DB
	Content *content.Store
	Layers  *layer.Store
	TempDir string // for an archive while it is loaded; empty: os.TempDir

	Platform oci.Platform // which images to choose; zero: this machine's
	Users    Users        // nil: nothing uses images
	// Collect deletes blobs and layers that nothing refers to (see package gc; Roots are the images'
	// share) and returns the bytes that it gave back. nil: they stay.
	Collect func(context.Context) (int64, error)
	Log     *slog.Logger
	Now     func() time.Time // nil: time.Now

	Downloads int // layers at once in a pull; 0: 6
	Uploads   int // layers at once in a push; 0: 5
}

// Store keeps the images of one engine. Its methods may be called at the same time.
type Store struct {
	o Options

	mu      sync.Mutex
	configs map[oci.Digest]oci.Image // decoded configurations; they never change
}

// imageRecord is what the table "images" keeps under an image's ID.
type imageRecord struct {
	Manifest oci.Descriptor `json:"manifest"`
	Layers   []oci.DiffID   `json:"layers"`
	Parent   oci.Digest     `json:"parent,omitempty"`
	Updated  time.Time      `json:"updated"`
	Names    []string       `json:"names,omitempty"`    // full references, sorted; the keys of the table "names"
	Complete bool           `json:"complete,omitempty"` // all blobs of the manifest came into the content store
}

// nameRecord is what the table "names" keeps under a full reference.
type nameRecord struct {
	ID     oci.Digest     `json:"id"`
	Target oci.Descriptor `json:"target"` // the index or manifest that the name led to
}

// layerRecord is what the table "distribution" keeps under a DiffID.
type layerRecord struct {
	Forms []layerForm `json:"forms"` // latest first, at most maxForms
}

// layerForm is one compressed form of a layer, and the repositories that hold it.
type layerForm struct {
	Descriptor   oci.Descriptor `json:"descriptor"`
	Repositories []string       `json:"repositories"` // full names, latest first
}

// pullRecord is what the table "pulls" keeps under a full reference while its pull is under way, so that
// what a broken one brought stays until the next.
type pullRecord struct {
	Manifest oci.Descriptor `json:"manifest"`
	Since    time.Time      `json:"since"`
}

func images() metadata.Table[imageRecord] { return metadata.NewTable[imageRecord]("images") }
func names() metadata.Table[nameRecord]   { return metadata.NewTable[nameRecord]("names") }
func pulls() metadata.Table[pullRecord]   { return metadata.NewTable[pullRecord]("pulls") }
func distribution() metadata.Table[layerRecord] {
	return metadata.NewTable[layerRecord]("distribution")
}

// New returns the store over the given parts.
func New(o Options) (*Store, error) {
	if o.DB == nil || o.Content == nil || o.Layers == nil {
		return nil, errdefs.Invalid("an image store needs a database, a content store and a layer store")
	}
	if o.Platform.Architecture == "" {
		o.Platform = HostPlatform()
	}
	if o.TempDir == "" {
		o.TempDir = os.TempDir()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Downloads == 0 {
		o.Downloads = 6
	}
	if o.Uploads == 0 {
		o.Uploads = 5
	}
	s := &Store{o: o, configs: map[oci.Digest]oci.Image{}}
	return s, s.writeIndex(context.Background())
}

// maxConfig bounds manifests and configurations, in bytes.
const maxConfig = 16 << 20

// RawConfig returns the bytes of an image's configuration; their digest is its ID.
func (s *Store) RawConfig(ctx context.Context, id oci.Digest) ([]byte, error) {
	b, err := s.o.Content.ReadAll(ctx, oci.Descriptor{Digest: id}, maxConfig)
	if err != nil {
		return nil, fmt.Errorf("read configuration of image %s: %w", id.Short(), err)
	}
	return b, nil
}

// config returns the decoded configuration. The caller must not change what it refers to.
func (s *Store) config(ctx context.Context, id oci.Digest) (oci.Image, error) {
	s.mu.Lock()
	c, ok := s.configs[id]
	s.mu.Unlock()
	if ok {
		return c, nil
	}
	b, err := s.RawConfig(ctx, id)
	if err != nil {
		return oci.Image{}, err
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return oci.Image{}, fmt.Errorf("read configuration of image %s: %w", id.Short(), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.configs[id] = c
	return c, nil
}

// image puts an Image together from its record.
func (s *Store) image(ctx context.Context, id oci.Digest, rec imageRecord) (Image, error) {
	config, err := s.config(ctx, id)
	if err != nil {
		return Image{}, err
	}
	img := Image{
		ID: id, Config: config, Manifest: rec.Manifest, Layers: slices.Clone(rec.Layers), Size: s.size(rec.Layers),
		Parent: rec.Parent, Updated: rec.Updated,
	}
	for _, name := range rec.Names {
		familiar, digest := familiarName(name)
		if digest {
			img.RepoDigests = append(img.RepoDigests, familiar)
		} else {
			img.RepoTags = append(img.RepoTags, familiar)
		}
	}
	return img, nil
}

// size sums the layers' sizes in bytes; one that is not unpacked counts nothing.
func (s *Store) size(layers []oci.DiffID) int64 {
	var sum int64
	for i := range layers {
		if n, err := s.o.Layers.Size(layers[:i+1]...); err == nil {
			sum += n
		}
	}
	return sum
}

// Get returns the image with the full ID.
func (s *Store) Get(ctx context.Context, id oci.Digest) (Image, error) {
	var rec imageRecord
	err := s.o.DB.View(func(tx *metadata.Tx) (err error) {
		rec, err = images().Get(tx, string(id))
		return err
	})
	if errors.Is(err, errdefs.ErrNotFound) {
		return Image{}, notFound(string(id))
	}
	if err != nil {
		return Image{}, fmt.Errorf("look up image %s: %w", id.Short(), err)
	}
	return s.image(ctx, id, rec)
}

// Has says whether an image with the full ID is here.
func (s *Store) Has(id oci.Digest) bool {
	err := s.o.DB.View(func(tx *metadata.Tx) error {
		_, err := images().Get(tx, string(id))
		return err
	})
	return err == nil
}

// Roots returns what the images need: the share of images in a collection's roots. A pull that broke
// off keeps what it brought for a week.
func (s *Store) Roots(ctx context.Context) (gc.Roots, error) {
	var roots gc.Roots
	err := s.o.DB.View(func(tx *metadata.Tx) error {
		for id, rec := range images().All(tx) {
			roots.Blobs = append(roots.Blobs, rec.Manifest, oci.Descriptor{Digest: oci.Digest(id)})
			roots.Layers = append(roots.Layers, rec.Layers)
		}
		for _, rec := range names().All(tx) {
			// An index as a plain blob: most of its manifests are not here.
			roots.Blobs = append(roots.Blobs, oci.Descriptor{Digest: rec.Target.Digest, Size: rec.Target.Size})
		}
		for _, log := range tagLogs().All(tx) {
			for _, m := range log.Moves {
				if _, err := images().Get(tx, string(m.ID)); err == nil {
					roots.Blobs = append(roots.Blobs, oci.Descriptor{Digest: m.Target.Digest, Size: m.Target.Size})
				}
			}
		}
		for _, rec := range pulls().All(tx) {
			if s.o.Now().Sub(rec.Since) < keepBroken {
				roots.Blobs = append(roots.Blobs, rec.Manifest)
			}
		}
		return nil
	})
	if err != nil {
		return gc.Roots{}, fmt.Errorf("list what images need: %w", err)
	}
	return roots, nil
}

// keepBroken is how long a broken pull's blobs wait for the next attempt.
const keepBroken = 7 * 24 * time.Hour
