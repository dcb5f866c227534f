package dir

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/registry/storage"
)

func (s *Store) condemnedPath(d oci.Digest) string {
	return filepath.Join(s.root, "condemned", d.Algorithm()+"-"+d.Hex())
}

// placeBlob gives a synced file its name as content, and revokes what was announced of that.
func (s *Store) placeBlob(temp string, d oci.Digest) error {
	path := s.blobPath(d)
	err := s.locked(path, func() error {
		if err := os.Rename(temp, path); err != nil {
			return err
		}
		return s.absolve(d)
	})
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func (s *Store) absolve(d oci.Digest) error {
	if err := os.Remove(s.condemnedPath(d)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// CondemnBlob implements storage.Blobs. Announcements need not survive the machine.
func (s *Store) CondemnBlob(ctx context.Context, d oci.Digest) (version storage.Version, err error) {
	err = s.locked(s.blobPath(d), func() error {
		if _, err := s.StatBlob(ctx, d); err != nil {
			return err
		}
		stands, err := os.ReadFile(s.condemnedPath(d))
		if err == nil && len(stands) > 0 {
			version = storage.Version(stands)
			return nil
		}
		version = storage.Version(rand.Text())
		return os.WriteFile(s.condemnedPath(d), []byte(version), 0o600)
	})
	if err != nil {
		return "", fmt.Errorf("condemn blob %s: %w", d, err)
	}
	return version, nil
}

// KeepBlob implements storage.Blobs. Without an announcement it takes no lock: one that comes after the
// look comes after the caller's reference too.
func (s *Store) KeepBlob(ctx context.Context, d oci.Digest) error {
	if _, err := os.Lstat(s.condemnedPath(d)); err == nil {
		if err := s.locked(s.blobPath(d), func() error { return s.absolve(d) }); err != nil {
			return fmt.Errorf("keep blob %s: %w", d, err)
		}
	}
	_, err := s.StatBlob(ctx, d)
	return err
}

// RemoveBlob implements storage.Blobs. The announcement goes last: while KeepBlob sees none, the blob is
// there to stay or gone already.
func (s *Store) RemoveBlob(ctx context.Context, d oci.Digest, condemned storage.Version) error {
	return s.locked(s.blobPath(d), func() error {
		stands, err := os.ReadFile(s.condemnedPath(d))
		if errors.Is(err, fs.ErrNotExist) || err == nil && storage.Version(stands) != condemned {
			return errdefs.Conflict("blob %s is wanted again", d)
		}
		if err == nil {
			err = s.DeleteBlob(ctx, d)
		}
		if err != nil {
			return err
		}
		return s.absolve(d)
	})
}
