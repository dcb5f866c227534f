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
	"slices"
	"strings"
	"time"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/registry/storage"
)

// Store implements storage.Store. It has no state in memory: several processes may share one root on a
// local file system.
type Store struct{ root string }

var _ storage.Store = (*Store)(nil)

// Open makes the root's directories if need be.
func Open(root string) (*Store, error) {
	for _, sub := range []string{"blobs/sha256", "blobs/sha512", "uploads", "records", "new"} {
		if err := os.MkdirAll(filepath.Join(root, sub), 0o700); err != nil {
			return nil, fmt.Errorf("open registry root: %w", err)
		}
	}
	s := &Store{root}
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
	if err := s.writeFile(s.blobPath(d), content); err != nil {
		return fmt.Errorf("put blob %s: %w", d, err)
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

// recordPath marks the file with "=", so that "a" may be a record and a prefix of others at once.
func (s *Store) recordPath(key string) string {
	parent, last := filepath.Split(key)
	return filepath.Join(s.root, "records", parent, "="+last)
}

// GetRecord implements storage.Records.
func (s *Store) GetRecord(_ context.Context, key string) ([]byte, error) {
	value, err := os.ReadFile(s.recordPath(key))
	return value, notFound(err, "record %s is unknown", key)
}

// PutRecord implements storage.Records.
func (s *Store) PutRecord(_ context.Context, key string, value []byte) error {
	if err := s.writeFile(s.recordPath(key), value); err != nil {
		return fmt.Errorf("put record %s: %w", key, err)
	}
	return nil
}

// DeleteRecord implements storage.Records.
func (s *Store) DeleteRecord(_ context.Context, key string) error {
	path := s.recordPath(key)
	if err := os.Remove(path); err != nil {
		return notFound(err, "record %s is unknown", key)
	}
	return syncDir(filepath.Dir(path))
}

// ListRecords implements storage.Records.
func (s *Store) ListRecords(_ context.Context, prefix string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.root, "records", prefix))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list records %s: %w", prefix, err)
	}
	keys := make([]string, 0, len(entries))
	for _, entry := range entries {
		if name, ok := strings.CutPrefix(entry.Name(), "="); ok {
			keys = append(keys, name)
		}
	}
	slices.Sort(keys)
	return keys, nil
}

// RecordTime implements storage.Records.
func (s *Store) RecordTime(_ context.Context, key string) (time.Time, error) {
	info, err := os.Stat(s.recordPath(key))
	if err != nil {
		return time.Time{}, notFound(err, "record %s is unknown", key)
	}
	return info.ModTime(), nil
}

// TouchRecord implements storage.Records.
func (s *Store) TouchRecord(_ context.Context, key string) error {
	now := time.Now()
	return notFound(os.Chtimes(s.recordPath(key), now, now), "record %s is unknown", key)
}

// writeFile replaces a file atomically and durably, making its directory when it is missing.
func (s *Store) writeFile(path string, value []byte) error {
	temp := filepath.Join(s.root, "new", rand.Text())
	if err := writeSynced(temp, value); err != nil {
		return err
	}
	err := os.Rename(temp, path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = s.makeDir(filepath.Dir(path)); err == nil {
			err = os.Rename(temp, path)
		}
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return syncDir(filepath.Dir(path))
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
