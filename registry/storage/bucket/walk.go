package bucket

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/registry/storage"
)

// batch is how many cells are read ahead of a walk, lanes how many at a time.
const (
	batch = 512
	lanes = 16
)

// found is a content cell on a walk.
type found struct {
	digest  oci.Digest
	version storage.Version
	content content
}

// walk calls f for every content cell, dead ones too.
func (s *Store) walk(ctx context.Context, f func(found) error) error {
	var digests []oci.Digest
	flush := func() error {
		defer func() { digests = digests[:0] }()
		return s.readAll(ctx, digests, f)
	}
	err := s.list(ctx, "content/", true, func(o listed) error {
		if d := digestOf(o.key); d != "" && o.size >= cellHead {
			digests = append(digests, d)
		}
		if len(digests) < batch {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	return flush()
}

// readAll reads cells side by side and calls f for those that are there, one after the other.
func (s *Store) readAll(ctx context.Context, digests []oci.Digest, f func(found) error) error {
	all := make([]found, len(digests))
	group, within := errgroup.WithContext(ctx)
	group.SetLimit(lanes)
	for i, d := range digests {
		group.Go(func() error {
			c, version, err := s.content(within, d)
			if errors.Is(err, errdefs.ErrNotFound) {
				return nil
			}
			all[i] = found{d, version, c}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, one := range all {
		if one.digest == "" {
			continue
		}
		if err := errors.Join(ctx.Err(), f(one)); err != nil {
			return err
		}
	}
	return nil
}

// WalkBlobs implements storage.Blobs.
func (s *Store) WalkBlobs(ctx context.Context, f func(oci.Digest, int64, time.Time) error) error {
	err := s.walk(ctx, func(b found) error {
		if b.content.Dead {
			return nil
		}
		return f(b.digest, b.content.Size, b.content.Stored)
	})
	if err != nil {
		return fmt.Errorf("walk blobs: %w", err)
	}
	return nil
}
