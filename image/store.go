package image

import (
	"context"
	"io"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/oci/ref"
)

// Store keeps the images of one engine. Its methods may be called at the same time.
type Store struct{}

// Resolve finds an image by a name, a digest reference, an ID or a unique prefix of one. With a
// platform, an image of another one is errdefs.ErrNotFound, so that the caller pulls.
func (s *Store) Resolve(ctx context.Context, name string, platform *oci.Platform) (Image, error) {
	return Image{}, errPending
}

// List returns the images that o selects, newest first.
func (s *Store) List(ctx context.Context, o ListOptions) ([]Image, error) { return nil, errPending }

// RawConfig returns the bytes of an image's configuration; their digest is its ID.
func (s *Store) RawConfig(ctx context.Context, id oci.Digest) ([]byte, error) {
	return nil, errPending
}

// Tag gives the image that source resolves to another name.
func (s *Store) Tag(ctx context.Context, source string, target ref.Ref) error { return errPending }

// Remove takes away a name, and the image with its last name.
func (s *Store) Remove(ctx context.Context, name string, o RemoveOptions) ([]Deleted, error) {
	return nil, errPending
}

// History returns the steps of an image, newest first.
func (s *Store) History(ctx context.Context, name string) ([]HistoryEntry, error) {
	return nil, errPending
}

// Pull copies an image from o.Source and names it r.
func (s *Store) Pull(ctx context.Context, r ref.Ref, o PullOptions) (Pulled, error) {
	return Pulled{}, errPending
}

// Push copies the image named r to o.Sink.
func (s *Store) Push(ctx context.Context, r ref.Ref, o PushOptions) (Pushed, error) {
	return Pushed{}, errPending
}

// Save writes images as one archive, a Docker archive and an OCI layout at the same time.
func (s *Store) Save(ctx context.Context, names []string, w io.Writer) error { return errPending }

// Load reads the images of a Docker or OCI archive in any compression.
func (s *Store) Load(ctx context.Context, r io.Reader, o LoadOptions) ([]Loaded, error) {
	return nil, errPending
}

// Import makes an image of one layer from a tar in any compression.
func (s *Store) Import(ctx context.Context, r io.Reader, o ImportOptions) (Image, error) {
	return Image{}, errPending
}

// Put makes an image of layers that are already in the layer store.
func (s *Store) Put(ctx context.Context, o PutOptions) (Image, error) { return Image{}, errPending }

// Prune removes images that nothing uses.
func (s *Store) Prune(ctx context.Context, o PruneOptions) (Pruned, error) {
	return Pruned{}, errPending
}

// DiskUsage returns every image's share, and the bytes of all layers together.
func (s *Store) DiskUsage(ctx context.Context) ([]Usage, int64, error) { return nil, 0, errPending }

// Layers returns the layer stacks that images need, lowest first each: roots for collection.
func (s *Store) Layers(ctx context.Context) ([][]oci.DiffID, error) { return nil, errPending }

// errPending is what the methods answer until their files land beside this one.
var errPending = errdefs.NotImplemented("the image store is not complete in this version")
