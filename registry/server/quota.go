package server

import (
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"strings"
	"sync"

	"davit/internal/turn"
	"davit/oci"
	"davit/oci/errdefs"
	"davit/registry/quota"
)

// rules returns what the file of rules says now; nothing where there is none.
func (s *Server) rules() Rules {
	if policy, ok := s.auth.(*Policy); ok {
		return policy.current().rules
	}
	return Rules{}
}

func (s *Server) newLedger() *quota.Ledger {
	standard := s.options.Quota
	standard.Name, standard.Together = cmp.Or(standard.Name, "default"), false
	return quota.NewLedger(&holdings{Server: s, known: map[string]*tally{}}, func() []quota.Rule { return s.rules().Quotas }, standard)
}

// admit reserves room in the request's repository; see quota.Ledger. Copies of other registries' content
// do not come this way: their bound is that of the cache. Nor does a rollback, which is not refused.
func (s *Server) admit(r request, blobs map[oci.Digest]int64, tags []string) (done func(stored bool), err error) {
	return s.quotas.Admit(r.Context(), r.repo.name, blobs, tags)
}

// exceeded puts it in the registry's terms that something does not fit, and leaves other errors alone.
func (s *Server) exceeded(err error) error {
	var exceeded *quota.Exceeded
	if !errors.As(err, &exceeded) {
		return err
	}
	s.metrics.quotaDenied.Add(1)
	return deniedBy("quota "+exceeded.Rule.Name, "DENIED", "%w", exceeded)
}

func (s *Server) quotaSeries() []series {
	return []series{{"davit_registry_quota_denied_total", "counter", "Requests refused by a quota.", &s.metrics.quotaDenied}}
}

// body returns the request's body, for an upload that has so many bytes. It fails where that gets larger
// than the quota leaves room for, and at once where it is certain to.
func (s *Server) body(r request, has int64) (io.Reader, error) {
	need := has + max(0, r.ContentLength)
	left, full, err := s.quotas.Room(r.Context(), r.repo.name, max(1, need))
	if err != nil || full == nil {
		return r.Body, err
	}
	if d, err := oci.ParseDigest(r.URL.Query().Get("digest")); err == nil {
		if _, err := r.repo.hasBlob(r.Context(), d); err == nil {
			return r.Body, nil // it needs no room
		}
	}
	if need > left || left == 0 {
		full.Need, full.More = need, r.ContentLength <= 0
		return nil, full
	}
	return &boundedBody{r.Body, has, left, func(has int64) (int64, error) {
		left, full, err := s.quotas.Room(r.Context(), r.repo.name, has)
		if err == nil && full != nil && left < has {
			full.Need, full.More = left, true
			err = full
		}
		return left, err
	}}, nil
}

// boundedBody fails when an upload that has so many bytes gets more than limit, and no more is allowed.
type boundedBody struct {
	io.Reader
	has, limit int64
	more       func(has int64) (limit int64, err error)
}

// Read implements io.Reader.
func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if b.has += int64(n); b.has <= b.limit {
		return n, err
	}
	limit, refused := b.more(b.has)
	if refused != nil {
		return n, refused
	}
	b.limit = limit
	return n, err
}

// refuseUpload gives an upload up that a quota refused.
func (s *Server) refuseUpload(r request, err error) error {
	if errors.Is(err, errdefs.ErrForbidden) {
		err = errors.Join(err, ignoreMissing(s.store.CancelUpload(r.Context(), r.arg)))
	}
	return err
}

// showQuota answers what a repository holds, and the quotas that bound it.
func (s *Server) showQuota(r request) error {
	if err := r.repo.exists(r.Context()); err != nil {
		return err
	}
	holding, err := (&holdings{Server: s, known: map[string]*tally{}}).Holding(r.Context(), r.repo.name)
	if err != nil {
		return err
	}
	states, err := s.quotas.States(r.Context(), r.repo.name)
	if err != nil {
		return err
	}
	return r.json("application/json", map[string]any{
		"name": r.repo.name, "bytes": holding.Bytes(), "tags": len(holding.Tags), "quotas": states,
	})
}

// holdings is the registry as package quota sees it. What a digest refers to does not change, so of a
// repository that was counted only the news are read.
type holdings struct {
	*Server
	turns turn.Turns[string]
	mu    sync.Mutex
	known map[string]*tally
}

// tally is what was read of a repository, by whoever has its turn.
type tally struct {
	entries map[string]entry // by the names of their records, of those that are there
	sizes   map[oci.Digest]int64
}

// Repositories implements quota.Content.
func (h *holdings) Repositories(ctx context.Context) ([]string, error) { return h.repositories(ctx) }

// Holding implements quota.Content. Manifests count with their blobs, and so do blobs that wait for their
// manifest; what only deleted manifests refer to does not.
func (h *holdings) Holding(ctx context.Context, name string) (found quota.Holding, err error) {
	over, err := h.turns.Take(ctx, name)
	if err != nil {
		return found, err
	}
	defer over()
	t, repo := h.tally(name), h.repository(name)
	live, err := t.read(ctx, repo, "_manifests")
	if err != nil {
		return found, err
	}
	deleted, err := t.read(ctx, repo, "_deleted")
	if err != nil {
		return found, err
	}
	found.Blobs = map[oci.Digest]int64{}
	referenced, gone := map[oci.Digest]bool{}, map[oci.Digest]bool{}
	for d, e := range live {
		found.Blobs[d] = e.Size
		mark(referenced, e.Blobs)
	}
	for _, e := range deleted {
		mark(gone, e.Blobs)
	}
	if err := t.links(ctx, repo, found.Blobs, func(d oci.Digest) bool { return referenced[d] || !gone[d] }); err != nil {
		return found, err
	}
	found.Tags, err = h.store.ListRecords(ctx, repo.key("_tags"))
	return found, err
}

func mark(set map[oci.Digest]bool, all []oci.Digest) {
	for _, d := range all {
		set[d] = true
	}
}

func (h *holdings) tally(name string) *tally {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.known[name] == nil {
		h.known[name] = &tally{entries: map[string]entry{}, sizes: map[oci.Digest]int64{}}
	}
	return h.known[name]
}

// read returns the entries of manifests of a kind.
func (t *tally) read(ctx context.Context, repo repository, kind string) (map[oci.Digest]entry, error) {
	names, err := repo.store.ListRecords(ctx, repo.key(kind))
	if err != nil {
		return nil, err
	}
	all := make(map[oci.Digest]entry, len(names))
	for _, name := range names {
		d, err := undashed(name)
		if err != nil {
			return nil, err
		}
		e, ok := t.entries[kind+"/"+name]
		if !ok {
			if e, err = repo.entry(ctx, repo.key(kind, name)); errors.Is(err, errdefs.ErrNotFound) {
				continue
			}
		}
		if err != nil {
			return nil, err
		}
		all[d] = e
	}
	maps.DeleteFunc(t.entries, func(key string, _ entry) bool { return strings.HasPrefix(key, kind+"/") })
	for d, e := range all {
		t.entries[kind+"/"+dashed(d)] = e
	}
	return all, nil
}

// links adds the sizes of the blobs that a repository holds and that count.
func (t *tally) links(ctx context.Context, repo repository, found map[oci.Digest]int64, counts func(oci.Digest) bool) error {
	names, err := repo.store.ListRecords(ctx, repo.key("_blobs"))
	if err != nil {
		return err
	}
	sizes := make(map[oci.Digest]int64, len(names))
	for _, name := range names {
		d, err := undashed(name)
		if err != nil {
			return err
		}
		size, ok := t.sizes[d]
		if !ok {
			if size, err = repo.store.StatBlob(ctx, d); errors.Is(err, errdefs.ErrNotFound) {
				continue
			}
		}
		if err != nil {
			return err
		}
		if sizes[d] = size; counts(d) {
			found[d] = size
		}
	}
	t.sizes = sizes
	return nil
}
