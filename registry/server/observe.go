package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// seen is a response on its way out, with what the access log and the metrics want to know of it.
type seen struct {
	http.ResponseWriter
	*patient
	status int
	bytes  int64

	route, by string
	repo, arg string
	retagged  bool // a manifest was pushed that was there
	err       error
}

// WriteHeader implements http.ResponseWriter.
func (w *seen) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements io.Writer.
func (w *seen) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	w.beforeWrite()
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// ReadFrom lets files be sent by the kernel, as the server's own writer does.
func (w *seen) ReadFrom(r io.Reader) (int64, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.sendPieces(w.ResponseWriter, r)
	w.bytes += n
	return n, err
}

// Unwrap is for http.ResponseController.
func (w *seen) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// observe counts a finished request and writes its line of the access log.
func (s *Server) observe(w *seen, r *http.Request, began time.Time) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	took := time.Since(began)
	s.metrics.add(requestKind{w.route, r.Method, w.status}, took, w.bytes)
	s.audit(w, r)
	if s.options.AccessLog == nil {
		return
	}
	attributes := []any{
		"method", r.Method, "path", r.URL.Path, "status", w.status, "bytes", w.bytes, "duration", took,
		"address", clientAddress(r), "agent", r.UserAgent(),
	}
	if w.by != "" {
		attributes = append(attributes, "by", w.by)
	}
	if w.err != nil {
		attributes = append(attributes, "error", w.err.Error())
	}
	s.options.AccessLog.InfoContext(r.Context(), "request", attributes...)
}

// requestKind is what requests are counted by; method is one that the registry knows, or "other".
type requestKind struct {
	route, method string
	status        int
}

// metrics are counters in Prometheus' sense: they only grow. The zero value is ready.
type metrics struct {
	requests sync.Map // requestKind to *requestCount
	inFlight atomic.Int64

	evictedBlobs, evictedBytes                                   atomic.Int64
	collections, collectFailures, collectedBlobs, collectedBytes atomic.Int64

	scrub       scrubCounts
	retained    retained
	quotaDenied atomic.Int64
}

type requestCount struct {
	count, nanoseconds, bytes atomic.Int64
	buckets                   [len(bucketLimits)]atomic.Int64 // by duration, not cumulative
}

// bucketLimits are the upper limits of the duration histogram.
var bucketLimits = [...]time.Duration{
	time.Millisecond, 5 * time.Millisecond, 25 * time.Millisecond, 100 * time.Millisecond,
	500 * time.Millisecond, 2500 * time.Millisecond, 10 * time.Second, time.Minute,
}

func (m *metrics) add(kind requestKind, took time.Duration, bytes int64) {
	if !slices.Contains([]string{"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"}, kind.method) {
		kind.method = "other" // whatever a client invents must not become a series
	}
	found, ok := m.requests.Load(kind)
	if !ok {
		found, _ = m.requests.LoadOrStore(kind, new(requestCount))
	}
	c := found.(*requestCount)
	c.count.Add(1)
	c.nanoseconds.Add(int64(took))
	c.bytes.Add(bytes)
	for i, limit := range bucketLimits {
		if took <= limit {
			c.buckets[i].Add(1)
			break
		}
	}
}

// write gives all counters in Prometheus' text format 0.0.4.
func (m *metrics) write(w io.Writer) {
	kinds := map[string]*requestCount{}
	m.requests.Range(func(key, value any) bool {
		k := key.(requestKind)
		kinds[fmt.Sprintf("route=%q,method=%q,code=\"%d\"", k.route, k.method, k.status)] = value.(*requestCount)
		return true
	})
	labels := make([]string, 0, len(kinds))
	for label := range kinds {
		labels = append(labels, label)
	}
	slices.Sort(labels)
	family(w, "davit_registry_request_duration_seconds", "histogram", "Requests by what was asked for and answered, and how long they took.")
	for _, label := range labels {
		kinds[label].write(w, label)
	}
	family(w, "davit_registry_response_bytes_total", "counter", "Bytes of response bodies.")
	for _, label := range labels {
		fmt.Fprintf(w, "davit_registry_response_bytes_total{%s} %d\n", label, kinds[label].bytes.Load())
	}
	for _, single := range []series{
		{"davit_registry_requests_in_flight", "gauge", "Requests being answered.", &m.inFlight},
		{"davit_registry_collections_total", "counter", "Collections that ran to their end.", &m.collections},
		{"davit_registry_collection_failures_total", "counter", "Collections that failed.", &m.collectFailures},
		{"davit_registry_collected_blobs_total", "counter", "Contents removed by collections.", &m.collectedBlobs},
		{"davit_registry_collected_bytes_total", "counter", "Bytes removed by collections.", &m.collectedBytes},
	} {
		single.write(w)
	}
}

// series is a metric without labels.
type series struct {
	name, kind, help string
	value            *atomic.Int64
}

func (s series) write(w io.Writer) {
	family(w, s.name, s.kind, s.help)
	fmt.Fprintf(w, "%s %d\n", s.name, s.value.Load())
}

func family(w io.Writer, name, kind, help string) {
	fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// cacheSeries are what the cache and its eviction count.
func (s *Server) cacheSeries() []series {
	if s.cache == nil {
		return nil
	}
	c := &s.cache.Counters
	return []series{
		{"davit_registry_cache_upstream_requests_total", "counter", "Requests to upstreams and their token servers.", &c.Requests},
		{"davit_registry_cache_hits_total", "counter", "Manifests and blobs of upstreams that were there.", &c.Hits},
		{"davit_registry_cache_misses_total", "counter", "Manifests and blobs that were fetched.", &c.Misses},
		{"davit_registry_cache_joined_total", "counter", "Readers who followed a fetch that others had caused.", &c.Joined},
		{"davit_registry_cache_stale_total", "counter", "Answers that could not be checked with the upstream.", &c.Stale},
		{"davit_registry_cache_resumed_total", "counter", "Fetches that went on where an earlier one had ended.", &c.Resumed},
		{"davit_registry_cache_wrong_total", "counter", "Fetches whose bytes had another digest.", &c.Wrong},
		{"davit_registry_cache_fetched_bytes_total", "counter", "Bytes of blobs that came from upstreams.", &c.Fetched},
		{"davit_registry_cache_held_bytes", "gauge", "Bytes of blobs in the cache, about.", &s.eviction.held},
		{"davit_registry_cache_evicted_blobs_total", "counter", "Contents that the cache gave up.", &s.metrics.evictedBlobs},
		{"davit_registry_cache_evicted_bytes_total", "counter", "Bytes that the cache gave up.", &s.metrics.evictedBytes},
	}
}

func (c *requestCount) write(w io.Writer, label string) {
	const name = "davit_registry_request_duration_seconds"
	count, sum := c.count.Load(), int64(0)
	for i, limit := range bucketLimits {
		sum += c.buckets[i].Load()
		fmt.Fprintf(w, "%s_bucket{%s,le=\"%g\"} %d\n", name, label, limit.Seconds(), sum)
	}
	fmt.Fprintf(w, "%s_bucket{%s,le=\"+Inf\"} %d\n", name, label, count)
	fmt.Fprintf(w, "%s_sum{%s} %g\n", name, label, time.Duration(c.nanoseconds.Load()).Seconds())
	fmt.Fprintf(w, "%s_count{%s} %d\n", name, label, count)
}

func (s *Server) serveMetrics(r request) error {
	var text strings.Builder
	s.metrics.write(&text)
	for _, single := range slices.Concat(s.cacheSeries(), s.metrics.scrub.series(), s.quotaSeries(), s.auditSeries(), s.metrics.retained.series()) {
		single.write(&text)
	}
	s.writeEventMetrics(&text)
	r.w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = io.WriteString(r.w, text.String()) // the client is gone when this fails
	return nil
}

// health says that the process answers.
func (s *Server) health(r request) error {
	_, _ = io.WriteString(r.w, "ok\n")
	return nil
}

// readiness is what the last look at the store showed.
type readiness struct {
	at  time.Time
	err error
}

// readyFor is how long one look counts: the path is open to everybody, and a look writes.
const readyFor = 5 * time.Second

// ready says whether the store takes and gives back records; 503 when it does not.
func (s *Server) ready(r request) error {
	last := s.readiness.Load()
	if last == nil || time.Since(last.at) > readyFor {
		last = &readiness{time.Now(), s.tryStore(r.Context())}
		s.readiness.Store(last)
	}
	if last.err != nil {
		s.log.Error("the store is not usable", "error", last.err)
		return &failure{"UNAVAILABLE", http.StatusServiceUnavailable, errNotReady}
	}
	return s.health(r)
}

func (s *Server) tryStore(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second) // the answer serves others too
	defer cancel()
	if err := s.store.PutRecord(ctx, "ready", []byte(time.Now().UTC().Format(time.RFC3339))); err != nil {
		return err
	}
	_, err := s.store.GetRecord(ctx, "ready")
	return err
}
