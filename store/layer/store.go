package layer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"davit/internal/spread"
	"davit/internal/trash"
	"davit/internal/turn"
	"davit/oci"
	"davit/oci/errdefs"
	"davit/store/lease"
)

// Options configure a Store.
type Options struct {
	Log *slog.Logger // nil: discard
}

// Store owns one directory of unpacked layers. Its methods are safe for concurrent use.
//
// Where a method takes layers ...oci.DiffID, it means the last of them over all the others, lowest
// first, as an image config lists them.
type Store struct {
	root   string
	boot   string // identifies this run of the machine
	log    *slog.Logger
	trash  *trash.Bin
	leases lease.Ledger
	making turn.Turns[oci.DiffID] // layers being unpacked
	syncer *syncer

	mu     sync.Mutex
	layers map[string]record // by directory below root
	disk   map[string]int64  // what measure found, by directory
	grown  chan struct{}     // closed, and made anew, when a layer arrives
}

// Entry describes one layer in the store.
type Entry struct {
	DiffID  oci.DiffID   `json:"diffID"`
	Parents []oci.DiffID `json:"parents,omitempty"` // only of a layer that does not stand alone
	Size    int64        `json:"size"`              // as Store.Size
	TarSize int64        `json:"tarSize"`           // bytes of the tar archive
}

// record is the content of layer.json.
type record struct {
	Format int `json:"format"`
	Entry
	Chained bool `json:"chained,omitempty"` // does not stand alone; Parents may still be none
	Root    bool `json:"root,omitempty"`    // the archive says what its root directory is like
	// OpaqueRoot says that nothing of the layers below is to be seen. Overlayfs has no form for that.
	OpaqueRoot bool `json:"opaqueRoot,omitempty"`

	Displaced []displaced `json:"displaced,omitempty"`
	Boot      string      `json:"boot"` // the machine's boot_id when it was unpacked
}

const recordFormat = 1

// dir returns the layer's directory below the store's root.
func (r record) dir() string {
	if r.Chained {
		return chainDir(append(r.Parents[:len(r.Parents):len(r.Parents)], r.DiffID))
	}
	return filepath.Join(oci.Digest(r.DiffID).Algorithm(), oci.Digest(r.DiffID).Hex())
}

func chainDir(layers []oci.DiffID) string {
	chain := oci.Digest(oci.Chain(layers...))
	return filepath.Join("chain", chain.Algorithm(), chain.Hex())
}

// extraName is the name in extra/ of what was displaced.
func (d displaced) extraName() string { return strconv.Itoa(d.Extra) }

// Open opens the store in root, creating it when needed, and removes what crashes left behind.
func Open(root string, opts Options) (*Store, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("open layer store: %w", err)
	}
	log := opts.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Store{root: root, log: log, layers: map[string]record{}, disk: map[string]int64{}, grown: make(chan struct{})}
	if err := s.init(); err != nil {
		return nil, fmt.Errorf("open layer store: %w", err)
	}
	s.syncer = startSyncer(s)
	return s, nil
}

func (s *Store) init() error {
	for _, dir := range []string{".", "sha256", "chain/sha256"} {
		if err := os.MkdirAll(filepath.Join(s.root, dir), 0o700); err != nil {
			return err
		}
	}
	if err := spread.Mkdir(filepath.Join(s.root, "tmp"), 0o700); err != nil {
		return err
	}
	if err := os.Chmod(s.root, 0o700); err != nil {
		return err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	s.boot = strings.TrimSpace(string(boot))
	if s.trash, err = trash.Open(filepath.Join(s.root, "trash"), s.log); err != nil {
		return err
	}
	return errors.Join(s.dropDrafts(), s.load("sha256"), s.load("sha512"), s.load("chain/sha256"), s.load("chain/sha512"))
}

// dropDrafts deletes layers that were being made when the last process ended.
func (s *Store) dropDrafts() error {
	drafts, err := filepath.Glob(filepath.Join(s.root, "tmp", "*"))
	for _, draft := range drafts {
		err = errors.Join(err, s.trash.Put(draft))
	}
	return err
}

// load takes the layers in one directory into the index, and discards those that cannot be trusted.
func (s *Store) load(dir string) error {
	entries, err := os.ReadDir(filepath.Join(s.root, dir))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		path := filepath.Join(s.root, dir, e.Name())
		r, reason := s.check(path)
		if reason == nil && r.dir() != filepath.Join(dir, e.Name()) {
			reason = errors.New("it has the name of another layer")
		}
		if reason != nil {
			s.log.Warn("discarding layer", "layer", path, "reason", reason)
			err = errors.Join(err, s.trash.Put(path))
			continue
		}
		s.layers[r.dir()] = r
	}
	return err
}

// check reads a layer's record and decides whether the machine can have lost some of the layer.
func (s *Store) check(path string) (r record, reason error) {
	b, err := os.ReadFile(filepath.Join(path, "layer.json"))
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("read layer.json: %w", err)
	}
	if r.Format != recordFormat {
		return r, fmt.Errorf("its format is %d, this davit reads %d", r.Format, recordFormat)
	}
	if r.Boot == s.boot {
		return r, nil
	}
	if _, err := os.Stat(filepath.Join(path, "durable")); err != nil {
		return r, fmt.Errorf("the machine went down before it was on the disk: %w", err)
	}
	return r, nil
}

// Close makes everything durable and stops the store's background work.
func (s *Store) Close(ctx context.Context) error {
	return errors.Join(s.syncer.close(), s.trash.Close(ctx))
}

// find returns the record of the topmost of layers.
func (s *Store) find(layers []oci.DiffID) (record, bool) {
	if len(layers) == 0 {
		return record{}, false
	}
	if r, ok := s.get(record{Entry: Entry{DiffID: layers[len(layers)-1]}}.dir()); ok {
		return r, true
	}
	return s.get(chainDir(layers))
}

// get returns the record of the layer in a directory, and notes for the collector that it was asked for.
func (s *Store) get(dir string) (record, bool) {
	s.leases.Touch(dir)
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.layers[dir]
	return r, ok
}

// need is find with an error for a missing layer.
func (s *Store) need(layers []oci.DiffID) (record, error) {
	r, ok := s.find(layers)
	if !ok && len(layers) == 0 {
		return r, errdefs.Invalid("no layer named")
	}
	if !ok {
		return r, errdefs.NotFound("layer %s is not unpacked", layers[len(layers)-1])
	}
	return r, nil
}

// Has says whether the topmost of layers is unpacked for use over the others.
func (s *Store) Has(layers ...oci.DiffID) bool {
	_, ok := s.find(layers)
	return ok
}

// Dir returns the directory of the topmost of layers.
func (s *Store) Dir(layers ...oci.DiffID) (string, error) {
	r, err := s.need(layers)
	if err != nil {
		return "", err
	}
	return filepath.Join(s.root, r.dir(), "fs"), nil
}

// Dirs returns the directories of an overlay of layers, lowest first; of none it is empty. There is one
// per layer, but a layer that hides everything below it is the lowest. It fails with
// errdefs.ErrNotFound when one is missing.
func (s *Store) Dirs(layers ...oci.DiffID) ([]string, error) {
	dirs := make([]string, 0, len(layers))
	for i := range layers {
		r, err := s.need(layers[:i+1])
		if err != nil {
			return nil, err
		}
		if r.OpaqueRoot {
			dirs = dirs[:0]
		}
		dirs = append(dirs, filepath.Join(s.root, r.dir(), "fs"))
	}
	return dirs, nil
}

// RootDir returns the directory whose owner, mode and xattrs are those of the root of layers: that of
// the topmost layer that says anything about it. It is empty when none does; then it is 0755, 0:0.
func (s *Store) RootDir(layers ...oci.DiffID) (string, error) {
	for i := len(layers); i > 0; i-- {
		r, err := s.need(layers[:i])
		if err != nil {
			return "", err
		}
		if r.Root {
			return filepath.Join(s.root, r.dir(), "fs"), nil
		}
	}
	return "", nil
}

// Size returns the sum of the sizes of the regular files in the topmost of layers, in bytes: what
// docker history shows for it.
func (s *Store) Size(layers ...oci.DiffID) (int64, error) {
	r, err := s.need(layers)
	return r.Size, err
}

// List returns the layers in the store in no particular order.
func (s *Store) List() []Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	entries := make([]Entry, 0, len(s.layers))
	for _, r := range s.layers {
		entries = append(entries, r.Entry)
	}
	return entries
}

// Lease keeps every layer that is added or asked for from now on until release is called. Whoever
// makes layers that nothing refers to yet (pull, load, build) holds one.
func (s *Store) Lease() (release func()) { return s.leases.Hold() }

// Tar writes the uncompressed tar archive of the topmost of layers, the very bytes that its DiffID
// names. It fails with errdefs.ErrDataLoss when the directory no longer yields them.
func (s *Store) Tar(ctx context.Context, w io.Writer, layers ...oci.DiffID) error {
	r, err := s.need(layers)
	if err != nil {
		return err
	}
	h := oci.Digest(r.DiffID).Hash()
	if err := replay(ctx, filepath.Join(s.root, r.dir()), r.Displaced, io.MultiWriter(w, h)); err != nil {
		return fmt.Errorf("tar of layer %s: %w", r.DiffID, err)
	}
	if got := oci.SumDigest(oci.Digest(r.DiffID).Algorithm(), h); got != oci.Digest(r.DiffID) {
		return errdefs.New(errdefs.ErrDataLoss, "tar of layer %s: its files changed, their archive has digest %s", r.DiffID, got)
	}
	return nil
}
