package client_test

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"sync"
	"testing"

	"davit/internal/registrytest"
	"davit/oci"
	"davit/registry/auth"
	"davit/registry/client"
)

// A mirror of everything is told whose repository is meant; one that answers nonsense is left for good
// after one attempt, and the registry itself is asked by the address that it is said to have.
func TestMirrorOfEverything(t *testing.T) {
	upstream := registrytest.Start(t, registrytest.Options{})
	forward := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: upstream})
	var mu sync.Mutex
	var seen []string
	mirror := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen = append(seen, r.URL.Query().Get("ns"))
		mu.Unlock()
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(mirror.Close)
	failing := 0
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		failing++
		panic(http.ErrAbortHandler)
	}))
	t.Cleanup(broken.Close)
	pushed := repository(t, newClient(t, client.Options{}), upstream+"/team/app", auth.Credentials{})
	desc, content := pushImage(t, pushed, "v1")

	c := newClient(t, client.Options{Mirrors: map[string][]string{"quay.io": {broken.URL}, "*": {mirror.URL}}})
	repo := repository(t, c, "quay.io/team/app", auth.Credentials{})
	got, manifest, err := repo.Get(t.Context(), "v1")
	if err != nil || got.Digest != desc.Digest || got.MediaType != oci.MediaTypeManifest || string(manifest) != string(content) {
		t.Fatalf("Get = %+v, %v", got, err)
	}
	if _, err := fetch(t.Context(), repo, desc, 0); err != nil {
		t.Error(err)
	}
	if len(seen) < 2 || slices.ContainsFunc(seen, func(ns string) bool { return ns != "quay.io" }) || failing != 1 {
		t.Errorf("the mirror saw ns %q; the broken one was asked %d times", seen, failing)
	}

	moved := newClient(t, client.Options{Origins: map[string]string{"quay.io": "http://" + upstream}})
	repo = repository(t, moved, "quay.io/team/app", auth.Credentials{})
	if _, _, err := repo.Get(t.Context(), string(desc.Digest)); err != nil {
		t.Error(err)
	}
	if size, err := repo.BlobSize(t.Context(), oci.DigestOf([]byte("missing"))); err == nil {
		t.Errorf("a missing blob has %d bytes", size)
	}
}
