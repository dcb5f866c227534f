// Package volume keeps named and anonymous volumes of the local driver:
//
//	<root>/<name>/_data/         what containers see
//	<root>/<name>/volume.json    labels, options, time of creation
//	<root>/.trash/               volumes being deleted
//
// A volume whose options name a device is mounted over _data by whoever starts containers; this
// package only says what to mount (Volume.Mount).
package volume

import (
	"context"
	"log/slog"
	"time"

	"davit/oci/errdefs"
)

// LabelAnonymous marks a volume that nobody named, as Docker does; its value is empty.
const LabelAnonymous = "com.docker.volume.anonymous"

// Volume is one volume.
type Volume struct {
	Name    string            `json:"name"`
	Options map[string]string `json:"options,omitempty"` // type, o, device
	Labels  map[string]string `json:"labels,omitempty"`
	Created time.Time         `json:"created"`
	Path    string            `json:"-"` // the _data directory, absolute
}

// Anonymous says whether the volume was made without a name.
func (v Volume) Anonymous() bool { _, ok := v.Labels[LabelAnonymous]; return ok }

// Mount is what has to be mounted on Volume.Path before use, in the words of mount(8).
type Mount struct {
	Type    string // "tmpfs", "nfs", "none" for a bind mount, ...
	Device  string
	Options string // comma-separated, as given with -o o=...
}

// Mount returns what to mount on v.Path; ok is false for a volume that is just a directory.
func (v Volume) Mount() (m Mount, ok bool) {
	if v.Options["device"] == "" {
		return Mount{}, false
	}
	return Mount{Type: v.Options["type"], Device: v.Options["device"], Options: v.Options["o"]}, true
}

// Store owns one directory of volumes. Its methods are safe for concurrent use.
type Store struct{}

// Open opens the store in root, creating it when needed.
func Open(root string, log *slog.Logger) (*Store, error) {
	return nil, errdefs.NotImplemented("volume.Open")
}

// Close waits, at most until ctx ends, for deletions under way; the next Open takes up the rest.
func (s *Store) Close(ctx context.Context) error { return nil }

// Create makes a volume, or returns the one of that name. With an empty name it makes an anonymous
// one: 64 hexadecimal digits, labelled LabelAnonymous. driver is "" or "local". A bad name or option
// fails with errdefs.ErrInvalid in Docker's words.
func (s *Store) Create(ctx context.Context, name, driver string, options, labels map[string]string) (Volume, error) {
	return Volume{}, errdefs.NotImplemented("volume.Create")
}

// Get returns the volume, or errdefs.ErrNotFound in Docker's words.
func (s *Store) Get(ctx context.Context, name string) (Volume, error) {
	return Volume{}, errdefs.NotImplemented("volume.Get")
}

// List returns all volumes, sorted by name.
func (s *Store) List(ctx context.Context) []Volume { return nil }

// Remove deletes a volume. usedBy names the containers that refer to it; when there are any it fails
// with errdefs.ErrConflict in Docker's words.
func (s *Store) Remove(ctx context.Context, name string, usedBy []string) error {
	return errdefs.NotImplemented("volume.Remove")
}

// Prune removes the volumes that unused approves and returns their names and the bytes they took.
func (s *Store) Prune(ctx context.Context, unused func(Volume) bool) (names []string, bytes int64, err error) {
	return nil, 0, errdefs.NotImplemented("volume.Prune")
}

// Usage returns the bytes that a volume's files take on the disk, as du counts.
func (s *Store) Usage(ctx context.Context, name string) (int64, error) {
	return 0, errdefs.NotImplemented("volume.Usage")
}

// CopyUp copies the directory from, with everything below it, into the volume when that is empty, and
// otherwise does nothing: owners, modes, times, xattrs, hard links, symbolic links, devices, holes. The
// volume's own directory takes the attributes of from. from is a path whose symbolic links are resolved
// (/proc/self/fd/N of an open directory is fine); links below it are copied, never followed.
func (s *Store) CopyUp(ctx context.Context, name, from string) error {
	return errdefs.NotImplemented("volume.CopyUp")
}
