package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/registry/scrub"
	"davit/registry/storage"
)

// Collected says what one collection removed.
type Collected struct {
	Links int   // blobs taken out of a repository that no manifest of it refers to
	Blobs int   // contents that no repository holds any more
	Bytes int64 // their size
}

// Collect removes what no manifest refers to, while requests go on here and in other processes. A blob
// that is pushed before the manifest that will refer to it is left alone for the grace period, which
// counts from the last time anybody pushed, mounted or looked at it. Uploads not touched for that long are
// given up.
//
// No lock keeps it apart from requests. It condemns what it means to remove, reads all references after
// that, and removes what has none and is condemned still, by that condemnation. A request writes its
// reference, and after that revokes the condemnation of what it refers to, or learns that it is gone. So
// either the collector reads the reference, or the request meets the condemnation (docs/adr/0080).
func (s *Server) Collect(ctx context.Context, grace time.Duration) (Collected, error) {
	c := &collection{Server: s, before: time.Now().Add(-max(grace, 2*s.refresh)), entries: map[string]entry{}}
	// What nobody has a reference to yet, only time can protect.
	err := s.store.ExpireUploads(ctx, time.Now().Add(-max(grace, 2*defaultRefresh)))
	if err == nil {
		err = c.eachRepository(ctx, func(ctx context.Context, repo repository) error {
			return errors.Join(c.pruneHistory(ctx, repo), c.deltas.Prune(ctx, repo.name), c.sweepLinks(ctx, repo))
		})
	}
	if err == nil {
		err = c.sweepBlobs(ctx)
	}
	if err != nil {
		return c.done, fmt.Errorf("collect: %w", err)
	}
	return c.done, nil
}

// collection is one run of the collector.
type collection struct {
	*Server
	before  time.Time // what is younger stays
	entries map[string]entry
	done    Collected
}

func (s *Server) eachRepository(ctx context.Context, f func(context.Context, repository) error) error {
	keys, err := s.store.ListRecords(ctx, "catalog")
	if err != nil {
		return err
	}
	for _, key := range keys {
		repo := s.repository(strings.ReplaceAll(key, "!", "/"))
		if err := f(ctx, repo); err != nil {
			return fmt.Errorf("%s: %w", repo.name, err)
		}
	}
	return nil
}

// sweepLinks unlinks the old blobs of a repository that no manifest of it refers to.
func (c *collection) sweepLinks(ctx context.Context, repo repository) error {
	referenced, err := c.referenced(ctx, repo)
	if err != nil {
		return err
	}
	links, err := c.store.ListRecords(ctx, repo.key("_blobs"))
	if err != nil {
		return err
	}
	sentences := map[oci.Digest]storage.Version{}
	for _, link := range links {
		d, err := undashed(link)
		if err != nil {
			return err
		}
		if referenced[d] {
			continue
		}
		if err := c.condemnLink(ctx, repo, d, sentences); err != nil {
			return err
		}
	}
	if len(sentences) == 0 {
		return nil
	}
	if referenced, err = c.referenced(ctx, repo); err != nil {
		return err
	}
	for d, sentence := range sentences {
		if referenced[d] {
			continue
		}
		switch err := c.store.RemoveRecord(ctx, repo.blobKey(d), sentence); {
		case err == nil:
			c.done.Links++
		case !revoked(err):
			return err
		}
	}
	return nil
}

// revoked says whether a removal failed because somebody wants the thing, or has removed it already.
func revoked(err error) bool {
	return errors.Is(err, errdefs.ErrConflict) || errors.Is(err, errdefs.ErrNotFound)
}

// condemnLink condemns a link if it is old, or joins in a condemnation that stands.
func (c *collection) condemnLink(ctx context.Context, repo repository, d oci.Digest, sentences map[oci.Digest]storage.Version) error {
	link, err := c.store.ReadRecord(ctx, repo.blobKey(d))
	if err == nil && string(link.Value) == condemned {
		sentences[d] = link.Version
		return nil
	}
	if err != nil || link.Put.After(c.before) {
		return ignoreMissing(err)
	}
	sentence, err := c.store.SwapRecord(ctx, repo.blobKey(d), link.Version, []byte(condemned))
	if err == nil {
		sentences[d] = sentence
	} else if revoked(err) {
		err = nil
	}
	return err
}

// referenced returns the blobs that manifests of the repository refer to, deleted ones too while histories
// may want them back.
func (c *collection) referenced(ctx context.Context, repo repository) (map[oci.Digest]bool, error) {
	referenced := map[oci.Digest]bool{}
	for _, kind := range []string{"_manifests", "_deleted"} { // in the order in which deleting writes them
		names, err := c.store.ListRecords(ctx, repo.key(kind))
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			e, err := c.entry(ctx, repo, repo.key(kind, name))
			if ignoreMissing(err) != nil {
				return nil, err
			}
			for _, blob := range e.Blobs {
				referenced[blob] = true
			}
		}
	}
	return referenced, nil
}

// entry reads the record of a manifest once in a run: what a digest refers to does not change.
func (c *collection) entry(ctx context.Context, repo repository, key string) (entry, error) {
	if e, ok := c.entries[key]; ok {
		return e, nil
	}
	e, err := repo.entry(ctx, key)
	if err == nil {
		c.entries[key] = e
	}
	return e, err
}

// sweepBlobs removes the old content that no repository holds.
func (c *collection) sweepBlobs(ctx context.Context) error {
	held, err := c.held(ctx)
	if err != nil {
		return err
	}
	sentences, sizes := map[oci.Digest]storage.Version{}, map[oci.Digest]int64{}
	err = c.store.WalkBlobs(ctx, func(d oci.Digest, size int64, stored time.Time) error {
		if held[d] || stored.After(c.before) {
			return nil
		}
		sentence, err := c.store.CondemnBlob(ctx, d)
		if err == nil {
			sentences[d], sizes[d] = sentence, size
		}
		return ignoreMissing(err)
	})
	if err != nil || len(sentences) == 0 {
		return err
	}
	if held, err = c.held(ctx); err != nil {
		return err
	}
	for d, sentence := range sentences {
		if held[d] {
			continue
		}
		switch err := c.store.RemoveBlob(ctx, d, sentence); {
		case err == nil:
			c.done.Blobs++
			c.done.Bytes += sizes[d]
		case !revoked(err):
			return err
		}
	}
	return nil
}

// held returns the contents that repositories have, as blobs or as manifests, and damaged ones put aside.
func (c *collection) held(ctx context.Context) (map[oci.Digest]bool, error) {
	held := map[oci.Digest]bool{}
	err := c.eachRepository(ctx, func(ctx context.Context, repo repository) error {
		for _, kind := range []string{"_blobs", "_manifests", "_deleted"} {
			names, err := c.store.ListRecords(ctx, repo.key(kind))
			if err != nil {
				return err
			}
			for _, name := range names {
				d, err := undashed(name)
				if err != nil {
					return err
				}
				held[d] = true
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	aside, err := scrub.Aside(ctx, c.store)
	for _, damage := range aside {
		held[damage.Found] = true
	}
	return held, err
}

// unlink takes a blob out of a repository if it was last looked at before the given time.
func (s *Server) unlink(ctx context.Context, repo repository, d oci.Digest, before time.Time) (bool, error) {
	link, err := s.store.ReadRecord(ctx, repo.blobKey(d))
	if err != nil || !link.Put.Before(before) {
		return false, err
	}
	err = s.store.RemoveRecord(ctx, repo.blobKey(d), link.Version)
	if revoked(err) {
		return false, nil
	}
	return err == nil, err
}

// sweepBlob is the collection of one blob: whether it is removed now.
func (s *Server) sweepBlob(ctx context.Context, d oci.Digest) (bool, error) {
	sentence, err := s.store.CondemnBlob(ctx, d)
	if err != nil {
		return false, err
	}
	keys, err := s.store.ListRecords(ctx, "catalog")
	if err != nil {
		return false, err
	}
	for _, key := range keys {
		repo := s.repository(strings.ReplaceAll(key, "!", "/"))
		for _, record := range []string{repo.blobKey(d), repo.manifestKey(d), repo.deletedKey(d)} {
			if _, err := s.store.RecordTime(ctx, record); !errors.Is(err, errdefs.ErrNotFound) {
				return false, err
			}
		}
	}
	err = s.store.RemoveBlob(ctx, d, sentence)
	if revoked(err) {
		return false, nil
	}
	return err == nil, err
}
