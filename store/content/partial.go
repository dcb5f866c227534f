package content

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"davit/internal/diskusage"
	"davit/oci"
)

// IngestAge is how long a partial ingest waits to be continued, from its last byte on.
const IngestAge = 7 * 24 * time.Hour

// SweepIngests deletes the partial ingests to which nobody has written for so long, and that nobody has
// open, and returns the bytes that they took on the disk. An age of 0 is all that nobody has open.
func (s *Store) SweepIngests(ctx context.Context, age time.Duration) (int64, error) {
	entries, err := os.ReadDir(filepath.Join(s.root, "ingest"))
	if err != nil {
		return 0, fmt.Errorf("sweep partial blobs: %w", err)
	}
	var freed int64
	for _, e := range entries {
		digest, err := oci.ParseDigest(strings.Replace(e.Name(), "-", ":", 1))
		if err != nil {
			continue // a blob of unknown digest: somebody writes it now
		}
		n, err := s.sweepIngest(ctx, digest, age)
		freed += n
		if err != nil {
			return freed, fmt.Errorf("sweep partial blob %s: %w", digest, err)
		}
	}
	return freed, ctx.Err()
}

func (s *Store) sweepIngest(ctx context.Context, digest oci.Digest, age time.Duration) (int64, error) {
	over, free := s.writing.Try(digest)
	if !free {
		return 0, nil
	}
	defer over()
	name := s.ingestPath(digest)
	info, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && time.Since(info.ModTime()) < age {
		return 0, nil
	}
	u, err := diskusage.Of(ctx, name)
	if err == nil {
		err = os.Remove(name)
	}
	if err != nil {
		return 0, err
	}
	return u.Bytes, nil
}

// Usage returns the bytes that the store takes on the disk: blobs, partial ingests, the layout's own files.
func (s *Store) Usage(ctx context.Context) (int64, error) {
	u, err := diskusage.Of(ctx, s.root)
	return u.Bytes, err
}
