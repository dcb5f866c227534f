package server

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
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"davit/oci"
	"davit/registry/storage"
	"davit/registry/storage/dir"
)

type fixture struct {
	t        *testing.T
	registry *Server
	store    storage.Store
	root     string
	url      string
}

func start(t *testing.T, auth Authorizer) *fixture {
	t.Helper()
	return startWith(t, Options{Auth: auth})
}

func startWith(t *testing.T, o Options) *fixture {
	t.Helper()
	root := t.TempDir()
	store, err := dir.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	registry := New(store, slog.New(slog.DiscardHandler), o)
	server := httptest.NewServer(registry)
	t.Cleanup(server.Close)
	return &fixture{t, registry, store, root, server.URL}
}

// do sends a request and returns status, headers and body.
func (f *fixture) do(method, path string, body io.Reader, headers ...string) (int, http.Header, string) {
	f.t.Helper()
	if !strings.HasPrefix(path, "http") {
		path = f.url + path
	}
	r, err := http.NewRequest(method, path, body)
	if err != nil {
		f.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		f.t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return response.StatusCode, response.Header, string(content)
}

func (f *fixture) want(status int, method, path string, body io.Reader, headers ...string) (http.Header, string) {
	f.t.Helper()
	got, header, content := f.do(method, path, body, headers...)
	if got != status {
		f.t.Fatalf("%s %s: status %d, want %d: %s", method, path, got, status, content)
	}
	return header, content
}

func (f *fixture) pushBlob(repo, content string) oci.Descriptor {
	f.t.Helper()
	d := oci.DigestOf([]byte(content))
	f.want(201, "POST", "/v2/"+repo+"/blobs/uploads/?digest="+string(d), strings.NewReader(content))
	return oci.Descriptor{MediaType: oci.MediaTypeLayer, Digest: d, Size: int64(len(content))}
}

func (f *fixture) pushImage(repo, tag string, layers ...string) oci.Digest {
	f.t.Helper()
	config := f.pushBlob(repo, `{"architecture":"amd64","os":"linux","tag":"`+tag+`"}`)
	config.MediaType = oci.MediaTypeConfig
	m := oci.Manifest{SchemaVersion: 2, MediaType: oci.MediaTypeManifest, Config: config, Layers: []oci.Descriptor{}}
	for _, layer := range layers {
		m.Layers = append(m.Layers, f.pushBlob(repo, layer))
	}
	content, err := json.Marshal(m)
	if err != nil {
		f.t.Fatal(err)
	}
	f.want(201, "PUT", "/v2/"+repo+"/manifests/"+tag, bytes.NewReader(content), "Content-Type", oci.MediaTypeManifest)
	return oci.DigestOf(content)
}

// A client that vanishes inside a chunk loses nothing that arrived: it asks for the offset and goes on.
func TestUploadResumesAfterBrokenChunk(t *testing.T) {
	f := start(t, nil)
	content := strings.Repeat("0123456789", 100_000)
	header, _ := f.want(202, "POST", "/v2/a/blobs/uploads/", nil)
	location := f.url + header.Get("Location")
	broken, _ := http.NewRequest("PATCH", location, io.MultiReader(strings.NewReader(content[:400_000]), failing{}))
	if response, err := http.DefaultClient.Do(broken); err == nil {
		response.Body.Close()
	}
	end := f.waitOffset(location)
	if end == 0 || end > 400_000 {
		t.Fatalf("offset after the broken chunk is %d", end)
	}
	f.want(416, "PATCH", location, strings.NewReader("x"), "Content-Range", fmt.Sprintf("%d-%d", end+1, end+1))
	d := oci.DigestOf([]byte(content))
	rest := content[end:]
	f.want(202, "PATCH", location, strings.NewReader(rest), "Content-Range", fmt.Sprintf("%d-%d", end, len(content)-1))
	f.want(201, "PUT", location+"?digest="+string(d), nil)
	_, got := f.want(206, "GET", "/v2/a/blobs/"+string(d), nil, "Range", "bytes=999990-999999")
	if got != "0123456789" {
		t.Fatalf("range read %q", got)
	}
}

// waitOffset polls until the server has noticed the broken connection and the offset stands still.
func (f *fixture) waitOffset(location string) int {
	f.t.Helper()
	last := -1
	for range 500 {
		header, _ := f.want(204, "GET", location, nil)
		var end int
		if _, err := fmt.Sscanf(header.Get("Range"), "0-%d", &end); err != nil {
			f.t.Fatal(err)
		}
		if end == last && end > 0 {
			return end + 1
		}
		last = end
		<-time.After(10 * time.Millisecond)
	}
	f.t.Fatal("no bytes of the broken chunk were kept")
	return 0
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, fmt.Errorf("the client is gone") }

func TestWrongDigestLeavesNothing(t *testing.T) {
	f := start(t, nil)
	d := oci.DigestOf([]byte("right"))
	_, body := f.want(400, "POST", "/v2/a/blobs/uploads/?digest="+string(d), strings.NewReader("wrong"))
	if !strings.Contains(body, "DIGEST_INVALID") {
		t.Fatal(body)
	}
	f.want(404, "HEAD", "/v2/a/blobs/"+string(d), nil)
	for _, sub := range []string{"uploads", "blobs/sha256"} {
		entries, err := os.ReadDir(filepath.Join(f.root, sub))
		if err != nil || len(entries) != 0 {
			t.Fatalf("%s holds %v (%v)", sub, entries, err)
		}
	}
}

func TestBlobsAreVisibleOnlyWhereTheyWerePushed(t *testing.T) {
	f := start(t, nil)
	blob := f.pushBlob("one", "secret")
	f.want(404, "GET", "/v2/two/blobs/"+string(blob.Digest), nil)
	f.want(202, "POST", "/v2/two/blobs/uploads/?mount="+string(blob.Digest)+"&from=three", nil)
	f.want(201, "POST", "/v2/two/blobs/uploads/?mount="+string(blob.Digest)+"&from=one", nil)
	f.want(200, "GET", "/v2/two/blobs/"+string(blob.Digest), nil)
}

func TestManifestNeedsItsBlobs(t *testing.T) {
	f := start(t, nil)
	m := `{"schemaVersion":2,"mediaType":"` + oci.MediaTypeManifest + `","config":{"mediaType":"x","size":1,"digest":"` + string(oci.DigestOf([]byte("absent"))) + `"},"layers":[]}`
	_, body := f.want(404, "PUT", "/v2/a/manifests/v1", strings.NewReader(m), "Content-Type", oci.MediaTypeManifest)
	if !strings.Contains(body, "MANIFEST_BLOB_UNKNOWN") {
		t.Fatal(body)
	}
	f.want(404, "GET", "/v2/a/tags/list", nil)
}

func TestBadRequestsNameTheRule(t *testing.T) {
	f := start(t, nil)
	for _, c := range []struct {
		method, path, code string
		status             int
	}{
		{"GET", "/v2/UPPER/tags/list", "NAME_INVALID", 400},
		{"GET", "/v2/a/../../etc/passwd/blobs/sha256:00", "NAME_INVALID", 400},
		{"GET", "/v2/a/blobs/sha256:00", "DIGEST_INVALID", 400},
		{"GET", "/v2/a/manifests/none", "MANIFEST_UNKNOWN", 404},
		{"POST", "/v2/a/tags/list", "UNSUPPORTED", 405},
		{"PATCH", "/v2/a/blobs/uploads/..%2f..%2fetc", "BLOB_UPLOAD_UNKNOWN", 404},
		{"GET", "/elsewhere", "NOT_FOUND", 404},
	} {
		r, _ := http.NewRequest(c.method, f.url, strings.NewReader("x"))
		r.URL.Opaque = strings.TrimPrefix(f.url, "http:") + c.path // as written, not cleaned
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != c.status || !strings.Contains(string(body), c.code) {
			t.Errorf("%s %s: %d %s, want %d %s", c.method, c.path, response.StatusCode, body, c.status, c.code)
		}
	}
}

// age makes every record and blob of the registry look as old as the collector's grace period allows,
// but for kinds of records.
func (f *fixture) age(except ...string) {
	old := time.Now().Add(-48 * time.Hour)
	err := filepath.WalkDir(f.root, func(path string, _ os.DirEntry, err error) error {
		if err != nil || slices.ContainsFunc(except, func(kind string) bool { return strings.Contains(path, kind) }) {
			return err
		}
		return os.Chtimes(path, old, old)
	})
	if err != nil {
		f.t.Fatal(err)
	}
}

func TestCollectTakesOnlyWhatNothingRefersTo(t *testing.T) {
	f := start(t, nil)
	kept := f.pushImage("app", "v1", "base", "one")
	gone := f.pushImage("app", "v2", "base", "two")
	loose := f.pushBlob("app", "pushed before its manifest")
	f.want(202, "DELETE", "/v2/app/manifests/"+string(gone), nil)
	f.age()
	fresh := f.pushBlob("app", "pushed just now")
	f.want(200, "HEAD", "/v2/app/blobs/"+string(loose.Digest), nil) // somebody asks: it is young again
	done, err := f.registry.Collect(context.Background(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if done.Blobs != 3 { // v2's manifest, config and layer
		t.Fatalf("collected %+v", done)
	}
	f.want(200, "GET", "/v2/app/manifests/"+string(kept), nil)
	for _, layer := range []string{"base", "one"} {
		f.want(200, "GET", "/v2/app/blobs/"+string(oci.DigestOf([]byte(layer))), nil)
	}
	f.want(404, "GET", "/v2/app/blobs/"+string(oci.DigestOf([]byte("two"))), nil)
	f.want(200, "GET", "/v2/app/blobs/"+string(fresh.Digest), nil)
	f.want(200, "GET", "/v2/app/blobs/"+string(loose.Digest), nil)
}

// Pushes, deletes and collections at once: whatever a tag names is whole, at any time, and when all is
// deleted all goes.
func TestCollectWhilePushing(t *testing.T) {
	f := start(t, nil)
	f.registry.refresh = 50 * time.Millisecond
	const grace = 500 * time.Millisecond // far above the time between a blob and its manifest
	var pushers sync.WaitGroup
	end := time.Now().Add(4 * grace)
	for p := range 4 {
		pushers.Go(func() {
			for i := 0; time.Now().Before(end); i++ {
				f.pushReadDelete(fmt.Sprintf("r%d", p%2), fmt.Sprintf("t%d", p), fmt.Sprintf("layer %d %d", p, i))
			}
		})
	}
	pushed := make(chan struct{})
	go func() { pushers.Wait(); close(pushed) }()
	var total Collected
	collect := func() {
		done, err := f.registry.Collect(context.Background(), grace)
		if err != nil {
			t.Fatal(err)
		}
		total.Blobs += done.Blobs
	}
	for running := true; running; {
		select {
		case <-pushed:
			running = false
		default:
			collect()
		}
	}
	if total.Blobs == 0 {
		t.Fatal("nothing was collected while pushes ran: the test shows nothing")
	}
	f.age()
	collect()
	err := f.store.WalkBlobs(context.Background(), func(d oci.Digest, _ int64, _ time.Time) error {
		return fmt.Errorf("blob %s is left", d)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) pushReadDelete(repo, tag, layer string) {
	d := f.pushImage(repo, tag, "shared", layer)
	for _, content := range []string{"shared", layer} {
		f.want(200, "GET", "/v2/"+repo+"/blobs/"+string(oci.DigestOf([]byte(content))), nil)
	}
	f.want(202, "DELETE", "/v2/"+repo+"/manifests/"+string(d), nil)
}

func TestHtpasswd(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(path, []byte("# users\nada:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	users, err := NewHtpasswd(path, true)
	if err != nil {
		t.Fatal(err)
	}
	f := start(t, users)
	header, _ := f.want(401, "GET", "/v2/", nil)
	if header.Get("WWW-Authenticate") == "" {
		t.Fatal("no challenge")
	}
	r, _ := http.NewRequest("GET", f.url+"/v2/", nil)
	for _, c := range []struct {
		user, password string
		status         int
	}{{"ada", "secret", 200}, {"ada", "secret", 200}, {"ada", "wrong", 401}, {"bob", "secret", 401}} {
		r.SetBasicAuth(c.user, c.password)
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != c.status {
			t.Errorf("%s:%s: status %d, want %d", c.user, c.password, response.StatusCode, c.status)
		}
	}
	f.want(401, "POST", "/v2/a/blobs/uploads/", nil)
	f.want(404, "GET", "/v2/a/tags/list", nil) // anonymous reading is allowed; there is nothing
}
