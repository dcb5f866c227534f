package content

import (
	"context"
	"io"
	"iter"

	"davit/oci"
	"davit/oci/errdefs"
)

// Store owns one OCI image layout. Its methods are safe for concurrent use.
type Store struct{}

// Open opens the layout in root, creating it when needed.
func Open(root string) (*Store, error) { return nil, errdefs.NotImplemented("content.Open") }

// Info returns what the store knows of a blob, or errdefs.ErrNotFound.
func (s *Store) Info(ctx context.Context, digest oci.Digest) (Blob, error) {
	return Blob{}, errdefs.NotImplemented("content.Info")
}

// Open returns a reader of the blob that desc names, or errdefs.ErrNotFound. A size in desc that is
// neither zero nor the blob's is errdefs.ErrDataLoss.
func (s *Store) Open(ctx context.Context, desc oci.Descriptor) (ReaderAt, error) {
	return nil, errdefs.NotImplemented("content.Open")
}

// ReadAll returns a small blob (manifest, config) of at most limit bytes, verified.
func (s *Store) ReadAll(ctx context.Context, desc oci.Descriptor, limit int64) ([]byte, error) {
	return nil, errdefs.NotImplemented("content.ReadAll")
}

// Writer begins or continues the ingest of the blob that desc names; a size of -1 is unknown. It waits
// while another writer of the digest is open. When the blob is there it returns ErrExists.
func (s *Store) Writer(ctx context.Context, desc oci.Descriptor) (Writer, error) {
	return nil, errdefs.NotImplemented("content.Writer")
}

// NewIngest begins the ingest of a blob of unknown digest.
func (s *Store) NewIngest(ctx context.Context) (NewWriter, error) {
	return nil, errdefs.NotImplemented("content.NewIngest")
}

// Put stores the blob that desc names from a reader of all its bytes; bytes of a blob that is there are
// not read.
func (s *Store) Put(ctx context.Context, desc oci.Descriptor, r io.Reader) error {
	return errdefs.NotImplemented("content.Put")
}

// PutBytes stores b and returns its sha256 descriptor with the given media type.
func (s *Store) PutBytes(ctx context.Context, mediaType string, b []byte) (oci.Descriptor, error) {
	return oci.Descriptor{}, errdefs.NotImplemented("content.PutBytes")
}

// Delete removes a blob and what is ingested of it, or returns errdefs.ErrNotFound.
func (s *Store) Delete(ctx context.Context, digest oci.Digest) error {
	return errdefs.NotImplemented("content.Delete")
}

// Walk yields every blob, sorted by algorithm and digest.
func (s *Store) Walk(ctx context.Context) iter.Seq2[Blob, error] {
	return func(func(Blob, error) bool) {}
}

// SetIndex replaces index.json: the manifests that the layout names to others, with the annotation
// org.opencontainers.image.ref.name where they have a name.
func (s *Store) SetIndex(ctx context.Context, manifests []oci.Descriptor) error {
	return errdefs.NotImplemented("content.SetIndex")
}

// Lease keeps every blob that is added or asked for from now on until release is called. Whoever adds
// blobs that no name refers to yet (pull, load, build) holds one.
func (s *Store) Lease() (release func()) { return func() {} }
