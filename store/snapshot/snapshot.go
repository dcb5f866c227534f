// Package snapshot keeps what containers write: for each one an overlay upper directory on top of the
// layers of its image. It mounts nothing; it says, as a rootfs.Rootfs, what is to be mounted.
//
//	<root>/<key>/snapshot.json   layers, options
//	<root>/<key>/upper/          the container's writes; a view's root directory
//	<root>/<key>/work/           overlayfs's own; absent in a view
//	<root>/trash/                snapshots being deleted
//
// A key is chosen by the caller (a container's ID): letters, digits, '_', '.', '-', at most 128, not
// beginning with '.', and not "trash".
//
// A snapshot is active from Prepare or View until Remove or Seal, over restarts of the engine. It
// refers to layers; the collector keeps the layers that List names.
package snapshot

import (
	"context"
	"log/slog"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/oci/rootfs"
	"davit/store/layer"
)

// Options say what kind of snapshot to prepare.
type Options struct {
	// Volatile is for a container that does not outlive the host's uptime (docker run --rm): nothing is
	// synced, neither by this package nor by overlayfs.
	Volatile bool
}

// Snapshot describes one snapshot.
type Snapshot struct {
	Key      string       `json:"key"`
	Layers   []oci.DiffID `json:"layers"` // lowest first
	ReadOnly bool         `json:"readOnly,omitempty"`
	Volatile bool         `json:"volatile,omitempty"`
}

// Usage is what a snapshot's own files take on the disk, as du counts: hard links once, holes not.
type Usage struct {
	Bytes  int64
	Inodes int64
}

// Store owns one directory of snapshots. Its methods are safe for concurrent use.
type Store struct{}

// Open opens the store in root, creating it when needed, on the file system of layers.
func Open(root string, layers *layer.Store, log *slog.Logger) (*Store, error) {
	return nil, errdefs.NotImplemented("snapshot.Open")
}

// Close waits, at most until ctx ends, for deletions under way; the next Open takes up the rest.
func (s *Store) Close(ctx context.Context) error { return nil }

// Prepare makes a writable snapshot over layers, lowest first (none: an empty root). It fails with
// errdefs.ErrConflict when the key is taken and with errdefs.ErrNotFound when a layer is missing.
func (s *Store) Prepare(ctx context.Context, key string, layers []oci.DiffID, opts Options) (rootfs.Rootfs, error) {
	return rootfs.Rootfs{}, errdefs.NotImplemented("snapshot.Prepare")
}

// View is Prepare for a read-only root.
func (s *Store) View(ctx context.Context, key string, layers []oci.DiffID) (rootfs.Rootfs, error) {
	return rootfs.Rootfs{}, errdefs.NotImplemented("snapshot.View")
}

// Rootfs returns what Prepare or View returned for key, ready to be mounted (again).
func (s *Store) Rootfs(key string) (rootfs.Rootfs, error) {
	return rootfs.Rootfs{}, errdefs.NotImplemented("snapshot.Rootfs")
}

// Get returns the snapshot, or errdefs.ErrNotFound.
func (s *Store) Get(key string) (Snapshot, error) {
	return Snapshot{}, errdefs.NotImplemented("snapshot.Get")
}

// Upper returns the directory of the snapshot's writes.
func (s *Store) Upper(key string) (string, error) {
	return "", errdefs.NotImplemented("snapshot.Upper")
}

// Usage walks the snapshot's writes.
func (s *Store) Usage(ctx context.Context, key string) (Usage, error) {
	return Usage{}, errdefs.NotImplemented("snapshot.Usage")
}

// Changes compares the snapshot's writes with its layers: docker diff.
func (s *Store) Changes(ctx context.Context, key string) ([]layer.Change, error) {
	return nil, errdefs.NotImplemented("snapshot.Changes")
}

// Commit makes a layer of a copy of the snapshot's writes; the snapshot stays as it is, and may be
// mounted (docker commit).
func (s *Store) Commit(ctx context.Context, key string) (oci.DiffID, error) {
	return "", errdefs.NotImplemented("snapshot.Commit")
}

// Seal makes a layer of the snapshot's writes without copying, and removes the snapshot. It must not
// be mounted any more (a build step).
func (s *Store) Seal(ctx context.Context, key string) (oci.DiffID, error) {
	return "", errdefs.NotImplemented("snapshot.Seal")
}

// Remove forgets the snapshot at once and deletes its files in the background. Removing one that is
// not there is errdefs.ErrNotFound.
func (s *Store) Remove(ctx context.Context, key string) error {
	return errdefs.NotImplemented("snapshot.Remove")
}

// List returns all snapshots, sorted by key.
func (s *Store) List() []Snapshot { return nil }
