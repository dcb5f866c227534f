package client_test

import (
	"bytes"
	"context"
	"errors"
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

	"golang.org/x/crypto/bcrypt"

	"davit/internal/registrytest"
	"davit/oci"
	"davit/oci/errdefs"
	"davit/oci/ref"
	"davit/registry/auth"
	"davit/registry/client"
	"davit/registry/server"
	"davit/registry/storage/dir"
)

func newClient(t *testing.T, o client.Options) *client.Client {
	t.Helper()
	o.Backoff = time.Millisecond
	c, err := client.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func repository(t *testing.T, c *client.Client, name string, creds auth.Credentials) *client.Repository {
	t.Helper()
	r, err := ref.Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	repo, err := c.Repository(r, creds)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(repo.Close)
	return repo
}

func randomBytes(n int) []byte {
	source := rand.NewChaCha8([32]byte{7})
	b := make([]byte, n)
	source.Read(b)
	return b
}

func opener(b []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
}

func blobOf(b []byte) oci.Descriptor {
	return oci.Descriptor{MediaType: oci.MediaTypeLayer, Digest: oci.DigestOf(b), Size: int64(len(b))}
}

func upload(t *testing.T, repo *client.Repository, b []byte) oci.Descriptor {
	t.Helper()
	desc, err := repo.Upload(t.Context(), blobOf(b), opener(b))
	if err != nil {
		t.Fatal(err)
	}
	return desc
}

func fetch(ctx context.Context, repo *client.Repository, desc oci.Descriptor, offset int64) ([]byte, error) {
	r, err := repo.Fetch(ctx, desc, offset)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func pushImage(t *testing.T, repo *client.Repository, tag string) (oci.Descriptor, []byte) {
	t.Helper()
	config := upload(t, repo, []byte("{}"))
	m := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[]}`,
		oci.MediaTypeManifest, oci.MediaTypeConfig, config.Digest, config.Size)
	desc := oci.Descriptor{MediaType: oci.MediaTypeManifest, Digest: oci.DigestOf([]byte(m)), Size: int64(len(m))}
	if err := repo.PutManifest(t.Context(), tag, desc, []byte(m)); err != nil {
		t.Fatal(err)
	}
	return desc, []byte(m)
}

// own runs davit's registry until the test ends.
func own(t *testing.T) string {
	t.Helper()
	store, err := dir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(server.New(store, slog.New(slog.DiscardHandler), server.Options{}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func TestRoundTrip(t *testing.T) {
	t.Run("docker-registry", func(t *testing.T) { roundTrip(t, registrytest.Start(t, registrytest.Options{})) })
	t.Run("davit", func(t *testing.T) { roundTrip(t, own(t)) })
}

func roundTrip(t *testing.T, host string) {
	c := newClient(t, client.Options{})
	repo := repository(t, c, host+"/a/b", auth.Credentials{})
	data := randomBytes(3 << 20)

	if has, err := repo.Has(t.Context(), blobOf(data)); err != nil || has {
		t.Fatalf("Has before upload = %v, %v", has, err)
	}
	upload(t, repo, data)
	if has, err := repo.Has(t.Context(), blobOf(data)); err != nil || !has {
		t.Fatalf("Has after upload = %v, %v", has, err)
	}
	for _, offset := range []int64{0, 1, 1 << 20, int64(len(data))} {
		got, err := fetch(t.Context(), repo, blobOf(data), offset)
		if err != nil || !bytes.Equal(got, data[offset:]) {
			t.Errorf("fetch from %d: %d bytes, %v", offset, len(got), err)
		}
	}

	streamed := randomBytes(1<<20 + 17)
	got, err := repo.Upload(t.Context(), oci.Descriptor{MediaType: oci.MediaTypeLayer}, opener(streamed))
	if err != nil || got.Digest != oci.DigestOf(streamed) || got.Size != int64(len(streamed)) {
		t.Fatalf("streamed upload = %+v, %v", got, err)
	}

	other := repository(t, c, host+"/other", auth.Credentials{})
	from, _ := ref.Parse(host + "/a/b")
	if mounted, err := other.Mount(t.Context(), blobOf(data), from); err != nil || !mounted {
		t.Errorf("Mount = %v, %v", mounted, err)
	}
	if mounted, err := other.Mount(t.Context(), blobOf([]byte("nowhere")), from); err != nil || mounted {
		t.Errorf("Mount of a missing blob = %v, %v", mounted, err)
	}

	desc, manifest := pushImage(t, repo, "v1")
	for _, name := range []string{"v1", string(desc.Digest)} {
		got, err := repo.Resolve(t.Context(), name)
		if err != nil || got.Digest != desc.Digest || got.Size != desc.Size || got.MediaType != desc.MediaType {
			t.Errorf("Resolve(%s) = %+v, %v", name, got, err)
		}
	}
	if got, err := fetch(t.Context(), repo, desc, 0); err != nil || !bytes.Equal(got, manifest) {
		t.Errorf("fetch manifest = %q, %v", got, err)
	}
	if tags, err := repo.Tags(t.Context()); err != nil || strings.Join(tags, " ") != "v1" {
		t.Errorf("Tags = %v, %v", tags, err)
	}
	if list, err := repo.Catalog(t.Context()); err != nil || strings.Join(list, " ") != "a/b other" {
		t.Errorf("Catalog = %v, %v", list, err)
	}
}

func TestMissing(t *testing.T) {
	host := registrytest.Start(t, registrytest.Options{})
	repo := repository(t, newClient(t, client.Options{}), host+"/none", auth.Credentials{})
	_, err := repo.Resolve(t.Context(), "latest")
	want := "manifest for " + host + "/none:latest not found: manifest unknown: manifest unknown"
	if !errors.Is(err, errdefs.ErrNotFound) || err.Error() != want {
		t.Errorf("Resolve = %v, want %s", err, want)
	}
	if _, err := fetch(t.Context(), repo, blobOf([]byte("x")), 0); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("Fetch = %v", err)
	}
}

func TestUnreachable(t *testing.T) {
	repo := repository(t, newClient(t, client.Options{}), "127.0.0.1:1/none", auth.Credentials{})
	_, err := repo.Resolve(t.Context(), "latest")
	if !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(err.Error(), "registry 127.0.0.1:1 cannot be reached") {
		t.Errorf("Resolve = %v", err)
	}
}

// TestResume counts bytes: a blob whose connection breaks goes over the wire once, not once per break.
func TestResume(t *testing.T) {
	host := registrytest.Start(t, registrytest.Options{})
	data := randomBytes(4 << 20)
	c := newClient(t, client.Options{IdleTimeout: 300 * time.Millisecond})
	upload(t, repository(t, c, host+"/blob", auth.Credentials{}), data)

	cases := map[string]struct {
		fault registrytest.Fault
		extra int64 // bytes that may come twice
	}{
		"truncated":   {registrytest.Fault{Truncate: 1 << 20, Times: 3}, 256 << 10},
		"unavailable": {registrytest.Fault{Status: 503, Times: 3}, 0},
		"too many":    {registrytest.Fault{Status: 429, Header: http.Header{"Retry-After": {"1"}}, Times: 1}, 0},
		"stalled":     {registrytest.Fault{Stall: true, Times: 2}, 2},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			proxy := registrytest.StartProxy(t, host)
			test.fault.Path = "/blobs/"
			proxy.Add(test.fault)
			repo := repository(t, c, proxy.Host+"/blob", auth.Credentials{})
			got, err := fetch(t.Context(), repo, blobOf(data), 0)
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("fetch: %d bytes, %v", len(got), err)
			}
			if sent := proxy.Sent(); sent < int64(len(data)) || sent > int64(len(data))+test.extra {
				t.Errorf("%d bytes went over the wire for a blob of %d", sent, len(data))
			}
		})
	}
	t.Run("range ignored", func(t *testing.T) {
		proxy := registrytest.StartProxy(t, host)
		proxy.Add(registrytest.Fault{Path: "/blobs/", NoRange: true, Times: 1})
		repo := repository(t, c, proxy.Host+"/blob", auth.Credentials{})
		if got, err := fetch(t.Context(), repo, blobOf(data), 1000); err != nil || !bytes.Equal(got, data[1000:]) {
			t.Errorf("fetch: %d bytes, %v", len(got), err)
		}
	})
	t.Run("given up", func(t *testing.T) {
		proxy := registrytest.StartProxy(t, host)
		proxy.Add(registrytest.Fault{Path: "/blobs/", Truncate: 1, Times: 1000})
		repo := repository(t, c, proxy.Host+"/blob", auth.Credentials{})
		_, err := fetch(t.Context(), repo, blobOf(data), 0)
		if !errors.Is(err, io.ErrUnexpectedEOF) || !errors.Is(err, errdefs.ErrUnavailable) {
			t.Errorf("fetch = %v", err)
		}
	})
}

func TestRetries(t *testing.T) {
	host := registrytest.Start(t, registrytest.Options{})
	c := newClient(t, client.Options{})
	proxy := registrytest.StartProxy(t, host)
	repo := repository(t, c, proxy.Host+"/x", auth.Credentials{})
	for _, method := range []string{"POST", "PUT", "HEAD"} {
		proxy.Add(registrytest.Fault{Method: method, Path: "/x/", Status: 502, Times: 2})
	}
	desc, _ := pushImage(t, repo, "latest")
	if got, err := repo.Resolve(t.Context(), "latest"); err != nil || got.Digest != desc.Digest {
		t.Errorf("Resolve = %+v, %v", got, err)
	}
	proxy.Add(registrytest.Fault{Method: "GET", Path: "/manifests/", Corrupt: true, Times: 1})
	if _, err := fetch(t.Context(), repo, desc, 0); !errors.Is(err, errdefs.ErrDataLoss) {
		t.Errorf("fetch of a changed manifest = %v", err)
	}
}

func TestBasic(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(path, []byte("joe:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	host := registrytest.Start(t, registrytest.Options{Auth: "auth:\n  htpasswd: {realm: r, path: " + path + "}\n"})
	c := newClient(t, client.Options{})
	good := auth.Credentials{Username: "joe", Password: "secret", ServerAddress: host}

	pushImage(t, repository(t, c, host+"/x", good), "latest")
	if _, err := c.Login(t.Context(), good); err != nil {
		t.Errorf("Login = %v", err)
	}
	bad := good
	bad.Password = "wrong"
	if _, err := c.Login(t.Context(), bad); !errors.Is(err, errdefs.ErrUnauthorized) {
		t.Errorf("Login with a wrong password = %v", err)
	}
	_, err = repository(t, c, host+"/x", auth.Credentials{}).Resolve(t.Context(), "latest")
	want := "pull access denied for " + host + "/x, repository does not exist or may require 'docker login': no basic auth credentials"
	if err == nil || err.Error() != want {
		t.Errorf("Resolve without credentials = %v, want %s", err, want)
	}
	_, err = repository(t, c, host+"/x", bad).Upload(t.Context(), blobOf([]byte("x")), opener([]byte("x")))
	if !errors.Is(err, errdefs.ErrUnauthorized) || !strings.HasPrefix(err.Error(), "push access denied for "+host+"/x") {
		t.Errorf("Upload with a wrong password = %v", err)
	}
}

// TestMirror pulls through a mirror, and past one that is down or has no such image.
func TestMirror(t *testing.T) {
	origin, mirror := registrytest.Start(t, registrytest.Options{}), registrytest.Start(t, registrytest.Options{})
	proxy := registrytest.StartProxy(t, mirror)
	direct := newClient(t, client.Options{})
	desc, _ := pushImage(t, repository(t, direct, origin+"/x", auth.Credentials{}), "latest")
	pushImage(t, repository(t, direct, mirror+"/x", auth.Credentials{}), "latest")
	pushImage(t, repository(t, direct, origin+"/only", auth.Credentials{}), "latest")

	c := newClient(t, client.Options{Mirrors: map[string][]string{origin: {"http://127.0.0.1:1", "http://" + proxy.Host}}})
	for _, path := range []string{"x", "only"} {
		repo := repository(t, c, origin+"/"+path, auth.Credentials{})
		if got, err := repo.Resolve(t.Context(), "latest"); err != nil || got.Digest != desc.Digest {
			t.Errorf("Resolve(%s) = %+v, %v", path, got, err)
		}
		if _, err := fetch(t.Context(), repo, desc, 0); err != nil {
			t.Errorf("Fetch(%s) = %v", path, err)
		}
	}
	if len(proxy.Requests()) < 4 {
		t.Error("the mirror was not asked")
	}
}

// TestRedirect checks that another host sees no credentials.
func TestRedirect(t *testing.T) {
	data := []byte("somewhere else")
	leaked := make(chan string, 1)
	storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		leaked <- r.Header.Get("Authorization")
		w.Write(data)
	}))
	defer storage.Close()
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		http.Redirect(w, r, storage.URL+"/blob", http.StatusTemporaryRedirect)
	}))
	defer registry.Close()
	repo := repository(t, newClient(t, client.Options{}), strings.TrimPrefix(registry.URL, "http://")+"/x", auth.Credentials{Username: "u", Password: "secret"})
	got, err := fetch(t.Context(), repo, blobOf(data), 0)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("fetch = %q, %v", got, err)
	}
	if header := <-leaked; header != "" {
		t.Errorf("the storage host saw %q", header)
	}
}

// TestMediaTypes serves manifests with the headers of less careful registries.
func TestMediaTypes(t *testing.T) {
	cases := map[string]struct {
		header, body, want string // want: a media type; empty: refused
	}{
		"schema 1":       {"application/vnd.docker.distribution.manifest.v1+prettyjws", `{"schemaVersion":1}`, ""},
		"schema 1, text": {"text/plain", `{"schemaVersion":1}`, ""},
		"text":           {"text/plain", `{"schemaVersion":2,"mediaType":"` + oci.MediaTypeDockerManifest + `"}`, oci.MediaTypeDockerManifest},
		"bare index":     {"application/json", `{"schemaVersion":2,"manifests":[]}`, oci.MediaTypeIndex},
		"bare manifest":  {"application/json", `{"schemaVersion":2,"config":{}}`, oci.MediaTypeManifest},
		"parameters":     {oci.MediaTypeManifest + "; charset=utf-8", `{}`, oci.MediaTypeManifest},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", c.header)
				io.WriteString(w, c.body)
			}))
			defer registry.Close()
			repo := repository(t, newClient(t, client.Options{}), strings.TrimPrefix(registry.URL, "http://")+"/old", auth.Credentials{})
			desc, err := repo.Resolve(t.Context(), "latest")
			if c.want == "" {
				if !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), "schema 1") {
					t.Errorf("Resolve = %v", err)
				}
			} else if err != nil || desc.MediaType != c.want || desc.Digest != oci.DigestOf([]byte(c.body)) {
				t.Errorf("Resolve = %+v, %v", desc, err)
			}
		})
	}
}
