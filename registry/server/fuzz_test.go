package server

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"davit/oci"
	"davit/registry/storage/dir"
)

// Whatever comes, a registry has an answer that is not its own trouble, says errors in the specification's
// form, serves nothing that does not match its digest, and writes nowhere but below its root.
func FuzzRequest(f *testing.F) {
	parent := f.TempDir()
	store, err := dir.Open(filepath.Join(parent, "root"))
	if err != nil {
		f.Fatal(err)
	}
	registry := New(store, slog.New(slog.DiscardHandler), Options{})
	layer, config := []byte("layer"), []byte(`{"architecture":"amd64","os":"linux"}`)
	manifest, err := json.Marshal(oci.Manifest{
		SchemaVersion: 2, MediaType: oci.MediaTypeManifest,
		Config: oci.Descriptor{MediaType: oci.MediaTypeConfig, Digest: oci.DigestOf(config), Size: int64(len(config))},
		Layers: []oci.Descriptor{{MediaType: oci.MediaTypeLayer, Digest: oci.DigestOf(layer), Size: int64(len(layer))}},
	})
	if err != nil {
		f.Fatal(err)
	}
	for _, blob := range [][]byte{layer, config} {
		f.Add("POST", "/v2/app/blobs/uploads/", "digest="+string(oci.DigestOf(blob)), "", "", blob)
	}
	f.Add("PUT", "/v2/app/manifests/v1", "", oci.MediaTypeManifest, "", manifest)
	f.Add("PUT", "/v2/app/manifests/"+string(oci.DigestOf(manifest)), "tag=v2&tag=v3", oci.MediaTypeManifest, "", manifest)
	f.Add("PUT", "/v2/app/manifests/index", "", oci.MediaTypeIndex, "", []byte(`{"schemaVersion":2,"manifests":[],"subject":{"digest":"sha256:x"}}`))
	f.Add("POST", "/v2/app/blobs/uploads/", "mount="+string(oci.DigestOf(layer))+"&from=app", "", "", []byte{})
	f.Add("PATCH", "/v2/app/blobs/uploads/../../x", "", "", "0-4", layer)
	f.Add("PUT", "/v2/app/blobs/uploads/x", "digest=sha512:0", "", "bytes 0-4/5", layer)
	f.Add("GET", "/v2/app/blobs/"+string(oci.DigestOf(layer)), "", "", "bytes=1-2,4-", []byte{})
	f.Add("POST", "/davit/v1/app/tags/v1/rollback", "digest="+string(oci.DigestOf(manifest)), "", "", []byte{})
	f.Add("GET", "/davit/v1/app/delta/"+string(oci.DigestOf(layer)), "have=sha256:x&most=900", "", "", []byte{})
	for _, path := range []string{
		"/v2/", "/v2/_catalog", "/v2/app/tags/list", "/v2/app/referrers/sha256:x", "/v2/../../etc/passwd", "/v2//tags/list",
		"/davit/v1/app/history", "/davit/v1/app/tags/v1/history", "/davit/v1/app/quota", "/davit/v1/app/retention", "/davit/v1/signin",
		"/", "/r/app", "/r/app/v1", "/login", "/account", "/static/../x", "/token", "/metrics", "/healthz", "/readyz",
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "DELETE", "BREW"} {
			f.Add(method, path, "n=-1&last=%00&artifactType=x", "", "", []byte("x=y"))
		}
	}
	f.Fuzz(func(t *testing.T, method, path, query, contentType, ranges string, body []byte) {
		r := &http.Request{
			Method: method, URL: &url.URL{Path: path, RawQuery: query}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Header: http.Header{"Content-Type": {contentType}}, Host: "registry", RemoteAddr: "127.0.0.1:1",
			Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
		}
		if ranges != "" {
			r.Header["Range"], r.Header["Content-Range"] = []string{ranges}, []string{ranges}
		}
		w := httptest.NewRecorder()
		registry.ServeHTTP(w, r)
		checkAnswer(t, r, w)
		if entries, err := os.ReadDir(parent); err != nil || len(entries) != 1 {
			t.Errorf("beside the root: %v, %v", entries, err)
		}
	})
}

func checkAnswer(t *testing.T, r *http.Request, w *httptest.ResponseRecorder) {
	t.Helper()
	if w.Code >= 500 {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
	if w.Code >= 400 && r.Method != "HEAD" && strings.HasPrefix(r.URL.Path, "/v2/") && w.Code != http.StatusRequestedRangeNotSatisfiable {
		var said struct {
			Errors []struct{ Code, Message string }
		}
		if err := json.Unmarshal(w.Body.Bytes(), &said); err != nil || len(said.Errors) == 0 || said.Errors[0].Code == "" || said.Errors[0].Message == "" {
			t.Errorf("status %d with %q", w.Code, w.Body)
		}
	}
	d := oci.Digest(w.Header().Get("Docker-Content-Digest"))
	if r.Method != "GET" || w.Code != 200 || d == "" {
		return
	}
	h := d.Hash()
	h.Write(w.Body.Bytes())
	if oci.SumDigest(d.Algorithm(), h) != d {
		t.Errorf("what is served as %s is something else: %q", d, w.Body)
	}
}
