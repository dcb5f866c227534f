package content

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"davit/internal/atomicfile"
	"davit/internal/turn"
	"davit/oci"
	"davit/oci/errdefs"
	"davit/store/lease"
)

// Store owns one OCI image layout. Its methods are safe for concurrent use.
type Store struct {
	root   string
	leases lease.Ledger

	writing turn.Turns[oci.Digest] // one open writer per digest

	// reached is called at the named points between two steps that a crash may separate.
	reached func(point string)
}

// Open opens the layout in root, creating it when needed.
func Open(root string) (*Store, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("open content store: %w", err)
	}
	s := &Store{root: root, reached: func(string) {}}
	for _, dir := range []string{"blobs/sha256", "ingest"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return nil, fmt.Errorf("open content store: %w", err)
		}
	}
	if err := os.Chmod(filepath.Join(root, "ingest"), 0o700); err != nil {
		return nil, fmt.Errorf("open content store: %w", err)
	}
	if err := s.initLayout(); err != nil {
		return nil, fmt.Errorf("open content store: %w", err)
	}
	if _, err := s.SweepIngests(context.Background(), IngestAge); err != nil {
		return nil, fmt.Errorf("open content store: %w", err)
	}
	return s, s.dropUnnamed()
}

// initLayout writes the two files that make root an image layout, where they are missing.
func (s *Store) initLayout() error {
	const layout = `{"imageLayoutVersion":"1.0.0"}` + "\n"
	file := filepath.Join(s.root, "oci-layout")
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		if err := atomicfile.Write(file, []byte(layout), 0o644); err != nil {
			return err
		}
	}
	if _, err := os.Stat(s.indexPath()); errors.Is(err, fs.ErrNotExist) {
		return s.SetIndex(context.Background(), nil)
	}
	return nil
}

// dropUnnamed removes ingests of unknown digest: whoever wrote them is gone.
func (s *Store) dropUnnamed() error {
	stale, err := filepath.Glob(filepath.Join(s.root, "ingest", "new-*"))
	for _, file := range stale {
		err = errors.Join(err, os.Remove(file))
	}
	return err
}

func (s *Store) indexPath() string { return filepath.Join(s.root, "index.json") }

// path returns where the blob of a digest is, or will be.
func (s *Store) path(d oci.Digest) string {
	return filepath.Join(s.root, "blobs", d.Algorithm(), d.Hex())
}

// Info returns what the store knows of a blob, or errdefs.ErrNotFound.
func (s *Store) Info(ctx context.Context, digest oci.Digest) (Blob, error) {
	if _, err := oci.ParseDigest(string(digest)); err != nil {
		return Blob{}, errdefs.As(errdefs.ErrInvalid, err)
	}
	s.leases.Touch(string(digest))
	info, err := os.Stat(s.path(digest))
	if err != nil {
		return Blob{}, notFound(digest, err)
	}
	return blobOf(digest, info), nil
}

func blobOf(digest oci.Digest, info fs.FileInfo) Blob {
	b := Blob{Digest: digest, Size: info.Size(), Disk: info.Size(), Created: info.ModTime()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		b.Disk = st.Blocks * 512
	}
	return b
}

// notFound turns a missing file into the error that callers decide by.
func notFound(digest oci.Digest, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errdefs.NotFound("blob %s not found", digest)
	}
	return fmt.Errorf("blob %s: %w", digest, err)
}

// blobFile is an open blob.
type blobFile struct {
	*os.File
	size int64
}

func (f blobFile) Size() int64 { return f.size }

// Open returns a reader of the blob that desc names, or errdefs.ErrNotFound. A size in desc that is
// neither zero nor the blob's is errdefs.ErrDataLoss. The reader may be an *os.File beneath (sendfile).
func (s *Store) Open(ctx context.Context, desc oci.Descriptor) (ReaderAt, error) {
	info, err := s.Info(ctx, desc.Digest)
	if err != nil {
		return nil, err
	}
	if desc.Size > 0 && info.Size != desc.Size {
		return nil, errdefs.New(errdefs.ErrDataLoss, "blob %s has %d bytes, its descriptor says %d", desc.Digest, info.Size, desc.Size)
	}
	f, err := os.Open(s.path(desc.Digest))
	if err != nil {
		return nil, notFound(desc.Digest, err)
	}
	return blobFile{f, info.Size}, nil
}

// ReadAll returns a small blob (manifest, config) of at most limit bytes, verified.
func (s *Store) ReadAll(ctx context.Context, desc oci.Descriptor, limit int64) ([]byte, error) {
	f, err := s.Open(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if f.Size() > limit {
		return nil, errdefs.Invalid("blob %s has %d bytes, more than the %d that are allowed here", desc.Digest, f.Size(), limit)
	}
	b, err := io.ReadAll(oci.Verify(f, oci.Descriptor{Digest: desc.Digest, Size: f.Size()}))
	if err != nil {
		return nil, errdefs.As(errdefs.ErrDataLoss, fmt.Errorf("read blob: %w", err))
	}
	return b, nil
}

// Put stores the blob that desc names from a reader of all its bytes; bytes of a blob that is there are
// not read.
func (s *Store) Put(ctx context.Context, desc oci.Descriptor, r io.Reader) error {
	w, err := s.writer(ctx, desc)
	if errors.Is(err, ErrExists) {
		return nil
	}
	if err != nil {
		return err
	}
	w.useless = true // the next one begins at the first byte as well
	defer w.Close()
	if err := w.Truncate(); err != nil { // r starts at the first byte
		return fmt.Errorf("put blob %s: %w", desc.Digest, err)
	}
	if _, err := io.Copy(w, r); err != nil {
		return fmt.Errorf("put blob %s: %w", desc.Digest, err)
	}
	return w.Commit(ctx)
}

// PutBytes stores b and returns its sha256 descriptor with the given media type.
func (s *Store) PutBytes(ctx context.Context, mediaType string, b []byte) (oci.Descriptor, error) {
	desc := oci.Descriptor{MediaType: mediaType, Digest: oci.DigestOf(b), Size: int64(len(b))}
	return desc, s.Put(ctx, desc, bytes.NewReader(b))
}

// Delete removes a blob and what is ingested of it, or returns errdefs.ErrNotFound.
func (s *Store) Delete(ctx context.Context, digest oci.Digest) error {
	if _, err := s.Info(ctx, digest); err != nil {
		return err
	}
	if err := os.Remove(s.path(digest)); err != nil {
		return fmt.Errorf("delete blob: %w", err)
	}
	return nil
}

// Walk yields every blob, sorted by algorithm and digest.
func (s *Store) Walk(ctx context.Context) iter.Seq2[Blob, error] {
	return func(yield func(Blob, error) bool) {
		files, err := filepath.Glob(filepath.Join(s.root, "blobs", "*", "*"))
		if err != nil {
			yield(Blob{}, err)
			return
		}
		for _, file := range files {
			if !s.visit(ctx, file, yield) {
				return
			}
		}
	}
}

// visit yields the blob in file and says whether to go on.
func (s *Store) visit(ctx context.Context, file string, yield func(Blob, error) bool) bool {
	digest, err := oci.ParseDigest(filepath.Base(filepath.Dir(file)) + ":" + filepath.Base(file))
	if err != nil {
		return true // not a blob of ours
	}
	if ctx.Err() != nil {
		yield(Blob{}, ctx.Err())
		return false
	}
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return true // deleted meanwhile
	}
	if err != nil {
		return yield(Blob{Digest: digest}, err)
	}
	return yield(blobOf(digest, info), nil)
}

// SetIndex replaces index.json: the manifests that the layout names to others, with the annotation
// org.opencontainers.image.ref.name where they have a name.
func (s *Store) SetIndex(ctx context.Context, manifests []oci.Descriptor) error {
	index := oci.Index{SchemaVersion: 2, MediaType: oci.MediaTypeIndex, Manifests: manifests}
	if manifests == nil {
		index.Manifests = []oci.Descriptor{}
	}
	b, err := json.Marshal(index)
	if err != nil {
		return fmt.Errorf("write index.json: %w", err)
	}
	b = append(b, '\n')
	if old, err := os.ReadFile(s.indexPath()); err == nil && bytes.Equal(old, b) {
		return nil
	}
	if err := atomicfile.Write(s.indexPath(), b, 0o644); err != nil {
		return fmt.Errorf("write index.json: %w", err)
	}
	return nil
}

// Lease keeps every blob that is added or asked for from now on until release is called. Whoever adds
// blobs that no name refers to yet (pull, load, build) holds one.
func (s *Store) Lease() (release func()) { return s.leases.Hold() }

// Sweep deletes the blobs that keep does not want and no lease protects, and returns them.
func (s *Store) Sweep(ctx context.Context, keep func(oci.Digest) bool) ([]Blob, error) {
	var swept []Blob
	for blob, err := range s.Walk(ctx) {
		if err != nil {
			return swept, fmt.Errorf("sweep blobs: %w", err)
		}
		if keep(blob.Digest) {
			continue
		}
		deleted, err := s.leases.Delete(string(blob.Digest), func() error { return os.Remove(s.path(blob.Digest)) })
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return swept, fmt.Errorf("sweep blobs: %w", err)
		}
		if deleted {
			swept = append(swept, blob)
		}
	}
	return swept, nil
}

// ingestPath returns where a blob is while it comes in.
func (s *Store) ingestPath(d oci.Digest) string {
	return filepath.Join(s.root, "ingest", strings.Replace(string(d), ":", "-", 1))
}
