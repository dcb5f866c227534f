package web_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"davit/oci"
	"davit/registry/server"
	"davit/registry/storage"
	"davit/registry/storage/dir"
)

// fixture is a real registry on loopback, filled by pushing to it.
type fixture struct {
	t     testing.TB
	url   string
	store storage.Store

	handler http.Handler
	auth    [2]string // user and password of requests; empty: none
}

func start(t testing.TB, o server.Options) *fixture {
	t.Helper()
	return startOn(t, o, func(s storage.Store) storage.Store { return s })
}

// startOn lets a test put something before the store.
func startOn(t testing.TB, o server.Options, wrap func(storage.Store) storage.Store) *fixture {
	t.Helper()
	local, err := dir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	store := wrap(local)
	o.HistoryKeep = time.Hour
	registry := server.New(store, slog.New(slog.NewTextHandler(t.Output(), nil)), o)
	listening := httptest.NewServer(registry)
	t.Cleanup(registry.Close)
	t.Cleanup(listening.Close)
	return &fixture{t: t, url: listening.URL, store: store, handler: registry}
}

// as returns the same registry for somebody else.
func (f *fixture) as(user, password string) *fixture {
	other := *f
	other.auth = [2]string{user, password}
	return &other
}

// answer is a response and its document.
type answer struct {
	t      testing.TB
	status int
	header http.Header
	body   string
	root   *html.Node
}

func (f *fixture) send(r *http.Request) *answer {
	f.t.Helper()
	if f.auth[0] != "" {
		r.SetBasicAuth(f.auth[0], f.auth[1])
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(r)
	if err != nil {
		f.t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err := response.Body.Close(); err != nil {
		f.t.Fatal(err)
	}
	if err != nil {
		f.t.Fatal(err)
	}
	root, err := html.Parse(bytes.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	return &answer{f.t, response.StatusCode, response.Header, string(body), root}
}

// get returns a page, which must have the status.
func (f *fixture) get(status int, path string) *answer {
	f.t.Helper()
	r, err := http.NewRequest("GET", f.url+path, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	a := f.send(r)
	if a.status != status {
		f.t.Fatalf("GET %s: status %d, want %d:\n%s", path, a.status, status, a.text("main"))
	}
	return a
}

// post sends a form as a browser on this site does; headers override.
func (f *fixture) post(path string, form url.Values, headers ...string) *answer {
	f.t.Helper()
	r, err := http.NewRequest("POST", f.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		f.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return f.send(r)
}

// all returns the elements of a name.
func (a *answer) all(name string) (found []*html.Node) {
	for n := range a.root.Descendants() {
		if n.Type == html.ElementNode && n.Data == name {
			found = append(found, n)
		}
	}
	return found
}

func attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func textOf(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data + " ")
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

// text is what the elements of a name say.
func (a *answer) text(name string) string {
	var all []string
	for _, n := range a.all(name) {
		all = append(all, textOf(n))
	}
	return strings.Join(all, "\n")
}

func (a *answer) wants(parts ...string) {
	a.t.Helper()
	text := a.text("main")
	for _, part := range parts {
		if !strings.Contains(text, part) {
			a.t.Errorf("the page does not say %q:\n%s", part, text)
		}
	}
}

// link returns where the first link with this text leads.
func (a *answer) link(text string) string {
	a.t.Helper()
	for _, n := range a.all("a") {
		if textOf(n) == text {
			return attribute(n, "href")
		}
	}
	a.t.Fatalf("no link says %q:\n%s", text, a.text("main"))
	return ""
}

// layer is a gzipped tar: "dir/", "path=content", "link⇒target".
func layer(t testing.TB, entries ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	for _, e := range entries {
		h := &tar.Header{Name: e, Mode: 0o755, Typeflag: tar.TypeDir}
		link, target, isLink := strings.Cut(e, "⇒")
		name, content, file := strings.Cut(e, "=")
		if isLink {
			h, file = &tar.Header{Name: link, Linkname: target, Typeflag: tar.TypeSymlink}, false
		} else if file {
			h = &tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil && file {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func (f *fixture) request(status int, method, path string, body []byte, contentType string) {
	f.t.Helper()
	r, err := http.NewRequest(method, f.url+path, bytes.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	r.Header.Set("Content-Type", contentType)
	if a := f.send(r); a.status != status {
		f.t.Fatalf("%s %s: status %d, want %d: %s", method, path, a.status, status, a.body)
	}
}

func (f *fixture) pushBlob(repo string, content []byte, mediaType string) oci.Descriptor {
	f.t.Helper()
	d := oci.DigestOf(content)
	f.request(201, "POST", "/v2/"+repo+"/blobs/uploads/?digest="+string(d), content, "application/octet-stream")
	return oci.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(content))}
}

// push names a manifest or an index by a tag, or by its digest where the tag is empty.
func (f *fixture) push(repo, tag, mediaType string, manifest any) oci.Descriptor {
	f.t.Helper()
	content, err := json.Marshal(manifest)
	if err != nil {
		f.t.Fatal(err)
	}
	d := oci.DigestOf(content)
	if tag == "" {
		tag = string(d)
	}
	f.request(201, "PUT", "/v2/"+repo+"/manifests/"+tag, content, mediaType)
	return oci.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(content))}
}

// pushImage pushes layers with a configuration.
func (f *fixture) pushImage(repo, tag string, image oci.Image, layers ...[]byte) oci.Descriptor {
	f.t.Helper()
	if image.Architecture == "" {
		image.OS, image.Architecture = "linux", "amd64"
	}
	config, err := json.Marshal(image)
	if err != nil {
		f.t.Fatal(err)
	}
	m := oci.Manifest{SchemaVersion: 2, MediaType: oci.MediaTypeManifest, Config: f.pushBlob(repo, config, oci.MediaTypeConfig), Layers: []oci.Descriptor{}}
	for _, l := range layers {
		m.Layers = append(m.Layers, f.pushBlob(repo, l, oci.MediaTypeLayerGzip))
	}
	return f.push(repo, tag, oci.MediaTypeManifest, m)
}

// column returns the texts of the first cell of each row.
func (a *answer) column() (found []string) {
	for _, body := range a.all("tbody") {
		for row := range body.ChildNodes() {
			if row.Data == "tr" {
				for cell := range row.ChildNodes() {
					if cell.Data == "td" {
						found = append(found, textOf(cell))
						break
					}
				}
			}
		}
	}
	return found
}

func (a *answer) wantColumn(want ...string) {
	a.t.Helper()
	if got := a.column(); !slices.Equal(got, want) {
		a.t.Errorf("rows are %q, want %q", got, want)
	}
}
