package server

import (
	"bytes"
	"crypto/subtle"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"davit/internal/registrytest"
	"davit/oci"
	"davit/registry/cache"
	"davit/registry/storage"
	"davit/registry/storage/dir"
)

// A tag is believed for its time, then checked by HEAD; when it moved, the new image comes.
func TestCacheChecksTags(t *testing.T) {
	for name, kind := range upstreamKinds {
		t.Run(name, func(t *testing.T) {
			u := cacheOf(t, kind(t), func(o *cache.Options) { o.Upstreams[0].TagTTL = cache.Duration(time.Hour) })
			first := u.push("app", "v1", "one")
			path := "/v2/mirror/app/manifests/v1"
			u.want(200, "GET", path, nil)
			second := u.push("app", "v1", "two")
			u.proxy.Requests()
			header, _ := u.want(200, "GET", path, nil)
			if header.Get("Docker-Content-Digest") != string(first) || len(u.proxy.Requests()) > 0 {
				t.Errorf("a fresh tag was checked, or is %v", header)
			}
			u.age(t, "up.example/app", "v1", 2*time.Hour)
			header, _ = u.want(200, "GET", path, nil)
			if header.Get("Docker-Content-Digest") != string(second) || header.Get("Warning") != "" {
				t.Errorf("an old tag is %v", header)
			}
			u.age(t, "up.example/app", "v1", 2*time.Hour)
			u.proxy.Requests()
			u.want(200, "GET", path, nil)
			u.want(200, "GET", path, nil)
			if requests := u.proxy.Requests(); asked(requests, "HEAD") != 1 || asked(requests, "GET /v2/app") != 0 {
				t.Errorf("to check a tag the upstream was asked %q", requests)
			}
			u.want(200, "GET", "/v2/mirror/app/manifests/"+string(first), nil)
			if _, log := u.want(200, "GET", "/davit/v1/up.example/app/tags/v1/history", nil); !strings.Contains(log, "upstream up.example") {
				t.Errorf("history: %s", log)
			}
		})
	}
}

// age makes a tag's last check lie in the past.
func (u *upstreamTest) age(t *testing.T, repo, tag string, by time.Duration) {
	t.Helper()
	at := time.Now().Add(-by)
	if err := os.Chtimes(filepath.Join(u.root, "records/repo", repo, "_tags", "="+tag), at, at); err != nil {
		t.Fatal(err)
	}
}

// While the upstream is down, slow, broken or refuses, what is cached is served and said to be stale; what
// is not cached is refused with a time to wait.
func TestCacheServesStale(t *testing.T) {
	for name, fault := range map[string]registrytest.Fault{
		"500":             {Status: 500},
		"hangs":           {Stall: true},
		"hangs when read": {Method: "GET", Stall: true},
		"refuses":         {Status: 403},
		"limits":          {Status: 429, Header: http.Header{"Retry-After": {"600"}}},
	} {
		t.Run(name, func(t *testing.T) {
			u := cacheOf(t, upstreamKinds["davit"](t), func(o *cache.Options) { o.Impatience = 200 * time.Millisecond })
			d := u.push("app", "v1", "one")
			u.want(200, "GET", "/v2/mirror/app/manifests/v1", nil)
			u.want(200, "GET", blobPath("mirror/app", "one"), nil)
			u.push("app", "v1", "two")
			fault.Times = 1000
			u.proxy.Add(fault)
			u.wantStale(t, d)
			if _, tags := u.want(200, "GET", "/v2/mirror/app/tags/list", nil); !strings.Contains(tags, "v1") {
				t.Errorf("tags: %s", tags)
			}
		})
	}
	t.Run("down", func(t *testing.T) {
		u := cacheOf(t, "127.0.0.1:1", func(o *cache.Options) { o.Upstreams[0].URL = "http://127.0.0.1:1" })
		u.origin = u.fixture
		if header, body := u.want(503, "GET", "/v2/mirror/app/manifests/v1", nil); !strings.Contains(body, "cannot be reached") || header.Get("Retry-After") == "" {
			t.Errorf("what is not cached: %v %s", header, body)
		}
	})
}

func (u *upstreamTest) wantStale(t *testing.T, d oci.Digest) {
	t.Helper()
	for range 3 {
		header, _ := u.want(200, "GET", "/v2/mirror/app/manifests/v1", nil)
		if header.Get("Docker-Content-Digest") != string(d) || !strings.HasPrefix(header.Get("Warning"), "110 ") {
			t.Errorf("stale manifest: %v", header)
		}
	}
	u.want(200, "GET", blobPath("mirror/app", "one"), nil)
	if log := u.log.String(); !strings.Contains(log, "serving what is cached without a check") || !strings.Contains(log, "name=v1") {
		t.Errorf("log: %s", log)
	}
}

// An upstream that was killed is stale, comes back, and is fresh again.
func TestCacheOutlivesItsUpstream(t *testing.T) {
	origin := start(t, nil)
	var down atomic.Bool
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if down.Load() {
			panic(http.ErrAbortHandler)
		}
		origin.registry.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	u := cacheOf(t, strings.TrimPrefix(front.URL, "http://"), nil)
	first := u.push("app", "v1", "one")
	u.want(200, "GET", "/v2/mirror/app/manifests/v1", nil)
	u.want(200, "GET", blobPath("mirror/app", "one"), nil)
	second := u.push("app", "v1", "two")
	down.Store(true)
	u.wantStale(t, first)
	down.Store(false)
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(50 * time.Millisecond) {
		header, _ := u.want(200, "GET", "/v2/mirror/app/manifests/v1", nil)
		if header.Get("Docker-Content-Digest") == string(second) && header.Get("Warning") == "" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the upstream is back, and the answer is %v\n%s", header, u.log)
		}
	}
}

// An upstream that says 429 is not asked again before its time, by anybody; one with little allowance left
// is asked only for what is not cached.
func TestCacheHeedsLimits(t *testing.T) {
	u := cacheOf(t, upstreamKinds["davit"](t), nil)
	u.push("app", "v1", "one")
	u.push("app", "v2", "two")
	u.want(200, "GET", "/v2/mirror/app/manifests/v1", nil)
	u.proxy.Requests()
	u.proxy.Add(registrytest.Fault{Times: 1000, Status: 429, Header: http.Header{"Retry-After": {"120"}}})
	for range 5 {
		header, body := u.want(429, "GET", "/v2/mirror/app/manifests/v2", nil)
		if wait := header.Get("Retry-After"); wait < "110" || wait > "120" || !strings.Contains(body, "TOOMANYREQUESTS") {
			t.Errorf("Retry-After %q: %s", wait, body)
		}
		u.want(200, "GET", "/v2/mirror/app/manifests/v1", nil)
	}
	if requests := u.proxy.Requests(); len(requests) != 1 {
		t.Errorf("the upstream saw %q", requests)
	}

	origin := start(t, nil)
	var seen atomic.Int64
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen.Add(1)
		w.Header().Set("RateLimit-Limit", "100;w=21600")
		w.Header().Set("RateLimit-Remaining", "9;w=21600")
		origin.registry.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	u = cacheOf(t, strings.TrimPrefix(front.URL, "http://"), nil)
	u.push("app", "v1", "one")
	u.push("app", "v2", "two")
	u.want(200, "GET", "/v2/mirror/app/manifests/v1", nil)
	before := seen.Load()
	if header, _ := u.want(200, "GET", "/v2/mirror/app/manifests/v1", nil); header.Get("Warning") == "" || seen.Load() != before {
		t.Error("the upstream was asked about what is cached")
	}
	u.want(200, "GET", "/v2/mirror/app/manifests/v2", nil)
}

// What the upstream does not have it is asked for once in a while only.
func TestCacheRemembersWhatIsMissing(t *testing.T) {
	eachUpstream(t, func(t *testing.T, u *upstreamTest) {
		u.options = func(o *cache.Options) { o.Missing = time.Hour }
		u.startCache(t, t.TempDir())
		u.push("app", "v1", "one")
		for range 3 {
			u.want(404, "GET", "/v2/mirror/app/manifests/none", nil)
			u.want(404, "GET", blobPath("mirror/app", "none"), nil)
			u.want(404, "GET", "/v2/mirror/app/manifests/"+string(oci.DigestOf(nil)), nil)
		}
		if requests := u.proxy.Requests(); asked(requests, "/app/") != 3 {
			t.Errorf("the upstream saw %q", requests)
		}
	})
}

// The cache logs in where its configuration has credentials, and its clients see none of that.
func TestCacheLogsIn(t *testing.T) {
	users := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(users, []byte("ada:"+hashed(t, "secret")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	rules := filepath.Join(t.TempDir(), "rules.json")
	if err := os.WriteFile(rules, []byte(`{"htpasswd": "`+users+`", "rules": [{"name": "ada", "repositories": ["*"], "users": ["ada"], "actions": ["admin"]}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	policy, err := NewPolicy(rules, newKey(), discarded())
	if err != nil {
		t.Fatal(err)
	}
	basic, err := NewHtpasswd(users, false)
	if err != nil {
		t.Fatal(err)
	}
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, auth := range map[string]Authorizer{"bearer": policy, "basic": basic} {
		t.Run(name, func(t *testing.T) {
			origin := start(t, nil)
			origin.pushImage("app", "v1", "one")
			guarded := httptest.NewServer(New(origin.store, discarded(), Options{Auth: auth}))
			t.Cleanup(guarded.Close)
			login := func(o *cache.Options) {
				o.Upstreams[0].Username, o.Upstreams[0].PasswordFile = "ada", password
			}
			u := cacheOf(t, strings.TrimPrefix(guarded.URL, "http://"), login)
			u.want(200, "GET", "/v2/mirror/app/manifests/v1", nil)
			u.want(200, "GET", blobPath("mirror/app", "one"), nil)
			stranger := cacheOf(t, strings.TrimPrefix(guarded.URL, "http://"), nil)
			stranger.want(404, "GET", "/v2/mirror/app/manifests/v1", nil)
		})
	}
}

// The rules of the registry speak of a copy by its full name, however it is asked for.
func TestRulesOfCopies(t *testing.T) {
	origin := start(t, nil)
	origin.pushImage("team/app", "v1", "one")
	rules := filepath.Join(t.TempDir(), "rules.json")
	content := `{"rules": [{"name": "copies", "repositories": ["up.example/team/*"], "users": ["anonymous"], "actions": ["pull"]}],
		"upstreams": [{"name": "up.example", "url": "` + origin.url + `", "prefixes": ["mirror"], "tagTTL": "1h"}]}`
	if err := os.WriteFile(rules, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	registry, err := open(t.Context(), Config{Root: t.TempDir(), Rules: rules}, discarded())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(registry.closeCache)
	server := httptest.NewServer(registry)
	t.Cleanup(server.Close)
	f := &fixture{t: t, registry: registry, url: server.URL}
	_, token := f.want(200, "GET", "/token?scope=repository:team/app:pull", nil)
	token = token[strings.Index(token, `"token":"`)+len(`"token":"`):]
	token = token[:strings.IndexByte(token, '"')]
	f.want(200, "GET", "/v2/mirror/team/app/manifests/v1", nil)
	f.want(200, "GET", "/v2/team/app/manifests/v1?ns=up.example", nil, "Authorization", "Bearer "+token)
	f.want(401, "GET", "/v2/mirror/other/app/manifests/v1", nil)
	f.want(401, "GET", "/v2/other/app/manifests/v1?ns=up.example", nil, "Authorization", "Bearer "+token)

	for _, change := range []struct {
		from, to string
		works    string
	}{
		{`"mirror"`, `"moved"`, "moved"},
		{`"up.example", "url"`, `"not a host", "url"`, "moved"}, // a mistake changes nothing
	} {
		content = strings.Replace(content, change.from, change.to, 1)
		if err := os.WriteFile(rules, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		policy := registry.auth.(*Policy)
		state := *policy.state.Load()
		state.looked, state.changed = time.Time{}, time.Time{}
		policy.state.Store(&state)
		f.want(401, "GET", "/v2/", nil) // a request sees that the file changed, the next is answered by it
		f.want(200, "GET", "/v2/"+change.works+"/team/app/tags/list", nil)
	}
	f.want(401, "GET", "/v2/mirror/team/app/manifests/v1", nil)
}

// The example's file says what it means to.
func TestExampleOfCache(t *testing.T) {
	content, err := os.ReadFile("../../examples/registry-cache/cache.json")
	if err != nil {
		t.Fatal(err)
	}
	password := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(password, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	rules := filepath.Join(t.TempDir(), "cache.json")
	content = bytes.Replace(content, []byte("/etc/davit/hub.token"), []byte(password), 1)
	if err := os.WriteFile(rules, content, 0o600); err != nil {
		t.Fatal(err)
	}
	registry, err := open(t.Context(), Config{Root: t.TempDir(), Rules: rules}, discarded())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(registry.closeCache)
	for request, want := range map[string]string{
		"http://c/v2/dockerhub/nginx/manifests/1":                               "docker.io/library/nginx",
		"http://c/v2/nginx/manifests/1":                                         "docker.io/library/nginx",
		"http://c/v2/bitnami/nginx/manifests/1?ns=docker.io":                    "docker.io/bitnami/nginx",
		"http://c:5000/v2/quay.io/a/b/manifests/1":                              "quay.io/a/b",
		"http://c/v2/a/b/manifests/1?ns=quay.io":                                "quay.io/a/b",
		"http://ghcr.cache.example:5000/v2/a/b/manifests/1":                     "ghcr.io/a/b",
		"http://c/v2/registry.example_5000/a/manifests/1":                       "registry.example_5000/a",
		"http://ghcr.cache.example/v2/a/manifests/1?ns=registry.example%3A5000": "registry.example_5000/a",
		"http://c/v2/a/b/manifests/1?ns=gcr.io":                                 "",
	} {
		r := httptest.NewRequest("GET", request, nil)
		route, name, _, _ := parse(r.URL.Path)
		if target, _ := registry.target(route, r, name); target.Name != want {
			t.Errorf("%s is about %q, want %q", request, target.Name, want)
		}
	}
	for mistake, want := range map[string]string{
		`"quay.io"}`:               `"quay.io", "default": true}`,
		`"quay.io"},`:              `"quay.io", "prefixes": ["dockerhub"]},`,
		`"passwordFile"`:           `"password": "x", "passwordFile"`,
		`"30s"`:                    `30`,
		`"tagTTL": "30s"`:          `"tagttll": "30s"`,
		`"http://10.0.0.5:5000"`:   `"10.0.0.5:5000"`,
		`"name": "docker.io"`:      `"name": "docker.io/library"`,
		`"prefixes": ["dockerhub"`: `"prefixes": ["Hub"`,
	} {
		if err := os.WriteFile(rules, bytes.Replace(content, []byte(mistake), []byte(want), 1), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := open(t.Context(), Config{Root: t.TempDir(), Rules: rules}, discarded()); err == nil {
			t.Errorf("%s is taken", want)
		}
	}
}

// A store whose uploads cannot be read, as that of a bucket, gets what arrived in a directory.
func TestCacheBesideItsStore(t *testing.T) {
	origin := start(t, nil)
	layer := noise(600_000)
	origin.pushImage("app", "v1", layer)
	store, err := dir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	arrivals := t.TempDir()
	registry := New(struct{ storage.Store }{store}, discarded(), Options{})
	if err := registry.UseCache(cache.Options{Upstreams: []cache.Upstream{{Name: "up.example", URL: origin.url}}}, arrivals); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(registry.closeCache)
	server := httptest.NewServer(registry)
	t.Cleanup(server.Close)
	f := &fixture{t: t, registry: registry, store: store, url: server.URL}
	for range 2 {
		if _, body := f.want(200, "GET", blobPath("up.example/app", layer), nil); body != layer {
			t.Error("other bytes came")
		}
	}
	if _, err := store.StatBlob(t.Context(), oci.DigestOf([]byte(layer))); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(filepath.Join(arrivals, "blobs/sha256/*")); err != nil || len(left) > 0 {
		t.Errorf("left where content arrives: %q", left)
	}
}

// A cache keeps to its size and age: what was used last stays, and what the registry itself holds.
func TestEviction(t *testing.T) {
	u := cacheOf(t, upstreamKinds["davit"](t), nil)
	layers := []string{noise(100_000), noise(100_001), noise(100_002), noise(100_003)}
	u.push("app", "v1", layers...)
	u.want(200, "GET", "/v2/mirror/app/manifests/v1", nil)
	for i, layer := range layers {
		u.want(200, "GET", blobPath("mirror/app", layer), nil)
		at := time.Now().Add(-time.Duration(10-i) * time.Hour)
		link := filepath.Join(u.root, "records/repo/up.example/app/_blobs", "="+dashed(oci.DigestOf([]byte(layer))))
		if err := os.Chtimes(link, at, at); err != nil {
			t.Fatal(err)
		}
	}
	u.pushBlob("own/app", layers[0])
	u.want(200, "GET", blobPath("mirror/app", layers[1]), nil) // makes it the one used last
	u.registry.LimitCache(250_000, 0)
	done, err := u.registry.Evict(t.Context())
	if err != nil || done.Blobs != 1 || done.Bytes != 100_002 {
		t.Errorf("evicted %+v, %v", done, err)
	}
	u.proxy.Requests()
	u.want(200, "GET", blobPath("mirror/app", layers[1]), nil)
	u.want(200, "GET", blobPath("mirror/app", layers[3]), nil)
	u.want(200, "GET", blobPath("own/app", layers[0]), nil)
	if requests := u.proxy.Requests(); len(requests) > 0 {
		t.Errorf("the upstream saw %q", requests)
	}
	u.want(200, "GET", blobPath("mirror/app", layers[2]), nil) // comes again
	u.registry.LimitCache(0, time.Nanosecond)
	if done, err = u.registry.Evict(t.Context()); err != nil || done.Manifests != 1 || done.Blobs != 3 {
		t.Errorf("of what is old, evicted %+v, %v", done, err)
	}
	if _, err := u.registry.repository("up.example/app").tag(t.Context(), "v1"); err == nil {
		t.Error("the tag of an evicted manifest is there")
	}
	u.want(200, "GET", blobPath("own/app", layers[0]), nil)
	u.want(200, "GET", "/v2/mirror/app/manifests/v1", nil)
}

// Clients come and go and the cache evicts all it can meanwhile: nobody gets anything but an image's bytes.
func TestEvictionWhileServing(t *testing.T) {
	u := cacheOf(t, upstreamKinds["davit"](t), nil)
	layers := []string{noise(50_000), noise(50_001), noise(50_002)}
	u.push("app", "v1", layers...)
	u.registry.LimitCache(1, 0)
	stop := make(chan struct{})
	var evicting, pulling sync.WaitGroup
	evicting.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := u.registry.Evict(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
	for range 4 {
		pulling.Go(func() {
			for range 15 {
				for _, layer := range layers {
					if response, err := http.Get(u.url + blobPath("mirror/app", layer)); err != nil {
						t.Error(err)
					} else {
						body, err := io.ReadAll(response.Body)
						response.Body.Close()
						if response.StatusCode == 200 && (err != nil || subtle.ConstantTimeCompare(body, []byte(layer)) != 1) {
							t.Errorf("%d bytes, %v", len(body), err)
						}
						if response.StatusCode != 200 && response.StatusCode != 404 { // gone between fetch and sending
							t.Errorf("%d: %s", response.StatusCode, body)
						}
					}
				}
			}
		})
	}
	pulling.Wait()
	close(stop)
	evicting.Wait()
	if t.Failed() {
		t.Logf("log: %s", u.log)
	}
}

func discarded() *slog.Logger { return slog.New(slog.DiscardHandler) }

func hashed(t *testing.T, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(hash)
}
