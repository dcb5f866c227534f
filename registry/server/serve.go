package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"davit/oci/errdefs"
	"davit/registry/audit"
	"davit/registry/cache"
	"davit/registry/quota"
	"davit/registry/storage"
	"davit/registry/storage/bucket"
	"davit/registry/storage/dir"
)

// Config is what "davitd registry serve" is told.
type Config struct {
	Addr          string // host:port to listen on
	Root          string // directory of the content, or URL of a bucket (package storage/bucket)
	TLSCert       string // PEM files; both or neither
	TLSKey        string
	ACME          ACME          // instead of files
	Htpasswd      string        // file of users; empty: everybody may do everything
	AnonymousPull bool          // with Htpasswd: reading needs no user
	CollectEvery  time.Duration // 0: never
	CollectGrace  time.Duration
	ScrubEvery    time.Duration // 0: never
	ScrubRate     int64         // bytes a second; 0: any
	HistoryKeep   time.Duration // see Options
	Immutable     []string
	Rules         string           // file of Rules; empty: none
	RedirectBlobs bool             // see Options
	Webhooks      string           // file of webhook.Config; empty: none
	WebhookDir    string           // of what is not delivered; empty: see openEvents
	NoPages       bool             // no pages for people
	NoDeltas      bool             // see Options
	Upstreams     []cache.Upstream // beside those of the file
	CacheSize     int64            // see Server.LimitCache
	CacheAge      time.Duration
	CacheDir      string     // where content arrives from upstreams when Root is a bucket
	Quota         quota.Rule // see Options
	AuditLog      string     // file, see package audit; empty: none
	Connections   int        // at once; 0: see mostConnections
	AccessLog     string     // file to append a JSON object to for every request; "-" for stdout, empty: none
}

// Serve runs a registry until ctx ends, then lets requests finish for a few seconds.
func Serve(ctx context.Context, config Config, log *slog.Logger) error {
	registry, err := open(ctx, config, log)
	if err != nil {
		return err
	}
	defer registry.closeAudit(ctx)
	defer registry.Close()
	certs, err := openCertificates(ctx, config, registry.store, log)
	if err != nil {
		return err
	}
	clients, err := listen(config.Addr, config.Connections, log)
	if err != nil {
		return err
	}
	listener := net.Listener(clients)
	if certs.tls != nil {
		listener = tls.NewListener(clients, certs.tls)
	}
	log.Info("registry is listening", "address", listener.Addr().String(), "root", config.Root, "tls", certs.tls != nil)
	server := &http.Server{
		Handler:           registry,
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ConnState:         clients.leave,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	certified := make(chan struct{})
	go func() { defer close(certified); certs.keep(ctx, log) }()
	collected := make(chan struct{})
	go func() { defer close(collected); registry.collectEvery(ctx, config) }()
	scrubbed := make(chan struct{})
	go func() { defer close(scrubbed); registry.scrubEvery(ctx, config.ScrubEvery, config.ScrubRate) }()
	evicted := make(chan struct{})
	go func() { defer close(evicted); registry.evictEvery(ctx, evictEvery) }()
	told := make(chan struct{})
	go func() { defer close(told); registry.deliverEvents(ctx) }()
	indexed := make(chan struct{})
	go func() { defer close(indexed); registry.MakeDeltas(ctx) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve registry: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	err = server.Shutdown(grace)
	registry.closeCache() // now nobody reads, or only those who have had their time
	<-certified
	<-evicted
	<-collected
	<-scrubbed
	<-indexed
	<-told
	if errors.Is(err, context.DeadlineExceeded) {
		err = server.Close()
	}
	return err
}

func open(ctx context.Context, config Config, log *slog.Logger) (*Server, error) {
	store, err := openStore(ctx, config.Root)
	if err != nil {
		return nil, err
	}
	o := Options{HistoryKeep: config.HistoryKeep, Immutable: config.Immutable, NoPages: config.NoPages, NoDeltas: config.NoDeltas, RedirectBlobs: config.RedirectBlobs, Quota: config.Quota}
	if config.Rules != "" && config.Htpasswd != "" {
		return nil, errdefs.Invalid("the htpasswd file is named in %s when there are rules, not by a flag", config.Rules)
	}
	if config.Rules != "" {
		key, err := tokenKey(ctx, store)
		if err != nil {
			return nil, err
		}
		if o.Auth, err = NewPolicy(config.Rules, key, log); err != nil {
			return nil, err
		}
	}
	if config.Htpasswd != "" {
		if o.Auth, err = NewHtpasswd(config.Htpasswd, config.AnonymousPull); err != nil {
			return nil, err
		}
	}
	if o.AccessLog, err = accessLog(config.AccessLog); err != nil {
		return nil, err
	}
	if config.AuditLog != "" {
		if o.Audit, err = audit.Open(config.AuditLog, log); err != nil {
			return nil, err
		}
	}
	if o.Events, err = openEvents(config, log); err != nil {
		return nil, err
	}
	s := New(store, log, o)
	return s, s.openCache(config)
}

// evictEvery is how often the cache is looked through for what was not used for long.
const evictEvery = time.Hour

// openCache makes the registry a cache when there are upstreams; those of the file may change later.
func (s *Server) openCache(config Config) error {
	policy, _ := s.auth.(*Policy)
	upstreams := config.Upstreams
	if policy != nil {
		upstreams = slices.Concat(policy.current().rules.Upstreams, config.Upstreams)
	}
	if len(upstreams) == 0 {
		return nil
	}
	s.LimitCache(config.CacheSize, config.CacheAge)
	if err := s.UseCache(cache.Options{Upstreams: upstreams}, config.CacheDir); err != nil {
		return err
	}
	if policy != nil {
		policy.reread = func(rules Rules) error {
			return s.cache.Configure(slices.Concat(rules.Upstreams, config.Upstreams))
		}
	}
	return nil
}

func openStore(ctx context.Context, root string) (storage.Store, error) {
	if bucket.IsURL(root) {
		return bucket.Open(ctx, root)
	}
	if strings.Contains(root, "://") {
		return nil, errdefs.Invalid("invalid root %q: want a directory or s3://BUCKET/PREFIX?region=REGION&endpoint=URL", root)
	}
	return dir.Open(root)
}

// accessLog opens the file for appending; it stays open as long as the process lives.
func accessLog(path string) (*slog.Logger, error) {
	var out io.Writer = os.Stdout
	switch path {
	case "":
		return nil, nil
	case "-":
	default:
		file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return nil, fmt.Errorf("open access log: %w", err)
		}
		out = file
	}
	return slog.New(slog.NewJSONHandler(out, nil)), nil
}

// listen accepts no more connections at once than most, or than descriptors allow for 0.
func listen(address string, most int, log *slog.Logger) (*crowd, error) {
	switch {
	case most < 0:
		return nil, errdefs.Invalid("invalid number of connections %d: want one above 0, or 0 for as many as descriptors allow", most)
	case most == 0:
		most = mostConnections()
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for registry clients: %w", err)
	}
	return newCrowd(listener, most, log), nil
}

func (s *Server) collectEvery(ctx context.Context, config Config) {
	s.inTurns(ctx, "collection", config.CollectEvery, func() {
		if err := s.Retain(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("retention failed", "error", err)
		}
		done, err := s.Collect(ctx, config.CollectGrace)
		s.metrics.collectedBlobs.Add(int64(done.Blobs))
		s.metrics.collectedBytes.Add(done.Bytes)
		if err != nil {
			s.metrics.collectFailures.Add(1)
			s.log.Error("collection failed", "error", err)
			return
		}
		s.metrics.collections.Add(1)
		s.log.Info("collected", "links", done.Links, "blobs", done.Blobs, "bytes", done.Bytes)
	})
}

// inTurns does something every so often, never for 0, until ctx ends. Of the processes over one store one
// does it, as the record of that name says.
func (s *Server) inTurns(ctx context.Context, record string, every time.Duration, do func()) {
	if every <= 0 {
		return
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		mine, err := s.turnIsMine(ctx, record, every)
		if err != nil && ctx.Err() == nil {
			s.log.Error("the record of whose turn it is cannot be used", "record", record, "error", err)
		}
		if mine {
			do()
		}
	}
}

// turnIsMine spares processes over one store doing the same at the same time: the first takes the turn.
// That two of them did it would do no harm.
func (s *Server) turnIsMine(ctx context.Context, record string, every time.Duration) (bool, error) {
	last, err := s.store.ReadRecord(ctx, record)
	if ignoreMissing(err) != nil || err == nil && time.Since(last.Put) < every/2 {
		return false, ignoreMissing(err)
	}
	_, err = s.store.SwapRecord(ctx, record, last.Version, nil)
	if errors.Is(err, errdefs.ErrConflict) {
		return false, nil
	}
	return err == nil, err
}
