// Package cache keeps a registry's copies of other registries' content: a pull-through cache for any
// number of upstreams.
//
//	request -> Match: which upstream, under which name here -> Target
//	  manifest by digest   kept for good; fetched once
//	  manifest by tag      kept for the upstream's TTL, then checked by HEAD; while the upstream cannot be
//	                       asked, what is kept is served as stale
//	  blob                 one fetch for any number of readers, who follow it as it arrives (Stream)
//
// A name here is UPSTREAM/PATH ("docker.io/library/busybox"), whichever way a client asked for it, so
// there is one copy. Fetches belong to the cache, not to the client that caused them: it may vanish. A
// fetch that breaks off, or a process that dies, leaves its bytes to the next request for that blob.
//
// What reaches the end of a response has the digest it was asked by: the last byte of a blob is held back
// until all are verified.
package cache

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"davit/internal/turn"
	"davit/oci"
	"davit/oci/errdefs"
	"davit/registry/storage"
)

// Shelf is where what was fetched is put: the repositories of the registry that has the cache. What is
// missing is an errdefs.ErrNotFound.
type Shelf interface {
	Manifests
	Tags
	Blobs
}

// Manifests are kept by digest; their blobs need not be there.
type Manifests interface {
	// ReadManifest returns a manifest's content, and notes that it is in use.
	ReadManifest(ctx context.Context, name string, d oci.Digest) ([]byte, error)
	KeepManifest(ctx context.Context, name string, desc oci.Descriptor, content []byte) error
}

// Tags name manifests, and know when that was last found true.
type Tags interface {
	ReadTag(ctx context.Context, name, tag string) (d oci.Digest, checked time.Time, err error)
	// KeepTag notes that the tag names d now, as by says; an empty d: that there is no such tag.
	KeepTag(ctx context.Context, name, tag string, d oci.Digest, by string) error
}

// Blobs belong to repositories.
type Blobs interface {
	HasBlob(ctx context.Context, name string, d oci.Digest) (size int64, err error)
	// AdoptBlob puts into a repository what the registry holds already.
	AdoptBlob(ctx context.Context, name string, d oci.Digest) error
	// KeepBlob commits an upload to a repository; other bytes than d's are errdefs.ErrInvalid.
	KeepBlob(ctx context.Context, name, upload string, d oci.Digest) error
}

// Store is where fetches collect their bytes.
type Store interface {
	storage.Uploads
	storage.Records
	storage.Tails
}

// Options configures a Cache.
type Options struct {
	Upstreams []Upstream
	Shelf     Shelf
	Store     Store
	Log       *slog.Logger
	UserAgent string

	// Missing is how long it is believed that an upstream does not have something; 0 means 10 s.
	Missing time.Duration
	// Impatience is how long a check may take when there is a copy to fall back on; 0 means 5 s.
	Impatience time.Duration
	// Idle ends an upstream connection on which nothing moved for so long; 0 means 30 s.
	Idle time.Duration
}

// Cache is made by New and ended by Close. Methods may be called at the same time.
type Cache struct {
	Counters Counters

	o         Options
	upstreams atomic.Pointer[[]*upstream]
	turns     turn.Turns[string] // of those who ask an upstream for the same thing
	missing   *memory[error]
	sizes     *memory[int64]
	lists     *memory[[]string]

	ctx  context.Context // of all fetches
	stop context.CancelFunc

	mu      sync.Mutex
	flights map[string]*flight
	flying  sync.WaitGroup
}

// New returns a cache, or an errdefs.ErrInvalid about its upstreams.
func New(o Options) (*Cache, error) {
	if o.Missing == 0 {
		o.Missing = 10 * time.Second
	}
	if o.Impatience == 0 {
		o.Impatience = 5 * time.Second
	}
	if o.Idle == 0 {
		o.Idle = 30 * time.Second
	}
	ctx, stop := context.WithCancel(context.Background())
	c := &Cache{
		o: o, ctx: ctx, stop: stop, flights: map[string]*flight{},
		missing: newMemory[error](10_000), sizes: newMemory[int64](50_000), lists: newMemory[[]string](1000),
	}
	if err := c.Configure(o.Upstreams); err != nil {
		stop()
		return nil, err
	}
	return c, nil
}

// Configure takes other upstreams from now on; with an errdefs.ErrInvalid about them it keeps those it has.
// Requests and fetches under way go on with the old ones.
func (c *Cache) Configure(configs []Upstream) error {
	byDefault, taken := "", map[string]string{}
	var made []*upstream
	for _, config := range configs {
		u, err := newUpstream(config, c)
		if err != nil {
			return err
		}
		for _, way := range u.ways() {
			if other, ok := taken[way]; ok {
				return errdefs.Invalid("upstreams %s and %s both answer to %s", other, u.Name, way)
			}
			taken[way] = u.Name
		}
		if u.Default && byDefault != "" {
			return errdefs.Invalid("upstreams %s and %s are both the default", byDefault, u.Name)
		}
		if u.Default {
			byDefault = u.Name
		}
		made = append(made, u)
	}
	if old := c.upstreams.Swap(&made); old != nil {
		for _, u := range *old {
			u.close()
		}
	}
	return nil
}

// Close ends all fetches, whose bytes stay, and waits for them.
func (c *Cache) Close() {
	c.stop()
	c.flying.Wait()
	for _, u := range *c.upstreams.Load() {
		u.close()
	}
}

// Target is a repository of an upstream, and its name here.
type Target struct {
	Name string
	up   *upstream
	path string // there
}

// Upstream names the upstream's registry.
func (t Target) Upstream() string { return t.up.Name }

// Match says whose repository a request means: by ?ns=, by the host that it was sent to, by the name's
// beginning, and at last by the default upstream, unless the name is one of the registry's own.
func (c *Cache) Match(r *http.Request, name string, own func() bool) (Target, bool) {
	ns, host := r.URL.Query().Get("ns"), hostname(r.Host)
	for _, u := range *c.upstreams.Load() {
		if ns == u.Name {
			return u.target(name), true
		}
	}
	for _, u := range *c.upstreams.Load() {
		if u.hasHost(host) {
			return u.target(name), true
		}
	}
	if t, ok := c.byPrefix(name); ok {
		return t, true
	}
	for _, u := range *c.upstreams.Load() {
		if u.Default && ns == "" && !own() {
			return u.target(name), true
		}
	}
	return Target{}, false
}

// byPrefix takes the longest prefix that fits.
func (c *Cache) byPrefix(name string) (found Target, ok bool) {
	longest := 0
	for _, u := range *c.upstreams.Load() {
		for _, prefix := range u.prefixes() {
			if path, fits := strings.CutPrefix(name, prefix+"/"); fits && len(prefix) > longest {
				found, ok, longest = u.target(path), true, len(prefix)
			}
		}
	}
	return found, ok
}

// Owns says whether a repository's name is one of the cache's.
func (c *Cache) Owns(name string) bool {
	for _, u := range *c.upstreams.Load() {
		if strings.HasPrefix(name, u.local()+"/") {
			return true
		}
	}
	return false
}

func hostname(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return hostport
}

// patience is how long an upstream is asked for what there is no copy of, attempts and pauses included.
const patience = 2 * time.Minute

// ask lets f talk to the upstream's repository, unless the upstream is at rest. A caller with something to
// fall back on is impatient. f is not disturbed when the client leaves: others may wait for its result.
func (c *Cache) ask(ctx context.Context, t Target, impatient bool, f func(context.Context, repository) error) error {
	if err := t.up.resting(time.Now(), impatient); err != nil {
		return err
	}
	limit := patience
	if impatient {
		limit = c.o.Impatience
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	repo, err := t.up.repository(t.path, impatient)
	if err == nil {
		err = f(ctx, repo)
	}
	if c.ctx.Err() != nil {
		return errdefs.Unavailable("the registry is shutting down")
	}
	t.up.learn(time.Now(), err)
	if err != nil && !wellAnswered(err) {
		if rest := t.up.resting(time.Now(), false); rest != nil {
			return rest // which says how long to wait
		}
	}
	return err
}
