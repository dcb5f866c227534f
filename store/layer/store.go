package layer

import (
	"context"
	"io"
	"log/slog"

	"davit/oci"
	"davit/oci/errdefs"
)

// Options configure a Store.
type Options struct {
	Log *slog.Logger // nil: discard
}

// Store owns one directory of unpacked layers. Its methods are safe for concurrent use.
//
// Where a method takes layers ...oci.DiffID, it means the last of them over all the others, lowest
// first, as an image config lists them.
type Store struct{}

// Open opens the store in root, creating it when needed, and removes what crashes left behind.
func Open(root string, opts Options) (*Store, error) {
	return nil, errdefs.NotImplemented("layer.Open")
}

// Close makes everything durable and stops the store's background work.
func (s *Store) Close(ctx context.Context) error { return nil }

// Unpack makes a layer of an uncompressed tar archive, which it reads to its end, and verifies it
// against diffID; on any error nothing is left. Of a layer that is there, or that another goroutine is
// just unpacking, it reads nothing and returns nil once it is there.
//
// parents are the layers below, lowest first. Unpack needs them only when the layer does not stand
// alone, and then waits for them after reading the tar: start the layers of an image lowest first, and
// cancel ctx when one of them fails.
func (s *Store) Unpack(ctx context.Context, diffID oci.DiffID, parents []oci.DiffID, tar io.Reader) error {
	return errdefs.NotImplemented("layer.Unpack")
}

// Import is Unpack of a tar whose DiffID is not known before (docker import, commit).
func (s *Store) Import(ctx context.Context, parents []oci.DiffID, tar io.Reader) (oci.DiffID, error) {
	return "", errdefs.NotImplemented("layer.Import")
}

// Adopt turns the upper directory of an unmounted overlay into a layer without copying it, and
// returns the DiffID of its canonical tar (see Pack). upper is gone afterwards. It has to be on the
// file system of the store.
func (s *Store) Adopt(ctx context.Context, upper string) (oci.DiffID, error) {
	return "", errdefs.NotImplemented("layer.Adopt")
}

// Has says whether the topmost of layers is unpacked for use over the others.
func (s *Store) Has(layers ...oci.DiffID) bool { return false }

// Dirs returns the directories of an overlay of layers, lowest first, one per layer. It fails with
// errdefs.ErrNotFound when one is missing.
func (s *Store) Dirs(layers ...oci.DiffID) ([]string, error) {
	return nil, errdefs.NotImplemented("layer.Dirs")
}

// Dir returns the directory of the topmost of layers.
func (s *Store) Dir(layers ...oci.DiffID) (string, error) {
	return "", errdefs.NotImplemented("layer.Dir")
}

// Size returns the sum of the sizes of the regular files in the topmost of layers, in bytes: what
// docker history shows for it.
func (s *Store) Size(layers ...oci.DiffID) (int64, error) {
	return 0, errdefs.NotImplemented("layer.Size")
}

// Tar writes the uncompressed tar archive of the topmost of layers, the very bytes that its DiffID
// names. It fails with errdefs.ErrDataLoss when the directory no longer yields them.
func (s *Store) Tar(ctx context.Context, w io.Writer, layers ...oci.DiffID) error {
	return errdefs.NotImplemented("layer.Tar")
}

// Sync returns once every layer that exists now survives a power failure.
func (s *Store) Sync(ctx context.Context) error { return nil }

// Lease keeps every layer that is added or asked for from now on until release is called. Whoever
// makes layers that nothing refers to yet (pull, load, build) holds one.
func (s *Store) Lease() (release func()) { return func() {} }

// Entry describes one layer in the store.
type Entry struct {
	DiffID  oci.DiffID   `json:"diffID"`
	Parents []oci.DiffID `json:"parents,omitempty"` // only of a layer that does not stand alone
	Size    int64        `json:"size"`              // as Store.Size
	TarSize int64        `json:"tarSize"`           // bytes of the tar archive
}

// List returns the layers in the store in no particular order.
func (s *Store) List() []Entry { return nil }
