package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/oci/ref"
	"davit/registry/webhook"
)

// document is what a registry reads in a manifest or index; the two never hold both kinds of children.
type document struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType"`
	Config        *oci.Descriptor   `json:"config"`
	Layers        []oci.Descriptor  `json:"layers"`
	Manifests     []oci.Descriptor  `json:"manifests"`
	Subject       *oci.Descriptor   `json:"subject"`
	Annotations   map[string]string `json:"annotations"`
}

// resolve turns the request's argument, a tag or a digest, into a digest.
func (s *Server) resolve(r request) (oci.Digest, error) {
	if strings.Contains(r.arg, ":") {
		return r.digest()
	}
	if err := ref.CheckTag(r.arg); err != nil {
		return "", fail("MANIFEST_UNKNOWN", "%w", err)
	}
	return r.repo.tag(r.Context(), r.arg)
}

// tag returns the argument where it is one, not a digest.
func (r request) tag() string {
	if strings.Contains(r.arg, ":") {
		return ""
	}
	return r.arg
}

func (s *Server) getManifest(r request) error {
	d, err := s.resolve(r)
	if err != nil {
		return err
	}
	e, err := r.repo.manifest(r.Context(), d)
	if err == nil && r.arg == string(d) && len(s.retentionOf(r.repo)) > 0 {
		err = ignoreMissing(r.repo.use(r.Context(), r.repo.manifestKey(d)))
	}
	if err != nil {
		return err
	}
	content, err := s.manifestContent(r.Context(), d)
	if err != nil {
		return unknown(err, "MANIFEST_UNKNOWN")
	}
	header := r.w.Header()
	header.Set("Docker-Content-Digest", string(d))
	header.Set("Content-Type", e.MediaType)
	header.Set("Content-Length", strconv.Itoa(len(content)))
	header.Set("Etag", `"`+string(d)+`"`)
	s.offerDeltas(header)
	if r.Header.Get("If-None-Match") == `"`+string(d)+`"` {
		header.Del("Content-Length")
		r.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	if r.Method != http.MethodHead {
		_, _ = r.w.Write(content) // the client is gone when this fails
		s.tellManifest(r, webhook.Pull, r.tag(), d, e)
	}
	return nil
}

// manifestContent reads a manifest through the cache; content under a digest never changes.
func (s *Server) manifestContent(ctx context.Context, d oci.Digest) ([]byte, error) {
	if content, ok := s.manifests.get(d); ok {
		return content, nil
	}
	blob, err := s.store.OpenBlob(ctx, d)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(blob)
	if err = errors.Join(err, blob.Close()); err != nil {
		return nil, err
	}
	h := d.Hash()
	h.Write(content)
	if oci.SumDigest(d.Algorithm(), h) != d {
		return nil, s.damagedManifest(ctx, d)
	}
	s.manifests.put(d, content)
	return content, nil
}

// readManifest refuses one that is too large, before it came if the request says so.
func (r request) readManifest() ([]byte, error) {
	tooLarge := fail("SIZE_INVALID", "a manifest may have %d bytes at most", manifestLimit)
	if r.ContentLength > manifestLimit {
		r.w.Header().Set("Connection", "close")
		return nil, tooLarge
	}
	content, err := io.ReadAll(http.MaxBytesReader(r.w, r.Body, manifestLimit))
	if limit := new(http.MaxBytesError); errors.As(err, &limit) {
		r.w.Header().Set("Connection", "close")
		return nil, tooLarge
	}
	return content, err
}

func (s *Server) putManifest(r request) error {
	content, err := r.readManifest()
	if err != nil {
		return err
	}
	d, tags, err := r.manifestNames(content)
	if err != nil {
		return err
	}
	doc, e, err := checkManifest(content, r.Header.Get("Content-Type"))
	if err != nil {
		return err
	}
	sizes, err := r.repo.holds(r.Context(), e.Blobs)
	if err != nil {
		return err
	}
	for _, tag := range tags {
		now, err := r.repo.tag(r.Context(), tag)
		if err = ignoreMissing(err); err == nil {
			err = s.mayMove(r.repo, tag, now, d)
		}
		if err != nil {
			return err
		}
	}
	s.noteRetag(r, d)
	sizes[d] = e.Size
	done, err := s.admit(r, sizes, tags)
	if err != nil {
		return err
	}
	err = s.name(r, tags, d, func() error { return s.storeImage(r.Context(), r.repo, d, content, doc, e) })
	if done(err == nil); err != nil {
		return err
	}
	s.tellPushed(r, tags, d, e)
	if doc.Subject != nil {
		r.w.Header().Set("OCI-Subject", string(doc.Subject.Digest))
	} else if oci.IsManifest(e.MediaType) && !s.options.NoDeltas {
		s.deltas.Note(r.repo.name, d)
	}
	for _, tag := range r.URL.Query()["tag"] {
		r.w.Header().Add("OCI-Tag", tag)
	}
	return r.created("manifests", d)
}

// manifestNames returns the digest that the content goes by and the tags that the request gives it.
func (r request) manifestNames(content []byte) (d oci.Digest, tags []string, err error) {
	if !strings.Contains(r.arg, ":") {
		tags = []string{r.arg}
		d = oci.DigestOf(content)
	} else {
		if d, err = r.digest(); err != nil {
			return "", nil, err
		}
		h := d.Hash()
		h.Write(content)
		if got := oci.SumDigest(d.Algorithm(), h); got != d {
			return "", nil, fail("DIGEST_INVALID", "the manifest has digest %s, not %s", got, d)
		}
		tags = r.URL.Query()["tag"]
	}
	for _, tag := range tags {
		if err := ref.CheckTag(tag); err != nil {
			return "", nil, fail("MANIFEST_INVALID", "%w", err)
		}
	}
	return d, tags, nil
}

// checkManifest parses a manifest and says what it refers to.
func checkManifest(content []byte, contentType string) (document, entry, error) {
	var doc document
	if err := json.Unmarshal(content, &doc); err != nil {
		return doc, entry{}, fail("MANIFEST_INVALID", "the manifest is not valid JSON: %w", err)
	}
	contentType, _, _ = strings.Cut(contentType, ";")
	contentType = strings.TrimSpace(contentType)
	if doc.SchemaVersion != 2 {
		return doc, entry{}, fail("MANIFEST_INVALID", "schemaVersion is %d, only 2 is supported", doc.SchemaVersion)
	}
	if contentType == "" {
		contentType = doc.MediaType
	}
	if doc.MediaType != "" && doc.MediaType != contentType {
		return doc, entry{}, fail("MANIFEST_INVALID", "the manifest's mediaType is %s, its Content-Type %s", doc.MediaType, contentType)
	}
	e := entry{MediaType: contentType, Size: int64(len(content))}
	switch {
	case oci.IsIndex(contentType):
		for _, m := range doc.Manifests {
			e.Manifests = append(e.Manifests, m.Digest)
		}
	case oci.IsManifest(contentType):
		if doc.Config == nil {
			return doc, e, fail("MANIFEST_INVALID", "the manifest has no config")
		}
		for _, blob := range append([]oci.Descriptor{*doc.Config}, doc.Layers...) {
			if len(blob.URLs) == 0 { // a foreign layer is somewhere else
				e.Blobs = append(e.Blobs, blob.Digest)
			}
		}
	default:
		return doc, e, fail("MANIFEST_INVALID", "unsupported manifest media type %q", contentType)
	}
	if doc.Subject != nil {
		e.Subject = doc.Subject.Digest
	}
	return doc, e, e.checkDigests()
}

func (e entry) checkDigests() error {
	all := append(append([]oci.Digest{}, e.Blobs...), e.Manifests...)
	if e.Subject != "" {
		all = append(all, e.Subject)
	}
	for _, d := range all {
		if _, err := oci.ParseDigest(string(d)); err != nil {
			return fail("MANIFEST_INVALID", "%w", err)
		}
	}
	return nil
}

// name stores a manifest and lets tags name it. A request that deletes the manifest looks for tags before
// and after; so one that is there after the tags are stays, and else it is stored again.
func (s *Server) name(r request, tags []string, d oci.Digest, store func() error) error {
	for {
		if err := store(); err != nil {
			return err
		}
		for _, tag := range tags {
			if err := s.setTag(r, tag, d); err != nil {
				return err
			}
		}
		if len(tags) == 0 {
			return nil
		}
		_, err := r.repo.manifest(r.Context(), d)
		if err == nil || ignoreMissing(err) != nil {
			return err
		}
	}
}

// holds fails unless all the blobs are in the repository, and returns their sizes.
func (r repository) holds(ctx context.Context, blobs []oci.Digest) (map[oci.Digest]int64, error) {
	var mu sync.Mutex
	sizes := map[oci.Digest]int64{}
	err := r.eachBlob(ctx, blobs, func(ctx context.Context, d oci.Digest) error {
		size, err := r.hasBlob(ctx, d)
		mu.Lock()
		defer mu.Unlock()
		sizes[d] = size
		return err
	})
	return sizes, err
}

// keep is holds for a manifest that is written: no collector that has not seen it removes what it refers to.
func (r repository) keep(ctx context.Context, blobs []oci.Digest) error {
	return r.eachBlob(ctx, blobs, func(ctx context.Context, d oci.Digest) error {
		if err := r.keepLink(ctx, d); err != nil {
			return err
		}
		return r.store.KeepBlob(ctx, d)
	})
}

// eachBlob asks for blobs of a manifest side by side.
func (r repository) eachBlob(ctx context.Context, blobs []oci.Digest, ask func(context.Context, oci.Digest) error) error {
	group, within := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for _, d := range blobs {
		group.Go(func() error {
			err := ask(within, d)
			if errors.Is(err, errdefs.ErrNotFound) {
				return fail("MANIFEST_BLOB_UNKNOWN", "the manifest refers to blob %s, which is not in %s", d, r.name)
			}
			return err
		})
	}
	return group.Wait()
}

// storeImage stores a manifest whose blobs the repository holds. They are kept after its record was
// written, for the collector condemns, then reads the records, then removes.
func (s *Server) storeImage(ctx context.Context, repo repository, d oci.Digest, content []byte, doc document, e entry) error {
	if err := s.storeManifest(ctx, repo, d, content, doc, e); err != nil {
		return err
	}
	if err := repo.keep(ctx, e.Blobs); err != nil {
		return err
	}
	return s.keepReferenced(ctx, repo, e)
}

// storeManifest writes content first, names last: whatever a name leads to is there.
func (s *Server) storeManifest(ctx context.Context, repo repository, d oci.Digest, content []byte, doc document, e entry) error {
	if err := repo.register(ctx); err != nil {
		return err
	}
	if err := s.store.PutBlob(ctx, d, content); err != nil {
		return err
	}
	record, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if err := s.store.PutRecord(ctx, repo.manifestKey(d), record); err != nil {
		return err
	}
	if err := s.store.KeepBlob(ctx, d); err != nil {
		return unknown(err, "MANIFEST_UNKNOWN")
	}
	if doc.Subject == nil {
		return nil
	}
	referrer, err := json.Marshal(doc.referrer(d, e))
	if err != nil {
		return err
	}
	return s.store.PutRecord(ctx, repo.referrerKey(doc.Subject.Digest, d), referrer)
}

// referrer is the descriptor by which the referrers list shows a manifest (distribution-spec, "Listing
// Referrers"): the artifact type falls back to the config's media type.
func (doc document) referrer(d oci.Digest, e entry) oci.Descriptor {
	artifactType := doc.ArtifactType
	if artifactType == "" && doc.Config != nil {
		artifactType = doc.Config.MediaType
	}
	return oci.Descriptor{MediaType: e.MediaType, Digest: d, Size: e.Size, ArtifactType: artifactType, Annotations: doc.Annotations}
}

// deleteManifest removes a tag, or a manifest with all its tags.
func (s *Server) deleteManifest(r request) error {
	ctx := r.Context()
	if !strings.Contains(r.arg, ":") {
		if err := s.setTag(r, r.arg, ""); err != nil {
			return unknown(err, "MANIFEST_UNKNOWN")
		}
		r.w.WriteHeader(http.StatusAccepted)
		return nil
	}
	d, err := r.digest()
	if err != nil {
		return err
	}
	e, err := r.repo.manifest(ctx, d)
	if err != nil {
		return err
	}
	tags, err := r.repo.tagsOf(ctx, d)
	if err != nil {
		return err
	}
	for _, tag := range tags {
		if s.immutable(r.repo.name, tag) {
			return deniedBy("immutable", "DENIED", "tag %s:%s, which is immutable, names %s", r.repo.name, tag, d)
		}
	}
	if err := s.keepDeleted(ctx, r.repo, d, e); err != nil {
		return err
	}
	if err := s.untag(r, tags, d); err != nil {
		return err
	}
	if err := s.dropManifest(ctx, r.repo, d, e); err != nil {
		return err
	}
	if tags, err = r.repo.tagsOf(ctx, d); err == nil { // that came meanwhile
		err = s.untag(r, tags, d)
	}
	if err != nil {
		return err
	}
	s.tell(ctx, webhook.Delete, webhook.Target{Repository: r.repo.name, Digest: d})
	r.w.WriteHeader(http.StatusAccepted)
	return nil
}

// dropManifest takes a manifest out of a repository; its content is the collector's.
func (s *Server) dropManifest(ctx context.Context, repo repository, d oci.Digest, e entry) error {
	keys := []string{}
	if e.Subject != "" {
		keys = append(keys, repo.referrerKey(e.Subject, d))
	}
	for _, key := range append(keys, repo.manifestKey(d)) {
		if err := s.store.DeleteRecord(ctx, key); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			return err
		}
	}
	return nil
}

// untag deletes those of the tags that name a digest.
func (s *Server) untag(r request, tags []string, d oci.Digest) error {
	for _, tag := range tags {
		err := s.moveTag(r.Context(), r.repo, tag, "", r.by, func(now oci.Digest) (bool, error) { return now == d, nil })
		if ignoreMissing(err) != nil {
			return err
		}
	}
	return nil
}

// manifestCache keeps the manifests most lately added, up to a count.
type manifestCache struct {
	mu    sync.RWMutex
	byKey map[oci.Digest][]byte
	order []oci.Digest // oldest first
	limit int
}

func newManifestCache(limit int) *manifestCache {
	return &manifestCache{byKey: map[oci.Digest][]byte{}, limit: limit}
}

func (c *manifestCache) get(d oci.Digest) ([]byte, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	content, ok := c.byKey[d]
	return content, ok
}

func (c *manifestCache) put(d oci.Digest, content []byte) {
	const largest = 64 << 10 // bytes; larger manifests are rare and would crowd out the rest
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.byKey[d]; ok || len(content) > largest {
		return
	}
	if len(c.order) == c.limit {
		delete(c.byKey, c.order[0])
		c.order = c.order[1:]
	}
	c.byKey[d] = content
	c.order = append(c.order, d)
}
