package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"davit/internal/version"
)

// receiver is one endpoint at work: its queue, and what was counted of it.
type receiver struct {
	settings settings
	queue    *queue
	client   *http.Client
	log      *slog.Logger
	counts   *counts

	stop context.CancelFunc // nil: not running
	over chan struct{}      // closed when it has stopped
}

// counts outlive changes of an endpoint's settings.
type counts struct{ delivered, failed, dropped atomic.Int64 }

// newClient sends to where it is told to and nowhere else: a redirect is an answer like another, no 2xx.
func newClient() *http.Client {
	return &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// start delivers until stop is called, or ctx ends.
func (r *receiver) start(ctx context.Context) {
	ctx, r.stop = context.WithCancel(ctx)
	r.over = make(chan struct{})
	go func() {
		defer close(r.over)
		r.run(ctx)
	}()
}

func (r *receiver) end() {
	if r.stop != nil {
		r.stop()
		<-r.over
	}
}

func (r *receiver) run(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; {
		line, at, ok, err := r.queue.next()
		switch {
		case err != nil:
			r.skip(at, err)
		case !ok:
			select {
			case <-r.queue.wake:
			case <-ctx.Done():
			}
		case r.old(line):
			r.counts.dropped.Add(1)
			r.log.Warn("event is too old and was dropped", "event", string(bytes.TrimSpace(line)))
			r.done(at, line)
		default:
			if err := r.send(ctx, line); err != nil {
				failures++
				r.failed(ctx, failures, err)
				continue
			}
			if failures >= r.settings.Threshold {
				r.log.Info("webhook takes events again", "failures", failures)
			}
			failures = 0
			r.counts.delivered.Add(1)
			r.done(at, line)
		}
	}
}

func (r *receiver) skip(at position, cause error) {
	dropped, err := r.queue.skip(at)
	r.counts.dropped.Add(int64(dropped))
	r.log.Error("events cannot be read and were dropped", "count", dropped, "error", cause, "then", err)
}

func (r *receiver) done(at position, line []byte) {
	if err := r.queue.done(at, len(line)); err != nil {
		r.log.Error("an event may be delivered again", "error", err)
	}
}

// failed waits before the next attempt. It logs the first failure, and that which passes the threshold.
func (r *receiver) failed(ctx context.Context, failures int, err error) {
	if ctx.Err() != nil {
		return
	}
	r.counts.failed.Add(1)
	wait := r.settings.wait(failures)
	if failures == 1 || failures == r.settings.Threshold {
		r.log.Warn("webhook does not take an event", "error", err, "failures", failures, "pending", r.queue.pending(), "wait", wait)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// old says whether the event of a line is older than the endpoint wants.
func (r *receiver) old(line []byte) bool {
	var e struct {
		Timestamp time.Time `json:"timestamp"`
	}
	err := json.Unmarshal(line, &e)
	return err != nil || time.Since(e.Timestamp) > r.settings.maxAge
}

// send is one attempt with the event of a line.
func (r *receiver) send(ctx context.Context, line []byte) error {
	ctx, cancel := context.WithTimeout(ctx, r.settings.timeout)
	defer cancel()
	body := fmt.Appendf(nil, `{"events":[%s]}`, bytes.TrimSpace(line))
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.settings.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "davit-registry/"+version.Version)
	for key, value := range r.settings.Headers {
		request.Header.Set(key, value)
	}
	request.Header.Set("Content-Type", MediaType)
	if len(r.settings.secret) > 0 {
		request.Header.Set("X-Hub-Signature-256", Signature(r.settings.secret, body))
	}
	response, err := r.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, _ = io.CopyN(io.Discard, response.Body, 64<<10) // so that the connection can be used again
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return fmt.Errorf("%s answers %s", r.settings.Name, response.Status)
	}
	return nil
}

// Signature is what the header X-Hub-Signature-256 has for a body: a receiver that computes the same, and
// compares in constant time, knows that the sender has the secret.
func Signature(secret, body []byte) string {
	h := hmac.New(sha256.New, secret)
	h.Write(body)
	return "sha256=" + hex.EncodeToString(h.Sum(nil))
}
