package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"davit/internal/proctest"
	"davit/internal/registrytest"
	"davit/oci"
	"davit/registry/cache"
	"davit/registry/storage/dir"
)

// upstreamTest is a registry behind a proxy with faults, and a cache of it.
type upstreamTest struct {
	*fixture                        // the cache
	proxy    *registrytest.Proxy    // before the upstream
	origin   *fixture               // the upstream itself
	log      *proctest.Output       // of the cache
	options  func(o *cache.Options) // of caches that are started later
}

// The upstreams that everything is tested against: an independent one, and davit's own.
var upstreamKinds = map[string]func(t *testing.T) string{
	"docker-registry": func(t *testing.T) string { return registrytest.Start(t, registrytest.Options{}) },
	"davit":           func(t *testing.T) string { return strings.TrimPrefix(start(t, nil).url, "http://") },
}

// eachUpstream runs a test with a cache of each kind of upstream.
func eachUpstream(t *testing.T, f func(t *testing.T, u *upstreamTest)) {
	for name, kind := range upstreamKinds {
		t.Run(name, func(t *testing.T) { f(t, cacheOf(t, kind(t), nil)) })
	}
}

// cacheOf starts a cache of the upstream under the name "up.example", with tags checked every time.
func cacheOf(t *testing.T, host string, options func(*cache.Options)) *upstreamTest {
	t.Helper()
	u := &upstreamTest{origin: &fixture{t: t, url: "http://" + host}, log: &proctest.Output{}, options: options}
	u.proxy = registrytest.StartProxy(t, host)
	u.startCache(t, t.TempDir())
	return u
}

// startCache starts a cache over a root, which may hold what an earlier one left.
func (u *upstreamTest) startCache(t *testing.T, root string) {
	t.Helper()
	store, err := dir.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	registry := New(store, slog.New(slog.NewTextHandler(u.log, nil)), Options{})
	registry.LimitCache(0, 0)
	o := cache.Options{
		Upstreams: []cache.Upstream{{Name: "up.example", URL: "http://" + u.proxy.Host, Prefixes: []string{"mirror"}, Hosts: []string{"up.cache.example"}, Default: true, TagTTL: 1}},
		Missing:   time.Millisecond,
	}
	if u.options != nil {
		u.options(&o)
	}
	if err := registry.UseCache(o, ""); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(registry)
	t.Cleanup(func() { registry.closeCache(); server.Close() })
	u.fixture = &fixture{t, registry, store, root, server.URL}
}

// push puts an image with the layers upstream, past the proxy.
func (u *upstreamTest) push(repo, tag string, layers ...string) oci.Digest {
	return u.origin.pushImageInTwo(repo, tag, layers...)
}

// pushImageInTwo is pushImage for registries that know no single-request upload.
func (f *fixture) pushImageInTwo(repo, tag string, layers ...string) oci.Digest {
	f.t.Helper()
	m := oci.Manifest{SchemaVersion: 2, MediaType: oci.MediaTypeManifest, Layers: []oci.Descriptor{}}
	m.Config = f.pushInTwo(repo, `{"architecture":"amd64","os":"linux","tag":"`+tag+`"}`)
	m.Config.MediaType = oci.MediaTypeConfig
	for _, layer := range layers {
		m.Layers = append(m.Layers, f.pushInTwo(repo, layer))
	}
	content, err := json.Marshal(m)
	if err != nil {
		f.t.Fatal(err)
	}
	f.want(201, "PUT", "/v2/"+repo+"/manifests/"+tag, bytes.NewReader(content), "Content-Type", oci.MediaTypeManifest)
	return oci.DigestOf(content)
}

func (f *fixture) pushInTwo(repo, content string) oci.Descriptor {
	f.t.Helper()
	d := oci.DigestOf([]byte(content))
	header, _ := f.want(202, "POST", "/v2/"+repo+"/blobs/uploads/", nil)
	location := header.Get("Location")
	separator := "?"
	if strings.Contains(location, "?") {
		separator = "&"
	}
	f.want(201, "PUT", location+separator+"digest="+string(d), strings.NewReader(content), "Content-Type", "application/octet-stream")
	return oci.Descriptor{MediaType: oci.MediaTypeLayer, Digest: d, Size: int64(len(content))}
}

func noise(size int) string {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(size)}).Read(b)
	return string(b)
}

func blobPath(repo, content string) string {
	return "/v2/" + repo + "/blobs/" + string(oci.DigestOf([]byte(content)))
}

// asked counts the requests to the upstream whose "METHOD path" holds the part.
func asked(requests []string, part string) (n int) {
	for _, r := range requests {
		if strings.Contains(r, part) {
			n++
		}
	}
	return n
}

// An image is fetched once, whichever way it is asked for, and from then on the upstream is asked about
// its tag alone.
func TestCachePullsThrough(t *testing.T) {
	eachUpstream(t, func(t *testing.T, u *upstreamTest) {
		layer := noise(300_000)
		d := u.push("team/app", "v1", layer)
		for i, way := range []struct{ repo, query, host string }{
			{"up.example/team/app", "", ""},
			{"mirror/team/app", "", ""},
			{"team/app", "?ns=up.example", ""},
			{"team/app", "", ""},
			{"team/app", "", "up.cache.example"},
		} {
			header, manifest := u.wantHost(200, way.host, "/v2/"+way.repo+"/manifests/v1"+way.query)
			if got := header.Get("Docker-Content-Digest"); got != string(d) || oci.DigestOf([]byte(manifest)) != d {
				t.Errorf("%v: manifest %s, want %s", way, got, d)
			}
			if header.Get("Warning") != "" || header.Get("Content-Type") != oci.MediaTypeManifest {
				t.Errorf("%v: headers %v", way, header)
			}
			if _, body := u.wantHost(200, way.host, blobPath(way.repo, layer)+way.query); body != layer {
				t.Errorf("%v: another layer came", way)
			}
			requests := u.proxy.Requests()
			if gets := asked(requests, "GET /v2/team"); i == 0 && gets != 2 || i > 0 && gets != 0 {
				t.Errorf("%v: the upstream saw %q", way, requests)
			}
		}
		u.want(404, "GET", "/v2/team/app/manifests/v1?ns=other.example", nil)
		if _, list := u.want(200, "GET", "/v2/up.example/team/app/tags/list", nil); !strings.Contains(list, `"v1"`) {
			t.Errorf("tags: %s", list)
		}
		u.want(405, "POST", "/v2/up.example/team/app/blobs/uploads/", nil)
		u.want(405, "POST", "/v2/mirror/team/app/blobs/uploads/", nil)
		u.want(202, "POST", "/v2/own/app/blobs/uploads/", nil)
	})
}

func (f *fixture) wantHost(status int, host, path string) (http.Header, string) {
	f.t.Helper()
	r, err := http.NewRequest("GET", f.url+path, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	r.Host = host
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		f.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != status {
		f.t.Fatalf("GET %s from %s: %d, %v, want %d: %s", path, host, response.StatusCode, err, status, body)
	}
	return response.Header, string(body)
}

// reader is a client in the middle of a blob.
type reader struct {
	body  io.ReadCloser
	leave context.CancelFunc
}

func (u *upstreamTest) open(t *testing.T, path string, headers ...string) reader {
	t.Helper()
	ctx, leave := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, "GET", u.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil || response.StatusCode/100 != 2 {
		t.Fatalf("open %s: %v %v", path, response, err)
	}
	t.Cleanup(func() { leave(); response.Body.Close() })
	return reader{response.Body, leave}
}

func (r reader) next(t *testing.T, n int) string {
	t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(r.body, b); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Fifty clients come at different times of one fetch; the first leaves. All read what the upstream has
// sent before it has sent all, and it is asked once.
func TestCacheFetchesOnceForAll(t *testing.T) {
	eachUpstream(t, func(t *testing.T, u *upstreamTest) {
		layer := noise(1 << 20)
		u.push("app", "v1", layer)
		u.want(200, "GET", "/v2/mirror/app/manifests/v1", nil)
		u.proxy.Requests()
		path, half := blobPath("mirror/app", layer), 500_000
		release := make(chan struct{})
		u.proxy.Add(registrytest.Fault{Method: "GET", Path: "/blobs/", Times: 1, HoldAt: int64(half), Hold: release})
		first := u.open(t, path)
		if first.next(t, 1000) != layer[:1000] {
			t.Fatal("other bytes came")
		}
		first.leave()
		readers := make([]reader, 50)
		for i := range readers {
			readers[i] = u.open(t, path)
			if got := readers[i].next(t, half); got != layer[:half] {
				t.Fatalf("reader %d got other bytes", i)
			}
		}
		tail := u.open(t, path, "Range", "bytes=400000-")
		if tail.next(t, 100_000) != layer[400_000:500_000] {
			t.Error("the range holds other bytes")
		}
		close(release)
		for i, r := range append(readers, tail) {
			rest, err := io.ReadAll(r.body)
			if err != nil || string(rest) != layer[half:] {
				t.Errorf("reader %d: %d bytes more, %v", i, len(rest), err)
			}
		}
		requests := u.proxy.Requests()
		if asked(requests, "/blobs/") != 1 {
			t.Errorf("the upstream saw %q", requests)
		}
		if header, _ := u.want(206, "GET", path, nil, "Range", "bytes=10-19"); header.Get("Content-Range") != fmt.Sprintf("bytes 10-19/%d", len(layer)) {
			t.Errorf("headers of a range: %v", header)
		}
	})
}

// What has another digest reaches nobody whole, is not kept, and does not stand in the way of the next.
func TestCacheOfWrongBytes(t *testing.T) {
	eachUpstream(t, func(t *testing.T, u *upstreamTest) {
		layer := noise(400_000)
		u.push("app", "v1", layer)
		u.want(200, "GET", "/v2/mirror/app/manifests/v1", nil)
		path := blobPath("mirror/app", layer)
		for _, byteRange := range []string{"", "bytes=0-9", "bytes=100-"} {
			u.proxy.Add(registrytest.Fault{Method: "GET", Path: "/blobs/", Times: 1, Corrupt: true})
			r, err := http.NewRequest("GET", u.url+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if byteRange != "" {
				r.Header.Set("Range", byteRange)
			}
			response, err := http.DefaultClient.Do(r)
			if err != nil {
				continue // cut off before it began
			}
			_, err = io.ReadAll(response.Body)
			response.Body.Close()
			if err == nil && response.StatusCode/100 == 2 {
				t.Errorf("range %q of wrong bytes was sent whole", byteRange)
			}
		}
		if u.registry.cache.Counters.Wrong.Load() != 3 {
			t.Errorf("log: %s", u.log)
		}
		if _, body := u.want(200, "GET", path, nil); body != layer {
			t.Error("the next request got other bytes")
		}
		u.proxy.Add(registrytest.Fault{Method: "GET", Path: "/manifests/", Times: 1, Corrupt: true})
		u.push("app", "v2")
		if status, _, body := u.do("GET", "/v2/mirror/app/manifests/v2", nil); status/100 == 2 {
			t.Errorf("a manifest of wrong bytes was served: %s", body)
		}
		u.want(200, "GET", "/v2/mirror/app/manifests/v2", nil)
	})
}

// Connections that break, answers of 500 and a server without ranges are mended on the way.
func TestCacheMendsBrokenFetches(t *testing.T) {
	eachUpstream(t, func(t *testing.T, u *upstreamTest) {
		layer := noise(900_000)
		u.push("app", "v1", layer)
		u.proxy.Add(registrytest.Fault{Path: "/manifests/", Times: 1, Status: 500})
		u.want(200, "GET", "/v2/mirror/app/manifests/v1", nil)
		u.proxy.Add(registrytest.Fault{Method: "GET", Path: "/blobs/", Times: 1, Status: 503})
		u.proxy.Add(registrytest.Fault{Method: "GET", Path: "/blobs/", Times: 1, Truncate: 300_000})
		u.proxy.Add(registrytest.Fault{Method: "GET", Path: "/blobs/", Times: 1, Truncate: 300_000})
		u.proxy.Sent()
		if _, body := u.want(200, "GET", blobPath("mirror/app", layer), nil); body != layer {
			t.Error("other bytes came")
		}
		if sent := u.proxy.Sent(); sent != int64(len(layer)) {
			t.Errorf("the upstream sent %d bytes of %d", sent, len(layer))
		}
	})
}

// A cache that ends in the middle of a fetch, by order or by force, goes on where it was.
func TestCacheResumesAfterRestart(t *testing.T) {
	eachUpstream(t, func(t *testing.T, u *upstreamTest) {
		layer := noise(900_000)
		u.push("app", "v1", layer)
		u.want(200, "GET", "/v2/mirror/app/manifests/v1", nil)
		path := blobPath("mirror/app", layer)
		u.proxy.Add(registrytest.Fault{Method: "GET", Path: "/blobs/", Times: 1, HoldAt: 600_000, Hold: make(chan struct{})})
		reading := u.open(t, path)
		reading.next(t, 600_000)
		u.registry.closeCache()
		if _, err := io.ReadAll(reading.body); err == nil {
			t.Error("the reader was told that it has all")
		}
		u.proxy.Sent()
		u.startCache(t, u.root)
		if _, body := u.want(200, "GET", path, nil); body != layer {
			t.Error("other bytes came")
		}
		if sent := u.proxy.Sent(); sent != 300_000 {
			t.Errorf("the upstream sent %d bytes for the rest of 300000", sent)
		}
		if left, err := filepath.Glob(filepath.Join(u.root, "uploads", "*")); err != nil || len(left) > 0 {
			t.Errorf("uploads are left: %q", left)
		}
	})
}

// The bytes that a dead process left may be damaged: then nobody gets them, and they are fetched again.
func TestCacheDistrustsWhatIsLeft(t *testing.T) {
	u := cacheOf(t, upstreamKinds["davit"](t), nil)
	layer := noise(900_000)
	u.push("app", "v1", layer)
	u.want(200, "GET", "/v2/mirror/app/manifests/v1", nil)
	path := blobPath("mirror/app", layer)
	u.proxy.Add(registrytest.Fault{Method: "GET", Path: "/blobs/", Times: 1, HoldAt: 600_000, Hold: make(chan struct{})})
	u.open(t, path).next(t, 600_000)
	u.registry.closeCache()
	left, err := filepath.Glob(filepath.Join(u.root, "uploads", "*", "data"))
	if err != nil || len(left) != 1 {
		t.Fatalf("uploads: %q, %v", left, err)
	}
	if err := os.WriteFile(left[0], []byte(strings.Repeat("torn", 100_000)), 0o600); err != nil {
		t.Fatal(err)
	}
	u.startCache(t, u.root)
	response, err := http.Get(u.url + path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(response.Body); err == nil {
		t.Error("damaged content was sent whole")
	}
	response.Body.Close()
	if _, body := u.want(200, "GET", path, nil); body != layer {
		t.Error("other bytes came")
	}
}
