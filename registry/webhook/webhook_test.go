package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// delivery is one request that an endpoint got.
type delivery struct {
	header http.Header
	body   []byte
	event  Event
}

// listener is an endpoint that answers what status says, and hands on what it took.
func listener(t *testing.T, status func() int) (url string, got chan delivery) {
	t.Helper()
	got = make(chan delivery, 100_000)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var envelope Envelope
		if err == nil {
			err = json.Unmarshal(body, &envelope)
		}
		if err != nil || len(envelope.Events) != 1 {
			t.Errorf("body %q: %v", body, err)
			return
		}
		code := status()
		w.WriteHeader(code)
		if code < 300 {
			got <- delivery{r.Header, body, envelope.Events[0]}
		}
	}))
	t.Cleanup(server.Close)
	return server.URL, got
}

func always(code int) func() int { return func() int { return code } }

func write(t *testing.T, path string, endpoints ...Endpoint) {
	t.Helper()
	content, err := json.Marshal(Config{endpoints})
	if err == nil {
		err = os.WriteFile(path+".new", content, 0o600)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// open opens a hub that is closed at the end; run has it deliver until then.
func open(t *testing.T, dir string, endpoints ...Endpoint) *Hub {
	t.Helper()
	file := filepath.Join(t.TempDir(), "webhooks.json")
	write(t, file, endpoints...)
	h, err := Open(Options{File: file, Dir: dir, Source: Source{Addr: "registry:5000"}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func run(t *testing.T, h *Hub) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() { defer close(over); h.Run(ctx) }()
	stop = func() { cancel(); <-over }
	t.Cleanup(stop)
	return stop
}

func push(tag string) Event {
	return Event{Action: Push, Target: Target{Repository: "team/app", Tag: tag, MediaType: "application/vnd.oci.image.manifest.v1+json"}}
}

// wantTags waits for deliveries of these tags, in order.
func wantTags(t *testing.T, got chan delivery, tags ...string) (last delivery) {
	t.Helper()
	for _, tag := range tags {
		select {
		case last = <-got:
			if last.event.Target.Tag != tag {
				t.Fatalf("got %s, want %s", last.body, tag)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("tag %s was not delivered", tag)
		}
	}
	return last
}

// settled waits until the counts of the only endpoint are as wanted: the delivery is noted after the answer.
func settled(t *testing.T, h *Hub, want func(Count) bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !want(h.Counts()[0]); {
		if time.Now().After(end) {
			t.Fatalf("counts %+v", h.Counts()[0])
		}
		<-time.After(5 * time.Millisecond)
	}
}

func TestEventsAreDeliveredSignedAndInOrder(t *testing.T) {
	failures := 3
	url, got := listener(t, func() int {
		if failures--; failures >= 0 {
			return []int{500, 302, 404}[failures]
		}
		return 204
	})
	h := open(t, t.TempDir(), Endpoint{Name: "ci", URL: url, Secret: "s3cret", Headers: map[string]string{"Authorization": "Bearer x"}, Backoff: "1ms", Threshold: 2})
	for n := range 20 {
		h.Publish(push(fmt.Sprint(n)))
	}
	h.Publish(Event{Action: Pull, Target: Target{Repository: "team/app", Tag: "not by default"}})
	run(t, h)
	first := wantTags(t, got, "0")
	want := Signature([]byte("s3cret"), first.body)
	if first.header.Get("X-Hub-Signature-256") != want || len(want) != len("sha256=")+64 || first.header.Get("Authorization") != "Bearer x" || first.header.Get("Content-Type") != MediaType {
		t.Errorf("headers %v", first.header)
	}
	if e := first.event; len(e.ID) != 36 || time.Since(e.Timestamp) > time.Minute || e.Source.Addr != "registry:5000" || len(e.Source.InstanceID) != 36 {
		t.Errorf("event %s", first.body)
	}
	for n := 1; n < 20; n++ {
		wantTags(t, got, fmt.Sprint(n))
	}
	settled(t, h, func(c Count) bool { return c == Count{"ci", 0, 20, 3, 0} })
}

func TestSignatureIsWhatOpenSSLComputes(t *testing.T) {
	out, err := exec.Command("sh", "-c", `printf %s '{"events":[]}' | openssl dgst -sha256 -hmac key -r | cut -d' ' -f1`).Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := Signature([]byte("key"), []byte(`{"events":[]}`)); got != "sha256="+strings.TrimSpace(string(out)) {
		t.Errorf("%s, openssl %s", got, out)
	}
}

func TestFiltersOfEndpoints(t *testing.T) {
	url, got := listener(t, always(200))
	h := open(t, t.TempDir(), Endpoint{Name: "one", URL: url, Events: []string{Pull, Delete}, Repositories: []string{"team/*"}, ManifestsOnly: true})
	for _, e := range []Event{
		{Action: Pull, Target: Target{Repository: "other/app", Tag: "no"}},
		{Action: Pull, Target: Target{Repository: "team/app", Tag: "no", MediaType: blobType}},
		{Action: Push, Target: Target{Repository: "team/app", Tag: "no"}},
		{Action: Delete, Target: Target{Repository: "team/app", Tag: "yes"}},
	} {
		h.Publish(e)
	}
	if !h.Wants(Pull, "team/x") || h.Wants(Pull, "x") || h.Wants(Push, "team/x") {
		t.Error("Wants does not follow the filters")
	}
	run(t, h)
	wantTags(t, got, "yes")
	settled(t, h, func(c Count) bool { return c == Count{"one", 0, 1, 0, 0} })
}

func TestQueueIsBounded(t *testing.T) {
	url, got := listener(t, always(200))
	h := open(t, t.TempDir(), Endpoint{Name: "small", URL: url, MaxBytes: smallestQueue})
	const count = 1000
	for n := range count {
		h.Publish(push(fmt.Sprint(n)))
	}
	c := h.Counts()[0]
	if c.Dropped == 0 || int(c.Dropped)+c.Pending != count || c.Pending < 50 {
		t.Fatalf("counts %+v", c)
	}
	files, err := os.ReadDir(h.receivers[0].queue.dir)
	if err != nil || len(files) > 5 {
		t.Errorf("%d files, %v", len(files), err)
	}
	run(t, h)
	for n := int(c.Dropped); n < count; n++ {
		wantTags(t, got, fmt.Sprint(n))
	}
}

func TestOldEventsAreDropped(t *testing.T) {
	url, got := listener(t, always(200))
	h := open(t, t.TempDir(), Endpoint{Name: "hasty", URL: url, MaxAge: "1ns"})
	h.Publish(push("old"))
	run(t, h)
	settled(t, h, func(c Count) bool { return c == Count{"hasty", 0, 0, 0, 1} })
	if len(got) > 0 {
		t.Error("it was delivered")
	}
}

// TestKilledProcess publishes in a child that is killed, and delivers what it left.
func TestKilledProcess(t *testing.T) {
	url, got := listener(t, always(200))
	if dir := os.Getenv("WEBHOOK_TEST_DIR"); dir != "" {
		h := open(t, dir, Endpoint{Name: "ci", URL: os.Getenv("WEBHOOK_TEST_URL"), Backoff: "1ms"})
		run(t, h)
		for n := 0; ; n++ {
			h.Publish(push(fmt.Sprint(n)))
			fmt.Printf("published %d\n", n)
		}
	}
	dir := t.TempDir()
	for round := range 3 {
		// The child's deliveries go to an endpoint that takes some, and then none.
		left := 50 * round
		elsewhere, before := listener(t, func() int {
			if left--; left < 0 {
				return 500
			}
			return 200
		})
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledProcess$")
		cmd.Env = append(os.Environ(), "WEBHOOK_TEST_DIR="+dir, "WEBHOOK_TEST_URL="+elsewhere)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var printed bytes.Buffer
		for bytes.Count(printed.Bytes(), []byte("\n")) < 400 {
			if _, err := io.CopyN(&printed, out, 100); err != nil {
				t.Fatalf("%v: %s", err, printed.Bytes())
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		rest, _ := io.ReadAll(out)
		printed.Write(rest)
		_ = cmd.Wait()
		published := bytes.Count(printed.Bytes(), []byte("\n"))
		h := open(t, dir, Endpoint{Name: "ci", URL: url, Backoff: "1ms"})
		pending := h.Counts()[0].Pending
		stop := run(t, h)
		settled(t, h, func(c Count) bool { return c.Pending == 0 })
		stop()
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		checkAll(t, published, pending, before, got)
	}
}

// checkAll wants every event that was published, in order, once the repetition of one is forgiven.
func checkAll(t *testing.T, published, pending int, parts ...chan delivery) {
	t.Helper()
	var tags []string
	for _, part := range parts {
		for len(part) > 0 {
			tags = append(tags, (<-part).event.Target.Tag)
		}
	}
	repeated := len(tags) - len(slices.Compact(slices.Clone(tags)))
	tags = slices.Compact(tags)
	if repeated > 1 || len(tags) < published || len(tags) > published+1 { // one may be kept and not yet told of
		t.Fatalf("%d published, %d pending, %d delivered, %d twice", published, pending, len(tags), repeated)
	}
	for n, tag := range tags {
		if tag != fmt.Sprint(n) {
			t.Fatalf("delivery %d is %s", n, tag)
		}
	}
}

func TestHalfALineIsCutOff(t *testing.T) {
	dir := t.TempDir()
	q, err := openQueue(dir, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"a\n", "b\n", "half"} {
		if _, err := q.append([]byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.done(position{1, 0}, 0); err != nil {
		t.Fatal(err)
	}
	if q, err = openQueue(dir, 1<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := q.append([]byte("c\n")); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for {
		line, at, ok, err := q.next()
		if err != nil || !ok {
			break
		}
		lines = append(lines, string(line))
		if err := q.done(at, len(line)); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"a\n", "b\n", "c\n"}; !slices.Equal(lines, want) {
		t.Errorf("%q", lines)
	}
}

func TestChangedFileIsReadAgain(t *testing.T) {
	url, got := listener(t, always(200))
	h := open(t, t.TempDir(), Endpoint{Name: "ci", URL: "http://127.0.0.1:1/", Backoff: "1h", BackoffMax: "1h"})
	h.Publish(push("1"))
	run(t, h)
	settled(t, h, func(c Count) bool { return c.Failed == 1 }) // and now waits for an hour
	for _, bad := range []string{`{"endpoints":[{"name":"ci"}]}`, `{"endpoints":[],"x":1}`, `{`} {
		if err := os.WriteFile(h.options.File, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readConfig(h.options.File); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
	write(t, h.options.File, Endpoint{Name: "ci", URL: url}, Endpoint{Name: "more", URL: url, Events: []string{Rollback}})
	wantTags(t, got, "1")
	settled(t, h, func(c Count) bool { return c.Delivered == 1 && c.Failed == 1 })
	write(t, h.options.File)
	for end := time.Now().Add(30 * time.Second); len(h.Counts()) > 0; <-time.After(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the endpoints are still there")
		}
	}
}

// Two processes over one directory have queues of their own, and one takes over what the other leaves.
func TestProcessesShareADirectory(t *testing.T) {
	dir := t.TempDir()
	url, got := listener(t, always(200))
	first := open(t, dir, Endpoint{Name: "ci", URL: url})
	second := open(t, dir, Endpoint{Name: "ci", URL: url})
	first.Publish(push("1"))
	second.Publish(push("2"))
	stop := run(t, first)
	wantTags(t, got, "1")
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	wantTags(t, got, "2")
	settled(t, first, func(c Count) bool { return c.Delivered == 2 })
	stop()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	third := open(t, dir, Endpoint{Name: "ci", URL: url})
	if c := third.Counts()[0]; c.Pending != 0 {
		t.Errorf("left over: %+v", c)
	}
}

func TestWaitingDoublesToACap(t *testing.T) {
	s, err := Endpoint{Name: "a", URL: "http://a/", Backoff: "1s", BackoffMax: "6s", Threshold: 3}.understand()
	if err != nil {
		t.Fatal(err)
	}
	var waits []time.Duration
	for failures := 1; failures < 8; failures++ {
		waits = append(waits, s.wait(failures)/time.Second)
	}
	if !slices.Equal(waits, []time.Duration{1, 1, 1, 2, 4, 6, 6}) {
		t.Errorf("waits %d", waits)
	}
}
