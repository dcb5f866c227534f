package web_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"davit/oci"
	"davit/registry/server"
)

// Whatever address is asked for, the registry has an answer of its own: no failure inside, no panic, nothing
// but pages and our own files.
func FuzzAddress(f *testing.F) {
	for _, seed := range []string{
		"/", "/?q=a&page=2", "/login?back=//x", "/login/begin", "/login/callback?code=x&state=y", "/login?password", "/account", "/account/make", "/static/style.css", "/static/", "/static/../web.go", "/r/", "/r/app", "/r/app/", "/r/app?sort=name&page=-1",
		"/r/app/-/tag/v1", "/r/app/-/tag/v1?page=9", "/r/app/-/tag/", "/r/app/-/manifest/sha256:00", "/r/app/-/files/DIGEST?path=etc", "/r/app/-/files/DIGEST?path=../..",
		"/r/app/-/diff?from=v1&to=v1&page=3", "/r/app/-/diff?from=v1&to=DIGEST&platform=x", "/r/app/-/rollback", "/r/-/-/tag/x", "/r/a/-/b/-/c", "/r/app?deleted=1",
	} {
		f.Add(seed)
	}
	registry := start(f, server.Options{})
	d := registry.pushImage("app", "v1", oci.Image{}, layer(f, "etc/motd=x"))
	f.Fuzz(func(t *testing.T, address string) {
		u, err := url.Parse(strings.ReplaceAll(address, "DIGEST", string(d.Digest)))
		if err != nil || u.Path == "" || u.Host != "" {
			return
		}
		path, query, _ := strings.Cut(u.RequestURI(), "?")
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL = &url.URL{Path: u.Path, RawPath: path, RawQuery: query}
		w := httptest.NewRecorder()
		registry.handler.ServeHTTP(w, r)
		if w.Code >= 500 {
			t.Fatalf("GET %q: status %d: %s", address, w.Code, w.Body)
		}
	})
}
