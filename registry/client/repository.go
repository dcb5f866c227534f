package client

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"davit/oci/errdefs"
	"davit/oci/ref"
	"davit/registry/auth/challenge"
)

// Repository is one repository of a registry, as one user sees it. Methods may be called at the same
// time.
type Repository struct {
	client    *Client
	name      ref.Ref
	endpoints []*endpoint // mirrors first, the registry itself last
}

// maxPause bounds the wait between attempts, also one that the registry asks for by Retry-After.
const maxPause = 30 * time.Second

// Close gives idle connections back.
func (r *Repository) Close() {
	for _, e := range r.endpoints {
		e.http.CloseIdleConnections()
	}
}

// origin is the registry itself: what writes goes there, never to a mirror.
func (r *Repository) origin() *endpoint { return r.endpoints[len(r.endpoints)-1] }

// attempt calls try on a mirror once, since the next in line may do better, else as retry does.
func (r *Repository) attempt(ctx context.Context, e *endpoint, try func() error) error {
	if e.mirror {
		return try()
	}
	return r.retry(ctx, try)
}

// retry calls try until it succeeds, fails for good, or Attempts are used up.
func (r *Repository) retry(ctx context.Context, try func() error) error {
	for failures := 0; ; {
		err := try()
		if err == nil || !retryable(err) {
			return err
		}
		failures++
		if failures >= r.client.o.Attempts {
			return err
		}
		if err := r.pause(ctx, failures, err); err != nil {
			return err
		}
	}
}

// pause waits before the next attempt: as long as the registry asked, else doubling each time, with a
// random part so that many clients do not come back together.
func (r *Repository) pause(ctx context.Context, failures int, err error) error {
	wait := min(r.client.o.Backoff<<(failures-1), maxPause)
	wait = wait/2 + rand.N(wait/2+1)
	var refusal *Error
	if errors.As(err, &refusal) && refusal.RetryAfter > 0 {
		if refusal.RetryAfter > maxPause {
			return err
		}
		wait = refusal.RetryAfter
	}
	r.client.o.Log.DebugContext(ctx, "registry request failed, trying again", "repository", r.name.Name(), "error", err, "after", wait)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// request is one call of the protocol, relative to <base>/v2/<repository>/.
type request struct {
	method string
	path   string // "manifests/latest"
	header http.Header
	accept []int // the statuses that are success
	scopes []challenge.Scope
}

// do makes one attempt at one endpoint. Any other status than the accepted ones is an *Error.
func (r *Repository) do(ctx context.Context, e *endpoint, q request) (*http.Response, error) {
	base, err := e.reach(ctx)
	if err != nil {
		return nil, err
	}
	address := base.String() + "/v2/" + r.name.Path + "/" + q.path
	if e.mirror { // which is only read: no path has a query of its own
		address += "?" + url.Values{"ns": {r.name.Domain}}.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, q.method, address, nil)
	if err != nil {
		return nil, err
	}
	if q.header != nil {
		req.Header = q.header.Clone()
	}
	resp, err := e.send(ctx, req, q.scopes)
	if err != nil {
		return nil, err
	}
	if resp.Header.Get(deltaHeader) != "" {
		e.deltas.Store(true)
	}
	return checked(resp, q.accept...)
}

// checked closes a response of any but the accepted statuses and returns it as an *Error.
func checked(resp *http.Response, accept ...int) (*http.Response, error) {
	for _, status := range accept {
		if resp.StatusCode == status {
			return resp, nil
		}
	}
	refusal := readError(resp)
	return nil, errors.Join(refusal, resp.Body.Close())
}

func (r *Repository) pullScope() []challenge.Scope {
	return []challenge.Scope{challenge.PullScope(r.name.Path)}
}

func (r *Repository) pushScope() []challenge.Scope {
	return []challenge.Scope{challenge.PushScope(r.name.Path)}
}

// anyEndpoint asks mirrors and then the registry itself, and returns the last one's failure.
func (r *Repository) anyEndpoint(ctx context.Context, try func(*endpoint) error) error {
	for _, e := range r.endpoints {
		if e.down.Load() {
			continue
		}
		err := try(e)
		if err == nil || !e.mirror || ctx.Err() != nil {
			return err
		}
		if errors.Is(err, errdefs.ErrNotFound) {
			r.client.o.Log.DebugContext(ctx, "mirror has no such content", "mirror", e.host, "repository", r.name.Name())
			continue
		}
		var refusal *Error
		e.down.Store(!errors.As(err, &refusal))
		r.client.o.Log.WarnContext(ctx, "mirror failed", "mirror", e.host, "repository", r.name.Name(), "error", err)
	}
	return nil
}

// idleBody ends a body's connection when no byte came for the idle time.
type idleBody struct {
	io.ReadCloser
	idle   time.Duration
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

// errIdle is why a connection on which nothing moved was ended.
var errIdle = errors.New("no data arrived in time")

func newIdleBody(body io.ReadCloser, idle time.Duration, cancel context.CancelCauseFunc) *idleBody {
	return &idleBody{body, idle, time.AfterFunc(idle, func() { cancel(errIdle) }), cancel}
}

// Read implements io.Reader; the time that the caller takes between reads does not count.
func (b *idleBody) Read(p []byte) (int, error) {
	b.timer.Reset(b.idle)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	return n, err
}

// Close implements io.Closer.
func (b *idleBody) Close() error {
	b.timer.Stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}
