package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"davit/internal/registrytest"
	"davit/oci"
	"davit/registry/storage/dir"
	"davit/registry/webhook"
)

// eventsOf starts a receiver of events.
func eventsOf(t *testing.T) (url string, got chan map[string]any) {
	t.Helper()
	got = make(chan map[string]any, 1000)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var envelope struct {
			Events []map[string]any `json:"events"`
		}
		if err := json.NewDecoder(r.Body).Decode(&envelope); err != nil {
			t.Errorf("read events: %v", err)
		}
		if r.Method != "POST" || r.Header.Get("Content-Type") != webhook.MediaType {
			t.Errorf("%s with %v", r.Method, r.Header)
		}
		for _, e := range envelope.Events {
			got <- e
		}
	}))
	t.Cleanup(server.Close)
	return server.URL, got
}

// startTelling runs a registry that tells a receiver of the given actions.
func startTelling(t *testing.T, auth Authorizer, actions ...string) (*fixture, chan map[string]any) {
	t.Helper()
	url, got := eventsOf(t)
	file := filepath.Join(t.TempDir(), "webhooks.json")
	content, err := json.Marshal(webhook.Config{Endpoints: []webhook.Endpoint{{Name: "test", URL: url, Events: actions}}})
	if err == nil {
		err = os.WriteFile(file, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	hub, err := openEvents(Config{Addr: "127.0.0.1:5000", Root: t.TempDir(), Webhooks: file}, discarded())
	if err != nil {
		t.Fatal(err)
	}
	f := startWith(t, Options{Auth: auth, Events: hub, HistoryKeep: time.Hour})
	over := make(chan struct{})
	go func() { defer close(over); f.registry.deliverEvents(t.Context()) }() // which ends before Cleanup
	t.Cleanup(func() { <-over; f.registry.Close() })
	return f, got
}

// take waits for so many events.
func take(t *testing.T, got chan map[string]any, count int) (events []map[string]any) {
	t.Helper()
	for range count {
		select {
		case e := <-got:
			events = append(events, e)
		case <-time.After(30 * time.Second):
			t.Fatalf("only %d events: %v", len(events), events)
		}
	}
	return events
}

// exercise does to any registry what causes events: a push of two blobs and a tagged manifest, a mount, reads,
// deletions. It returns how many events that is for distribution.
func exercise(t *testing.T, f *fixture) int {
	t.Helper()
	config, layer := []byte(`{"architecture":"amd64","os":"linux"}`), []byte("a layer")
	for _, blob := range [][]byte{config, layer} {
		header, _ := f.want(202, "POST", "/v2/team/app/blobs/uploads/", nil)
		location := header.Get("Location")
		separator := "?"
		if strings.Contains(location, "?") {
			separator = "&"
		}
		f.want(201, "PUT", location+separator+"digest="+string(oci.DigestOf(blob)), bytes.NewReader(blob))
	}
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","digest":%q,"size":%d}]}`,
		dockerManifest, "application/vnd.docker.container.image.v1+json", oci.DigestOf(config), len(config), oci.DigestOf(layer), len(layer))
	d := string(oci.DigestOf(manifest))
	typed := []string{"Content-Type", dockerManifest}
	f.want(201, "PUT", "/v2/team/app/manifests/v1", bytes.NewReader(manifest), typed...)
	f.want(201, "POST", "/v2/team/copy/blobs/uploads/?mount="+string(oci.DigestOf(layer))+"&from=team/app", nil)
	f.want(200, "GET", "/v2/team/app/manifests/v1", nil, "Accept", dockerManifest)
	f.want(200, "GET", "/v2/team/app/manifests/"+d, nil, "Accept", dockerManifest)
	f.want(200, "GET", "/v2/team/app/blobs/"+string(oci.DigestOf(layer)), nil)
	f.want(202, "DELETE", "/v2/team/app/manifests/"+d, nil)
	f.want(202, "DELETE", "/v2/team/app/blobs/"+string(oci.DigestOf(layer)), nil)
	return 10
}

const dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"

// canonical takes out what differs from run to run, and from host to host.
func canonical(t *testing.T, events []map[string]any, host string) (lines []string) {
	t.Helper()
	for _, e := range events {
		for _, key := range []string{"id", "timestamp"} {
			if e[key] == "" || e[key] == nil {
				t.Errorf("no %s in %v", key, e)
			}
			e[key] = "some"
		}
		target := e["target"].(map[string]any)
		delete(target, "references")
		delete(target, "previous") // davit's own
		request := e["request"].(map[string]any)
		for _, part := range []map[string]any{request, e["source"].(map[string]any)} {
			for key := range part {
				if key == "id" || key == "addr" || key == "instanceID" {
					part[key] = "some"
				}
			}
		}
		line, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, strings.ReplaceAll(string(line), host, "HOST"))
	}
	slices.Sort(lines) // of what one request causes, any order will do
	return lines
}

// TestEventsAreDistributions compares what Debian's docker-registry tells with what davit tells of the same.
func TestEventsAreDistributions(t *testing.T) {
	url, theirs := eventsOf(t)
	host := registrytest.Start(t, registrytest.Options{Auth: fmt.Sprintf("notifications:\n  endpoints:\n    - {name: test, url: %q, timeout: 5s, threshold: 5, backoff: 1s}\n", url)})
	count := exercise(t, &fixture{t: t, url: "http://" + host})
	want := canonical(t, take(t, theirs, count), host)

	f, ours := startTelling(t, nil, webhook.Push, webhook.Pull, webhook.Mount, webhook.Delete)
	exercise(t, f)
	got := canonical(t, take(t, ours, count), strings.TrimPrefix(f.url, "http://"))
	for i := range max(len(got), len(want)) {
		if got[i] != want[i] {
			t.Errorf("event %d is\n%s\ndocker-registry's is\n%s", i, got[i], want[i])
		}
	}
	if len(theirs)+len(ours) > 0 {
		t.Errorf("more events: %d theirs, %d ours", len(theirs), len(ours))
	}
}

func TestEventsOfTagsAndRollbacks(t *testing.T) {
	f, got := startTelling(t, nil, webhook.Tag, webhook.Delete, webhook.Rollback)
	first, second := f.pushImage("app", "v1", "one"), f.pushImage("app", "v1", "two")
	f.pushImage("app", "v1", "two") // which moves nothing
	f.want(200, "POST", "/davit/v1/app/tags/v1/rollback?digest="+string(first), nil)
	f.want(202, "DELETE", "/v2/app/manifests/v1", nil)
	var lines []string
	for _, e := range take(t, got, 5) {
		target := e["target"].(map[string]any)
		lines = append(lines, fmt.Sprint(e["action"], " ", target["tag"], " ", target["digest"], " ", target["previous"]))
	}
	want := []string{
		fmt.Sprint("tag v1 ", first, " <nil>"), fmt.Sprint("tag v1 ", second, " ", first), fmt.Sprint("tag v1 ", first, " ", second),
		fmt.Sprint("rollback v1 ", first, " ", second), fmt.Sprint("delete v1 <nil> ", first),
	}
	if !slices.Equal(lines, want) {
		t.Errorf("events\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	_, text := f.want(200, "GET", "/metrics", nil)
	if !regexp.MustCompile(`davit_registry_webhook_delivered_events_total\{endpoint="test"\} [45]\n`).MatchString(text) {
		t.Errorf("metrics:\n%s", text)
	}
}

// An endpoint that does not answer costs the clients nothing.
func TestClientsDoNotWaitForEndpoints(t *testing.T) {
	hold := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-hold
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(hold) })
	root, file := t.TempDir(), filepath.Join(t.TempDir(), "webhooks.json")
	if err := os.WriteFile(file, fmt.Appendf(nil, `{"endpoints":[{"name":"slow","url":%q,"timeout":"1h"}]}`, server.URL), 0o600); err != nil {
		t.Fatal(err)
	}
	store, err := dir.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	hub, err := openEvents(Config{Addr: ":0", Root: root, Webhooks: file}, discarded())
	if err != nil {
		t.Fatal(err)
	}
	registry := New(store, discarded(), Options{Events: hub})
	over := make(chan struct{})
	go func() { defer close(over); registry.deliverEvents(t.Context()) }()
	t.Cleanup(func() { <-over; registry.Close() })
	web := httptest.NewServer(registry)
	t.Cleanup(web.Close)
	f := &fixture{t: t, registry: registry, store: store, root: root, url: web.URL}
	for n := range 5 {
		f.pushImage("app", fmt.Sprint(n), "layer")
	}
	if c := hub.Counts()[0]; c.Pending != 15 || c.Delivered != 0 {
		t.Errorf("counts %+v", c)
	}
}
