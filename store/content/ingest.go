package content

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"davit/internal/atomicfile"
	"davit/kernel/sys"
	"davit/oci"
	"davit/oci/errdefs"
)

// writebackStep is how many bytes a writer lets gather before it asks the kernel to begin writing them,
// so that the sync in Commit finds little left to do.
const writebackStep = 8 << 20

// ingest is a file that grows, with the hash of what is in it.
type ingest struct {
	store   *Store
	file    *os.File
	hash    hash.Hash
	n       int64 // bytes in the file, all of them hashed
	started int64 // bytes whose writeback has been asked for
	closed  bool
}

// Write appends p.
func (i *ingest) Write(p []byte) (int, error) {
	if i.closed {
		return 0, fmt.Errorf("write %s: %w", i.file.Name(), os.ErrClosed)
	}
	n, err := i.file.Write(p)
	i.hash.Write(p[:n])
	i.n += int64(n)
	if i.n-i.started >= writebackStep {
		// Only a head start: where it is not supported, the sync does all.
		_ = sys.StartWriteback(int(i.file.Fd()), i.started, i.n-i.started)
		i.started = i.n
	}
	return n, err
}

// publish makes the ingest the blob of digest.
func (i *ingest) publish(digest oci.Digest) error {
	i.store.reached("complete")
	if err := i.file.Chmod(0o644); err != nil {
		return err
	}
	if err := i.file.Sync(); err != nil {
		return err
	}
	i.store.reached("synced")
	i.store.leases.Touch(string(digest))
	path := i.store.path(digest)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Rename(i.file.Name(), path); err != nil {
		return err
	}
	i.store.reached("renamed")
	return atomicfile.SyncDir(filepath.Dir(path))
}

// writer is an ingest of a known digest.
type writer struct {
	ingest
	want    oci.Descriptor
	partial int64 // bytes that were there when it was opened
	useless bool  // nobody can continue it
	release func()
}

// Writer begins or continues the ingest of the blob that desc names; a size of -1 is unknown. It waits
// while another writer of the digest is open. When the blob is there it returns ErrExists.
func (s *Store) Writer(ctx context.Context, desc oci.Descriptor) (Writer, error) {
	w, err := s.writer(ctx, desc)
	if err != nil {
		return nil, err // not a nil *writer
	}
	return w, nil
}

func (s *Store) writer(ctx context.Context, desc oci.Descriptor) (*writer, error) {
	if _, err := oci.ParseDigest(string(desc.Digest)); err != nil {
		return nil, errdefs.As(errdefs.ErrInvalid, err)
	}
	release, err := s.writing.Take(ctx, desc.Digest)
	if err != nil {
		return nil, fmt.Errorf("write blob %s: %w", desc.Digest, err)
	}
	w, err := s.openWriter(ctx, desc, release)
	if err != nil {
		release()
		return nil, err
	}
	return w, nil
}

func (s *Store) openWriter(ctx context.Context, desc oci.Descriptor, release func()) (*writer, error) {
	if info, err := s.Info(ctx, desc.Digest); err == nil {
		if desc.Size > 0 && info.Size != desc.Size {
			return nil, errdefs.New(errdefs.ErrDataLoss, "blob %s has %d bytes, its descriptor says %d", desc.Digest, info.Size, desc.Size)
		}
		return nil, fmt.Errorf("write blob %s: %w", desc.Digest, ErrExists)
	} else if !errors.Is(err, errdefs.ErrNotFound) {
		return nil, err
	}
	f, err := os.OpenFile(s.ingestPath(desc.Digest), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("write blob %s: %w", desc.Digest, err)
	}
	w := &writer{ingest: ingest{store: s, file: f, hash: desc.Digest.Hash()}, want: desc, release: release}
	if err := w.resume(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("write blob %s: %w", desc.Digest, err), f.Close())
	}
	return w, nil
}

// resume hashes what an earlier writer left. A partial longer than the blob is worth nothing.
func (w *writer) resume(ctx context.Context) error {
	info, err := w.file.Stat()
	if err != nil {
		return err
	}
	if w.want.Size >= 0 && info.Size() > w.want.Size {
		return w.Truncate()
	}
	w.n, err = io.Copy(w.hash, contextReader{ctx, w.file})
	w.partial, w.started = w.n, w.n
	return err
}

// contextReader ends reading when its context ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

func (w *writer) Offset() int64 { return w.n }

func (w *writer) Partial() io.Reader { return io.NewSectionReader(w.file, 0, w.partial) }

func (w *writer) Truncate() error {
	if err := w.file.Truncate(0); err != nil {
		return err
	}
	w.hash.Reset()
	w.n, w.partial, w.started = 0, 0, 0
	_, err := w.file.Seek(0, io.SeekStart)
	return err
}

func (w *writer) Write(p []byte) (int, error) {
	if w.want.Size >= 0 && w.n+int64(len(p)) > w.want.Size {
		return 0, errdefs.New(errdefs.ErrDataLoss, "blob %s: the source has more than the expected %d bytes", w.want.Digest, w.want.Size)
	}
	return w.ingest.Write(p)
}

func (w *writer) Commit(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if w.closed {
		return fmt.Errorf("commit blob %s: %w", w.want.Digest, os.ErrClosed)
	}
	if w.n < w.want.Size {
		return errors.Join(fmt.Errorf("commit blob %s: got %d of %d bytes: %w", w.want.Digest, w.n, w.want.Size, io.ErrUnexpectedEOF), w.Close())
	}
	if got := oci.SumDigest(w.want.Digest.Algorithm(), w.hash); got != w.want.Digest {
		err := errdefs.New(errdefs.ErrDataLoss, "blob %s: the source's bytes have digest %s", w.want.Digest, got)
		return errors.Join(err, os.Remove(w.file.Name()), w.Close())
	}
	err := w.publish(w.want.Digest)
	if err = errors.Join(err, w.Close()); err != nil {
		return fmt.Errorf("commit blob %s: %w", w.want.Digest, err)
	}
	return nil
}

func (w *writer) Close() error {
	if w.closed {
		return nil
	}
	w.closed = true
	defer w.release()
	if w.useless || w.n == 0 {
		if err := os.Remove(w.file.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) { // it is a blob now
			return errors.Join(err, w.file.Close())
		}
	}
	return w.file.Close()
}

// newWriter is an ingest of a digest that is not known yet.
type newWriter struct{ ingest }

// NewIngest begins the ingest of a blob of unknown digest.
func (s *Store) NewIngest(ctx context.Context) (NewWriter, error) {
	f, err := os.CreateTemp(filepath.Join(s.root, "ingest"), "new-*")
	if err != nil {
		return nil, fmt.Errorf("write new blob: %w", err)
	}
	return &newWriter{ingest{store: s, file: f, hash: sha256.New()}}, nil
}

func (w *newWriter) Commit(ctx context.Context) (oci.Descriptor, error) {
	if err := ctx.Err(); err != nil {
		return oci.Descriptor{}, err
	}
	if w.closed {
		return oci.Descriptor{}, fmt.Errorf("commit new blob: %w", os.ErrClosed)
	}
	desc := oci.Descriptor{Digest: oci.SumDigest("sha256", w.hash), Size: w.n}
	if _, err := w.store.Info(ctx, desc.Digest); err == nil {
		return desc, w.Close()
	}
	if err := w.publish(desc.Digest); err != nil {
		return oci.Descriptor{}, errors.Join(fmt.Errorf("commit blob %s: %w", desc.Digest, err), w.Close())
	}
	w.closed = true
	return desc, w.file.Close()
}

func (w *newWriter) Close() error {
	if w.closed {
		return nil
	}
	w.closed = true
	return errors.Join(os.Remove(w.file.Name()), w.file.Close())
}
