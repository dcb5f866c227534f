package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"davit/oci"
	"davit/oci/errdefs"
)

// eviction bounds what the cache keeps.
type eviction struct {
	size int64         // bytes of blobs; 0: any number
	age  time.Duration // since the last use; 0: for ever

	held   atomic.Int64  // bytes, about: exact after each eviction
	excess chan struct{} // gets a value when held passed size
}

// Evicted says what one eviction took out of the cache.
type Evicted struct {
	Manifests int
	Blobs     int
	Bytes     int64
}

// LimitCache bounds the cache by size, in bytes of blobs, and by age since the last use; 0 is no bound.
func (s *Server) LimitCache(size int64, age time.Duration) {
	s.eviction.size, s.eviction.age, s.eviction.excess = size, age, make(chan struct{}, 1)
}

func (e *eviction) stored(size int64) {
	if held := e.held.Add(size); e.size > 0 && held > e.size {
		select {
		case e.excess <- struct{}{}:
		default: // one is due already
		}
	}
}

// evictEvery evicts when the cache has grown too large, and now and then, until ctx ends.
func (s *Server) evictEvery(ctx context.Context, every time.Duration) {
	if s.cache == nil || s.eviction.size == 0 && s.eviction.age == 0 {
		return
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		done, err := s.Evict(ctx)
		if err != nil && ctx.Err() == nil {
			s.log.Error("eviction failed", "error", err)
		} else if done != (Evicted{}) {
			s.log.Info("evicted from the cache", "manifests", done.Manifests, "blobs", done.Blobs, "bytes", done.Bytes)
		}
		select {
		case <-ctx.Done():
			return
		case <-s.eviction.excess:
		case <-ticker.C:
		}
	}
}

// kept is a blob in a repository of the cache.
type kept struct {
	repo repository
	d    oci.Digest
	size int64
	used time.Time
}

// Evict takes out of the cache what was not used for the age limit, and then the blobs that were not used
// for longest until it keeps to nine tenths of the size limit. Repositories of the registry's own lose
// nothing. Times of use are exact to ten minutes.
func (s *Server) Evict(ctx context.Context) (Evicted, error) {
	var done Evicted
	keys, err := s.store.ListRecords(ctx, "catalog")
	if err != nil {
		return done, fmt.Errorf("evict: %w", err)
	}
	var all []kept
	for _, key := range keys {
		name := strings.ReplaceAll(key, "!", "/")
		if !s.cache.Owns(name) {
			continue
		}
		repo := s.repository(name)
		if err := s.evictManifests(ctx, repo, &done); err != nil {
			return done, fmt.Errorf("evict manifests of %s: %w", name, err)
		}
		blobs, err := s.keptBlobs(ctx, repo)
		if err != nil {
			return done, fmt.Errorf("evict blobs of %s: %w", name, err)
		}
		all = append(all, blobs...)
	}
	if err := s.evictBlobs(ctx, all, &done); err != nil {
		return done, fmt.Errorf("evict: %w", err)
	}
	s.metrics.evictedBlobs.Add(int64(done.Blobs))
	s.metrics.evictedBytes.Add(done.Bytes)
	return done, nil
}

func (s *Server) keptBlobs(ctx context.Context, repo repository) ([]kept, error) {
	links, err := s.store.ListRecords(ctx, repo.key("_blobs"))
	if err != nil {
		return nil, err
	}
	var all []kept
	for _, link := range links {
		d, err := undashed(link)
		if err != nil {
			return nil, err
		}
		used, err := s.store.RecordTime(ctx, repo.blobKey(d))
		size := int64(0)
		if err == nil {
			size, err = s.store.StatBlob(ctx, d)
		}
		switch {
		case err == nil:
			all = append(all, kept{repo, d, size, used})
		case !errors.Is(err, errdefs.ErrNotFound):
			return nil, err
		}
	}
	return all, nil
}

// evictBlobs unlinks blobs, the least recently used first, and removes their content once no repository
// has it.
func (s *Server) evictBlobs(ctx context.Context, all []kept, done *Evicted) error {
	slices.SortFunc(all, func(a, b kept) int { return a.used.Compare(b.used) })
	held, links := int64(0), map[oci.Digest]int{}
	for _, blob := range all {
		if links[blob.d]++; links[blob.d] == 1 {
			held += blob.size
		}
	}
	goal := held
	if s.eviction.size > 0 && held > s.eviction.size {
		goal = s.eviction.size / 10 * 9
	}
	for _, blob := range all {
		if held <= goal && !s.eviction.old(blob.used) {
			break
		}
		removed, err := s.unlink(ctx, blob.repo, blob.d, blob.used.Add(1))
		if ignoreMissing(err) != nil {
			return err
		}
		if !removed {
			continue // used meanwhile
		}
		if links[blob.d]--; links[blob.d] > 0 {
			continue
		}
		held -= blob.size
		swept, err := s.sweepBlob(ctx, blob.d)
		if ignoreMissing(err) != nil {
			return err
		}
		if swept {
			done.Blobs, done.Bytes = done.Blobs+1, done.Bytes+blob.size
		}
	}
	s.eviction.held.Store(held)
	return nil
}

func (e *eviction) old(used time.Time) bool { return e.age > 0 && time.Since(used) > e.age }

// evictManifests forgets the manifests that were not used for long, and the tags that name them.
func (s *Server) evictManifests(ctx context.Context, repo repository, done *Evicted) error {
	if s.eviction.age == 0 {
		return nil
	}
	names, err := s.store.ListRecords(ctx, repo.key("_manifests"))
	if err != nil {
		return err
	}
	for _, name := range names {
		used, err := s.store.RecordTime(ctx, repo.key("_manifests", name))
		if errors.Is(err, errdefs.ErrNotFound) || err == nil && !s.eviction.old(used) {
			continue
		}
		d, bad := undashed(name)
		if err = errors.Join(err, bad); err != nil {
			return err
		}
		if err := s.forgetManifest(ctx, repo, d); err != nil {
			return err
		}
		done.Manifests++
	}
	return nil
}

// forgetManifest takes a manifest and its tags out of a repository.
func (s *Server) forgetManifest(ctx context.Context, repo repository, d oci.Digest) error {
	e, err := repo.manifest(ctx, d)
	if err != nil {
		return ignoreMissing(err)
	}
	tags, err := repo.tagsOf(ctx, d)
	if err != nil {
		return err
	}
	for _, tag := range tags {
		if err := (shelf{s: s}).KeepTag(ctx, repo.name, tag, "", "eviction"); err != nil {
			return err
		}
	}
	return s.dropManifest(ctx, repo, d, e)
}
