package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/registry/storage"
)

// repository is one name's view of the store. Its records, all under "repo/<name>/":
//
//	_blobs/<alg>-<hex>                              this repository holds the blob; "condemned": not for long
//	_manifests/<alg>-<hex>                          entry: media type and what the manifest refers to
//	_tags/<tag>                                     the digest that the tag names, and since when (tagValue)
//	_history/<tag>/<time>-<random>                  a move of the tag (Move); the tag may be gone
//	_deleted/<alg>-<hex>                            entry of a deleted manifest that may be wanted back
//	_referrers/<alg>-<hex of subject>/<alg>-<hex>   descriptor of a manifest with that subject
//
// and "catalog/<name, with ! for />" for the list of all repositories. Path components of names begin
// with a letter or digit, so "_" cannot be one.
type repository struct {
	name    string
	store   storage.Store
	refresh time.Duration
}

// entry is the record of a manifest: what a request must know without parsing the manifest again.
type entry struct {
	MediaType string       `json:"mediaType"`
	Size      int64        `json:"size"`
	Subject   oci.Digest   `json:"subject,omitempty"`
	Blobs     []oci.Digest `json:"blobs,omitempty"`     // config and layers
	Manifests []oci.Digest `json:"manifests,omitempty"` // of an index
	Retired   bool         `json:"retired,omitempty"`   // of a deleted one: by retention
}

func dashed(d oci.Digest) string { return d.Algorithm() + "-" + d.Hex() }

func undashed(s string) (oci.Digest, error) {
	return oci.ParseDigest(strings.Replace(s, "-", ":", 1))
}

func (r repository) key(parts ...string) string {
	return "repo/" + r.name + "/" + strings.Join(parts, "/")
}

func (r repository) blobKey(d oci.Digest) string     { return r.key("_blobs", dashed(d)) }
func (r repository) manifestKey(d oci.Digest) string { return r.key("_manifests", dashed(d)) }
func (r repository) deletedKey(d oci.Digest) string  { return r.key("_deleted", dashed(d)) }
func (r repository) tagKey(tag string) string        { return r.key("_tags", tag) }

func catalogKey(name string) string { return "catalog/" + strings.ReplaceAll(name, "/", "!") }

// exists says whether anything was ever pushed here.
func (r repository) exists(ctx context.Context) error {
	if _, err := r.store.GetRecord(ctx, catalogKey(r.name)); err != nil {
		return unknown(err, "NAME_UNKNOWN")
	}
	return nil
}

// register puts the repository in the catalog.
func (r repository) register(ctx context.Context) error {
	if err := r.exists(ctx); err == nil {
		return nil
	}
	return r.store.PutRecord(ctx, catalogKey(r.name), nil)
}

// condemned is the value of a link that the collector is about to remove. Whoever relies on a link looks
// for it, and makes it a plain one again (keepLink).
const condemned = "condemned"

// keepLink makes sure that the repository holds a blob, by a link that no collector removes now: one of
// some age is made young again.
func (r repository) keepLink(ctx context.Context, d oci.Digest) error {
	for {
		link, err := r.store.ReadRecord(ctx, r.blobKey(d))
		if err != nil {
			return err
		}
		if len(link.Value) == 0 && time.Since(link.Put) <= r.refresh {
			return nil
		}
		_, err = r.store.SwapRecord(ctx, r.blobKey(d), link.Version, nil)
		if !errors.Is(err, errdefs.ErrConflict) {
			return err
		}
	}
}

// hasBlob returns the blob's size if this repository holds it. Whoever asks may be about to refer to it.
func (r repository) hasBlob(ctx context.Context, d oci.Digest) (int64, error) {
	if err := r.keepLink(ctx, d); err != nil {
		return 0, unknown(err, "BLOB_UNKNOWN")
	}
	size, err := r.store.StatBlob(ctx, d)
	return size, unknown(err, "BLOB_UNKNOWN")
}

// use makes a record of some age young again.
func (r repository) use(ctx context.Context, key string) error {
	at, err := r.store.RecordTime(ctx, key)
	if err == nil && time.Since(at) > r.refresh {
		err = r.store.TouchRecord(ctx, key)
	}
	return err
}

// linkBlob lets the repository hold a blob that was there just now. It is an error when a collector was
// quicker: a reference counts once the blob was kept after it was written.
func (r repository) linkBlob(ctx context.Context, d oci.Digest) error {
	if err := r.register(ctx); err != nil {
		return err
	}
	if err := r.store.PutRecord(ctx, r.blobKey(d), nil); err != nil {
		return err
	}
	return unknown(r.store.KeepBlob(ctx, d), "BLOB_UNKNOWN")
}

func (r repository) manifest(ctx context.Context, d oci.Digest) (entry, error) {
	return r.entry(ctx, r.manifestKey(d))
}

// entry reads the record of a manifest, deleted or not.
func (r repository) entry(ctx context.Context, key string) (e entry, err error) {
	value, err := r.store.GetRecord(ctx, key)
	if err != nil {
		return e, unknown(err, "MANIFEST_UNKNOWN")
	}
	if err := json.Unmarshal(value, &e); err != nil {
		return e, fmt.Errorf("read record of manifest %s: %w", key, err)
	}
	return e, nil
}

func (r repository) tag(ctx context.Context, tag string) (oci.Digest, error) {
	value, err := r.store.GetRecord(ctx, r.tagKey(tag))
	if err != nil {
		return "", unknown(err, "MANIFEST_UNKNOWN")
	}
	d, _, err := parseTag(value)
	return d, err
}

// tagValue is the record of a tag: the digest, and the time of its last move in the log.
func tagValue(d oci.Digest, moved time.Time) []byte {
	return fmt.Appendf(nil, "%s %d", d, moved.UnixNano())
}

// parseTag reads what tagValue wrote; without a time it is an older registry's.
func parseTag(value []byte) (d oci.Digest, moved time.Time, err error) {
	digest, nano, _ := strings.Cut(string(value), " ")
	if nano != "" {
		n, err := strconv.ParseInt(nano, 10, 64)
		if err != nil {
			return "", moved, fmt.Errorf("read record of a tag: %w", err)
		}
		moved = time.Unix(0, n).UTC()
	}
	d, err = oci.ParseDigest(digest)
	return d, moved, err
}

// tagsOf returns the tags that name a digest.
func (r repository) tagsOf(ctx context.Context, d oci.Digest) ([]string, error) {
	tags, err := r.store.ListRecords(ctx, r.key("_tags"))
	if err != nil {
		return nil, err
	}
	var found []string
	for _, tag := range tags {
		named, err := r.tag(ctx, tag)
		if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			return nil, err
		}
		if named == d {
			found = append(found, tag)
		}
	}
	return found, nil
}

func (r repository) referrerKey(subject, d oci.Digest) string {
	return r.key("_referrers", dashed(subject), dashed(d))
}

// referrers returns the descriptors of the manifests whose subject is d, ordered by digest.
func (r repository) referrers(ctx context.Context, subject oci.Digest) ([]oci.Descriptor, error) {
	prefix := r.key("_referrers", dashed(subject))
	names, err := r.store.ListRecords(ctx, prefix)
	if err != nil {
		return nil, err
	}
	found := make([]oci.Descriptor, 0, len(names))
	for _, name := range names {
		value, err := r.store.GetRecord(ctx, prefix+"/"+name)
		if errors.Is(err, errdefs.ErrNotFound) {
			continue // deleted since the list was made
		}
		var d oci.Descriptor
		if err == nil {
			err = json.Unmarshal(value, &d)
		}
		if err != nil {
			return nil, fmt.Errorf("read referrers of %s: %w", subject, err)
		}
		found = append(found, d)
	}
	return found, nil
}
