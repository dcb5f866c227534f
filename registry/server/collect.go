package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"davit/oci"
	"davit/oci/errdefs"
)

// Collected says what one collection removed.
type Collected struct {
	Links int   // blobs taken out of a repository that no manifest of it refers to
	Blobs int   // contents that no repository holds any more
	Bytes int64 // their size
}

// Collect removes what no manifest refers to, while requests go on. A blob that is pushed before the
// manifest that will refer to it is safe for the grace period, which counts from the last time anybody
// pushed, mounted or looked at it. Uploads not touched for that long are given up.
func (s *Server) Collect(ctx context.Context, grace time.Duration) (Collected, error) {
	var done Collected
	grace = max(grace, 2*s.refresh)
	before := time.Now().Add(-grace)
	if err := s.store.ExpireUploads(ctx, before); err != nil {
		return done, fmt.Errorf("collect: %w", err)
	}
	keys, err := s.store.ListRecords(ctx, "catalog")
	if err != nil {
		return done, fmt.Errorf("collect: %w", err)
	}
	held := map[oci.Digest]bool{}
	for _, key := range keys {
		repo := s.repository(strings.ReplaceAll(key, "!", "/"))
		if err := s.pruneHistory(ctx, repo); err != nil {
			return done, fmt.Errorf("collect %s: %w", repo.name, err)
		}
		if err := s.deltas.Prune(ctx, repo.name); err != nil {
			return done, fmt.Errorf("collect %s: %w", repo.name, err)
		}
		if err := s.sweepLinks(ctx, repo, before, held, &done); err != nil {
			return done, fmt.Errorf("collect %s: %w", repo.name, err)
		}
	}
	err = s.store.WalkBlobs(ctx, func(d oci.Digest, size int64, stored time.Time) error {
		if held[d] || stored.After(before) {
			return nil
		}
		return s.sweepBlob(ctx, d, size, &done)
	})
	if err != nil {
		return done, fmt.Errorf("collect: %w", err)
	}
	return done, nil
}

// sweepLinks unlinks the old and unreferenced blobs of a repository and marks the others as held.
func (s *Server) sweepLinks(ctx context.Context, repo repository, before time.Time, held map[oci.Digest]bool, done *Collected) error {
	referenced, err := s.mark(ctx, repo, held)
	if err != nil {
		return err
	}
	links, err := s.store.ListRecords(ctx, repo.key("_blobs"))
	if err != nil {
		return err
	}
	for _, link := range links {
		d, err := undashed(link)
		if err != nil {
			return err
		}
		removed := false
		if !referenced[d] {
			if removed, err = s.unlink(ctx, repo, d, before); err != nil {
				return err
			}
		}
		if removed {
			done.Links++
		} else {
			held[d] = true
		}
	}
	return nil
}

// mark returns the blobs that manifests of the repository refer to, deleted ones too while histories may
// want them back; the manifests' own contents are held.
func (s *Server) mark(ctx context.Context, repo repository, held map[oci.Digest]bool) (map[oci.Digest]bool, error) {
	referenced := map[oci.Digest]bool{}
	// One that is deleted meanwhile is found under the second name; one that is restored has young links.
	for _, kind := range []string{"_manifests", "_deleted"} {
		if err := s.markKind(ctx, repo, kind, held, referenced); err != nil {
			return nil, err
		}
	}
	return referenced, nil
}

func (s *Server) markKind(ctx context.Context, repo repository, kind string, held, referenced map[oci.Digest]bool) error {
	names, err := s.store.ListRecords(ctx, repo.key(kind))
	if err != nil {
		return err
	}
	for _, name := range names {
		d, err := undashed(name)
		if err != nil {
			return err
		}
		e, err := repo.entry(ctx, repo.key(kind, name))
		if errors.Is(err, errdefs.ErrNotFound) {
			continue // gone since the list was made
		}
		if err != nil {
			return err
		}
		held[d] = true
		for _, blob := range e.Blobs {
			referenced[blob] = true
		}
	}
	return nil
}

// unlink removes a link if it is old. No request is between looking at the link and relying on it while
// the lock is held, and one that comes later finds no blob and pushes it again; a manifest that came since
// the marks were made has made its links young.
func (s *Server) unlink(ctx context.Context, repo repository, d oci.Digest, before time.Time) (bool, error) {
	s.collecting.Lock()
	defer s.collecting.Unlock()
	linked, err := s.store.RecordTime(ctx, repo.blobKey(d))
	if err != nil || linked.After(before) {
		return false, err
	}
	return true, s.store.DeleteRecord(ctx, repo.blobKey(d))
}

// sweepBlob removes content unless a repository took it up since the marks were made.
func (s *Server) sweepBlob(ctx context.Context, d oci.Digest, size int64, done *Collected) error {
	s.collecting.Lock()
	defer s.collecting.Unlock()
	now, err := s.store.ListRecords(ctx, "catalog")
	if err != nil {
		return err
	}
	for _, key := range now {
		repo := s.repository(strings.ReplaceAll(key, "!", "/"))
		for _, record := range []string{repo.blobKey(d), repo.manifestKey(d), repo.deletedKey(d)} {
			if _, err := s.store.RecordTime(ctx, record); !errors.Is(err, errdefs.ErrNotFound) {
				return err
			}
		}
	}
	if err := s.store.DeleteBlob(ctx, d); err != nil {
		return err
	}
	done.Blobs++
	done.Bytes += size
	return nil
}
