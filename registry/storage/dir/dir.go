// Package dir keeps a registry's bytes in a local directory.
//
//	<root>/
//	  oci-layout                          the blobs are an OCI image layout's
//	  blobs/<algorithm>/<hex>             content, complete and verified
//	  uploads/<id>/data                   bytes received so far
//	  uploads/<id>/hash                   the hash state at the end of data, so that a chunk costs one pass
//	  records/<key elements>              small records; the files' names begin with "=", directories' do not
//
// A file appears under its final name complete or not at all: it is written beside, synced and
// renamed, and its directory is synced.
package dir

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/registry/storage"
)

// Store implements storage.Store. Nothing that counts is in memory: several processes may share one root
// on a local file system.
type Store struct {
	root  string
	locks [stripes]sync.Mutex // before the locks between processes: waiting there costs a thread
}

var (
	_ storage.Store = (*Store)(nil)
	_ storage.Tails = (*Store)(nil)
)

// Open makes the root's directories if need be.
func Open(root string) (*Store, error) {
	for _, sub := range []string{"blobs/sha256", "blobs/sha512", "condemned", "uploads", "records", "locks", "new"} {
		if err := os.MkdirAll(filepath.Join(root, sub), 0o700); err != nil {
			return nil, fmt.Errorf("open registry root: %w", err)
		}
	}
	s := &Store{root: root}
	if err := s.writeFile(filepath.Join(root, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return nil, fmt.Errorf("open registry root: %w", err)
	}
	return s, nil
}

func (s *Store) blobPath(d oci.Digest) string {
	return filepath.Join(s.root, "blobs", d.Algorithm(), d.Hex())
}

// notFound gives a missing file its class and leaves other errors alone.
func notFound(err error, format string, args ...any) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errdefs.NotFound(format, args...)
	}
	return err
}

// StatBlob implements storage.Blobs.
func (s *Store) StatBlob(_ context.Context, d oci.Digest) (int64, error) {
	info, err := os.Stat(s.blobPath(d))
	if err != nil {
		return 0, notFound(err, "blob %s is unknown", d)
	}
	return info.Size(), nil
}

// OpenBlob implements storage.Blobs.
func (s *Store) OpenBlob(_ context.Context, d oci.Digest) (storage.Blob, error) {
	file, err := os.Open(s.blobPath(d))
	if err != nil {
		return nil, notFound(err, "blob %s is unknown", d)
	}
	return file, nil
}

// PutBlob implements storage.Blobs.
func (s *Store) PutBlob(_ context.Context, d oci.Digest, content []byte) error {
	temp, err := s.writeBeside(content)
	if err != nil {
		return fmt.Errorf("put blob %s: %w", d, err)
	}
	if err := s.placeBlob(temp, d); err != nil {
		return fmt.Errorf("put blob %s: %w", d, errors.Join(err, os.Remove(temp)))
	}
	return nil
}

// DeleteBlob implements storage.Blobs.
func (s *Store) DeleteBlob(_ context.Context, d oci.Digest) error {
	return notFound(os.Remove(s.blobPath(d)), "blob %s is unknown", d)
}

// WalkBlobs implements storage.Blobs.
func (s *Store) WalkBlobs(ctx context.Context, f func(oci.Digest, int64, time.Time) error) error {
	for _, algorithm := range []string{"sha256", "sha512"} {
		entries, err := os.ReadDir(filepath.Join(s.root, "blobs", algorithm))
		if err != nil {
			return fmt.Errorf("walk blobs: %w", err)
		}
		for _, entry := range entries {
			d, err := oci.ParseDigest(algorithm + ":" + entry.Name())
			if err != nil {
				continue // not the registry's
			}
			info, err := entry.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return fmt.Errorf("walk blobs: %w", err)
			}
			if err := errors.Join(ctx.Err(), f(d, info.Size(), info.ModTime())); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeFile replaces a file atomically and durably.
func (s *Store) writeFile(path string, value []byte) error {
	temp, err := s.writeBeside(value)
	if err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return syncDir(filepath.Dir(path))
}

// writeBeside writes a file that waits for its name; ExpireUploads removes one that never gets it.
func (s *Store) writeBeside(value []byte) (path string, err error) {
	path = filepath.Join(s.root, "new", rand.Text())
	return path, writeSynced(path, value)
}

func writeSynced(path string, value []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(value)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// makeDir is os.MkdirAll that also makes the new entries durable.
func (s *Store) makeDir(path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	parent := filepath.Dir(path)
	if err := s.makeDir(parent); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// copyCounted is io.Copy that says how much arrived even when the source failed.
func copyCounted(dst io.Writer, src io.Reader) (int64, error) {
	buffer := make([]byte, 256<<10)
	return io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, buffer)
}
