package cache

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"time"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/registry/client"
)

// Answer says what a name stands for.
type Answer struct {
	Digest oci.Digest // of a manifest that the shelf holds
	Stale  error      // why that could not be checked though it was time; nil: it is fresh
}

// Manifest sees to it that the shelf holds what a tag or digest names.
func (c *Cache) Manifest(ctx context.Context, t Target, tagOrDigest string) (Answer, error) {
	if d, err := oci.ParseDigest(tagOrDigest); err == nil {
		return Answer{Digest: d}, c.byDigest(ctx, t, d, false)
	}
	return c.byTag(ctx, t, tagOrDigest)
}

func (c *Cache) byDigest(ctx context.Context, t Target, d oci.Digest, impatient bool) error {
	if done, err := c.onShelf(ctx, t, d); done {
		return err
	}
	over, err := c.turns.Take(ctx, t.Name+"@"+string(d))
	if err != nil {
		return err
	}
	defer over()
	if done, err := c.onShelf(ctx, t, d); done {
		return err
	}
	_, err = c.fetchManifest(ctx, t, string(d), impatient)
	return err
}

// onShelf says whether a manifest is there, or the attempt to find out failed.
func (c *Cache) onShelf(ctx context.Context, t Target, d oci.Digest) (bool, error) {
	content, err := c.o.Shelf.ReadManifest(ctx, t.Name, d)
	if errors.Is(err, errdefs.ErrNotFound) {
		return false, nil
	}
	if err == nil {
		c.Counters.Hits.Add(1)
		c.noteSizes(t, d, content)
	}
	return true, err
}

// fetchManifest gets what the upstream has under a name, and keeps it.
func (c *Cache) fetchManifest(ctx context.Context, t Target, name string, impatient bool) (oci.Digest, error) {
	key := t.Name + " " + name
	if err, ok := c.missing.get(key); ok {
		return "", err
	}
	c.Counters.Misses.Add(1)
	var desc oci.Descriptor
	var content []byte
	err := c.ask(ctx, t, impatient, func(ctx context.Context, repo repository) (err error) {
		desc, content, err = repo.Get(ctx, name)
		return err
	})
	c.noteRefusal(key, err)
	if err != nil {
		return "", err
	}
	c.noteSizes(t, desc.Digest, content)
	return desc.Digest, c.o.Shelf.KeepManifest(context.WithoutCancel(ctx), t.Name, desc, content)
}

// noteRefusal remembers for a short while what the upstream will not give.
func (c *Cache) noteRefusal(key string, err error) {
	if err != nil && wellAnswered(err) {
		c.missing.put(key, err, c.o.Missing)
	}
}

// gone says whether the upstream itself said that there is no such thing. A refusal for want of rights,
// which registries also give for what does not exist, is not that.
func gone(err error) bool {
	var refusal *client.Error
	return errors.As(err, &refusal) && refusal.Status == http.StatusNotFound
}

func (c *Cache) byTag(ctx context.Context, t Target, tag string) (Answer, error) {
	if a, ok := c.fresh(ctx, t, tag); ok {
		return a, nil
	}
	over, err := c.turns.Take(ctx, t.Name+":"+tag)
	if err != nil {
		return Answer{}, err
	}
	defer over()
	if a, ok := c.fresh(ctx, t, tag); ok {
		return a, nil // somebody else has just asked
	}
	kept, _, err := c.o.Shelf.ReadTag(ctx, t.Name, tag)
	if errors.Is(err, errdefs.ErrNotFound) {
		d, err := c.fetchManifest(ctx, t, tag, false)
		return c.named(ctx, t, tag, d, err)
	}
	if err != nil {
		return Answer{}, err
	}
	return c.check(ctx, t, tag, kept)
}

// fresh returns what a tag names when that was checked not long ago.
func (c *Cache) fresh(ctx context.Context, t Target, tag string) (Answer, bool) {
	d, checked, err := c.o.Shelf.ReadTag(ctx, t.Name, tag)
	if err != nil || time.Since(checked) >= time.Duration(t.up.TagTTL) {
		return Answer{}, false
	}
	there, err := c.onShelf(ctx, t, d)
	return Answer{Digest: d}, there && err == nil
}

// named keeps what the upstream's tag names.
func (c *Cache) named(ctx context.Context, t Target, tag string, d oci.Digest, err error) (Answer, error) {
	if err == nil {
		err = c.o.Shelf.KeepTag(context.WithoutCancel(ctx), t.Name, tag, d, "upstream "+t.up.Name)
	}
	return Answer{Digest: d}, err
}

// check asks the upstream what a tag names now, and falls back on what is kept.
func (c *Cache) check(ctx context.Context, t Target, tag string, kept oci.Digest) (Answer, error) {
	var now oci.Descriptor
	err := c.ask(ctx, t, true, func(ctx context.Context, repo repository) (err error) {
		now, err = repo.Resolve(ctx, tag)
		return err
	})
	if gone(err) {
		c.noteRefusal(t.Name+" "+tag, err)
		return Answer{}, errors.Join(err, c.o.Shelf.KeepTag(ctx, t.Name, tag, "", "upstream "+t.up.Name))
	}
	if err == nil {
		err = c.byDigest(ctx, t, now.Digest, true)
	}
	if err == nil {
		return c.named(ctx, t, tag, now.Digest, nil)
	}
	if there, missing := c.onShelf(ctx, t, kept); !there || missing != nil {
		return Answer{}, errors.Join(err, missing)
	}
	c.stale(t, tag, err)
	return Answer{Digest: kept, Stale: err}, nil
}

func (c *Cache) stale(t Target, what string, why error) {
	c.Counters.Stale.Add(1)
	c.o.Log.Warn("serving what is cached without a check", "upstream", t.up.Name, "repository", t.Name, "name", what, "error", why)
}

// sizeFor is how long sizes are remembered.
const sizeFor = 24 * time.Hour

// noteSizes remembers how large a manifest's blobs are, so that the upstream need not be asked.
func (c *Cache) noteSizes(t Target, manifest oci.Digest, content []byte) {
	key := t.Name + "@" + string(manifest)
	if _, noted := c.sizes.get(key); noted {
		return
	}
	c.sizes.put(key, int64(len(content)), sizeFor/2) // less than its blobs'
	var m struct {
		Config *oci.Descriptor  `json:"config"`
		Layers []oci.Descriptor `json:"layers"`
	}
	if json.Unmarshal(content, &m) != nil {
		return
	}
	if m.Config != nil {
		m.Layers = append(m.Layers, *m.Config)
	}
	for _, blob := range m.Layers {
		if blob.Size >= 0 && len(blob.URLs) == 0 {
			c.sizes.put(t.Name+"@"+string(blob.Digest), blob.Size, sizeFor)
		}
	}
}

// listFor is how long a list of tags is kept.
const listFor = 30 * time.Second

// Tags lists the upstream's tags, sorted. An error says why only those that are kept here are known.
func (c *Cache) Tags(ctx context.Context, t Target) ([]string, error) {
	over, err := c.turns.Take(ctx, t.Name)
	if err != nil {
		return nil, err
	}
	defer over()
	if tags, ok := c.lists.get(t.Name); ok {
		return slices.Clone(tags), nil
	}
	var tags []string
	err = c.ask(ctx, t, true, func(ctx context.Context, repo repository) (err error) {
		tags, err = repo.Tags(ctx)
		return err
	})
	if err != nil {
		c.stale(t, "tags", err)
		return nil, err
	}
	slices.Sort(tags)
	c.lists.put(t.Name, slices.Clone(tags), listFor)
	return tags, nil
}

// Referrers lists the upstream's manifests with the subject d, by digest. An error says why only those
// that are kept here are known; errdefs.ErrNotFound: the upstream has no such list.
func (c *Cache) Referrers(ctx context.Context, t Target, d oci.Digest) ([]oci.Descriptor, error) {
	var all []oci.Descriptor
	err := c.ask(ctx, t, true, func(ctx context.Context, repo repository) (err error) {
		all, err = repo.Referrers(ctx, d)
		return err
	})
	slices.SortFunc(all, func(a, b oci.Descriptor) int { return cmp.Compare(a.Digest, b.Digest) })
	return all, err
}
