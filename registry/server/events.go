package server

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"davit/oci"
	"davit/registry/storage/bucket"
	"davit/registry/webhook"
)

// defaultEventDir is where events wait when the root is a bucket.
const defaultEventDir = "/var/lib/davit/registry-events"

// openEvents returns nil when no file names endpoints.
func openEvents(config Config, log *slog.Logger) (*webhook.Hub, error) {
	if config.Webhooks == "" {
		return nil, nil
	}
	dir := config.WebhookDir
	switch {
	case dir != "":
	case bucket.IsURL(config.Root):
		dir = defaultEventDir
	default:
		dir = filepath.Join(config.Root, "events")
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("name the source of events: %w", err)
	}
	_, port, err := net.SplitHostPort(config.Addr)
	if err != nil {
		return nil, fmt.Errorf("name the source of events: %w", err)
	}
	return webhook.Open(webhook.Options{File: config.Webhooks, Dir: dir, Source: webhook.Source{Addr: net.JoinHostPort(host, port)}, Log: log})
}

// deliverEvents runs until ctx ends.
func (s *Server) deliverEvents(ctx context.Context) {
	if s.options.Events != nil {
		s.options.Events.Run(ctx)
	}
}

// origin is the request that is behind what happens; the user is known to w once somebody asked.
type origin struct {
	*http.Request
	w *seen
}

type originKey struct{}

// withOrigin lets events that the request causes, however deep down, name it.
func (s *Server) withOrigin(r *http.Request, w *seen) *http.Request {
	if s.options.Events == nil {
		return r
	}
	return r.WithContext(context.WithValue(r.Context(), originKey{}, origin{r, w}))
}

// tell publishes an event where an endpoint wants it.
func (s *Server) tell(ctx context.Context, action string, target webhook.Target) {
	if s.options.Events == nil || !s.options.Events.Wants(action, target.Repository) {
		return
	}
	event := webhook.Event{Action: action, Target: target}
	event.Target.Length = target.Size
	if o, ok := ctx.Value(originKey{}).(origin); ok {
		event.Request = webhook.Request{ID: webhook.NewID(), Addr: o.RemoteAddr, Host: o.Host, Method: o.Method, UserAgent: o.UserAgent()}
		event.Actor.Name = o.w.by
		if target.URL != "" {
			event.Target.URL = schemeOf(o.Request) + "://" + o.Host + target.URL
		}
	}
	s.options.Events.Publish(event)
}

// tellManifest is tell for a manifest, which a tag names if there is one.
func (s *Server) tellManifest(r request, action, tag string, d oci.Digest, e entry) {
	s.tell(r.Context(), action, webhook.Target{
		MediaType: e.MediaType, Size: e.Size, Digest: d, Repository: r.repo.name, Tag: tag,
		URL: "/v2/" + r.repo.name + "/manifests/" + string(d),
	})
}

// tellPushed is tellManifest for each tag that a manifest was pushed with.
func (s *Server) tellPushed(r request, tags []string, d oci.Digest, e entry) {
	if len(tags) == 0 {
		tags = []string{""}
	}
	for _, tag := range tags {
		s.tellManifest(r, webhook.Push, tag, d, e)
	}
}

// tellBlob is tell for a blob that came, from another repository where it was mounted.
func (s *Server) tellBlob(r request, action, from string, d oci.Digest) {
	if s.options.Events == nil || !s.options.Events.Wants(action, r.repo.name) {
		return // which spares looking at the blob
	}
	size, err := s.store.StatBlob(r.Context(), d)
	if err != nil {
		s.log.Warn("the size of a blob is missing in its event", "digest", d, "error", err)
	}
	s.tell(r.Context(), action, webhook.Target{
		MediaType: "application/octet-stream", Size: size, Digest: d, Repository: r.repo.name, FromRepository: from,
		URL: "/v2/" + r.repo.name + "/blobs/" + string(d),
	})
}

// tellMove is for a tag that names something else now, or nothing.
func (s *Server) tellMove(ctx context.Context, m tagMove) {
	target := webhook.Target{Repository: m.repo.name, Tag: m.tag, Digest: m.Digest, Previous: m.now}
	if m.Digest == "" {
		s.tell(ctx, webhook.Delete, target)
	} else {
		s.tell(ctx, webhook.Tag, target)
	}
}

// writeEventMetrics gives what was counted of each endpoint.
func (s *Server) writeEventMetrics(w io.Writer) {
	if s.options.Events == nil {
		return
	}
	counts := s.options.Events.Counts()
	for _, one := range []struct {
		name, kind, help string
		value            func(webhook.Count) int64
	}{
		{"davit_registry_webhook_pending_events", "gauge", "Events that the endpoint is still to get.", func(c webhook.Count) int64 { return int64(c.Pending) }},
		{"davit_registry_webhook_delivered_events_total", "counter", "Events that the endpoint took.", func(c webhook.Count) int64 { return c.Delivered }},
		{"davit_registry_webhook_failures_total", "counter", "Attempts that the endpoint did not answer with 2xx.", func(c webhook.Count) int64 { return c.Failed }},
		{"davit_registry_webhook_dropped_events_total", "counter", "Events given up: too old, too many, or not to be kept.", func(c webhook.Count) int64 { return c.Dropped }},
	} {
		family(w, one.name, one.kind, one.help)
		for _, c := range counts {
			fmt.Fprintf(w, "%s{endpoint=%q} %d\n", one.name, c.Endpoint, one.value(c))
		}
	}
}
