package image_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"davit/image"
	"davit/internal/registrytest"
	"davit/oci"
	"davit/oci/errdefs"
	"davit/registry/server"
	"davit/registry/storage/dir"
	"davit/store/delta"
)

// davitRegistry is davit's own registry on loopback.
type davitRegistry struct {
	t    testing.TB
	host string
	// instead, when it is set, answers requests for deltas.
	instead atomic.Pointer[http.HandlerFunc]
	sent    atomic.Int64 // bytes of answers
	asked   atomic.Int64 // requests for deltas
}

func startDavitRegistry(t testing.TB) *davitRegistry {
	t.Helper()
	store, err := dir.Open(filepath.Join(t.TempDir(), "registry"))
	must(t, err)
	registry := server.New(store, slog.New(slog.DiscardHandler), server.Options{})
	d := &davitRegistry{t: t}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w = &meter{w, &d.sent}
		if strings.Contains(r.URL.Path, "/delta/") {
			d.asked.Add(1)
			if instead := d.instead.Load(); instead != nil {
				(*instead)(w, r)
				return
			}
		}
		registry.ServeHTTP(w, r)
	}))
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); registry.MakeDeltas(ctx) }()
	t.Cleanup(func() { front.Close(); stop(); <-ended })
	d.host = strings.TrimPrefix(front.URL, "http://")
	return d
}

// meter counts the bytes of answers.
type meter struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (m *meter) Write(p []byte) (int, error) {
	m.n.Add(int64(len(p)))
	return m.ResponseWriter.Write(p)
}

// ready waits until an image has its chunk lists.
func (d *davitRegistry) ready(repository string, manifest oci.Digest) {
	d.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; <-time.After(20 * time.Millisecond) {
		response, err := http.Get("http://" + d.host + "/v2/" + repository + "/referrers/" + string(manifest))
		must(d.t, err)
		b, err := io.ReadAll(response.Body)
		must(d.t, errors.Join(err, response.Body.Close()))
		if strings.Contains(string(b), "davit.layer.chunks") {
			return
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("no chunk lists: %s", b)
		}
	}
}

// tree is a layer of 8 MB in files of all sizes, of which version changes one.
func tree(version string) map[string]string {
	files := map[string]string{"etc/version": version + noise(version[0], 20<<10)}
	for i := range byte(80) {
		files[fmt.Sprintf("lib/file%02d", i)] = noise(i, 50<<10) + strings.Repeat("text ", 10<<10)
	}
	return files
}

// shipped pushes two versions of an image and pulls the first into the world that it returns.
func (d *davitRegistry) shipped() (*world, image.Image) {
	d.t.Helper()
	a, b := newWorld(d.t), newWorld(d.t)
	a.named(d.host+"/app:1", tree("1"))
	img := a.named(d.host+"/app:2", tree("2"))
	for _, tag := range []string{"1", "2"} {
		pushed := a.push(d.host+"/app:"+tag, &recorder{})
		d.ready("app", pushed.Digest)
	}
	_, err := b.pull(d.host+"/app:1", &recorder{})
	must(d.t, err)
	return b, img
}

// Of a new version only what changed travels; the image is the same as any other pull's, lives on its own,
// and can be pushed and saved.
func TestPullDelta(t *testing.T) {
	d := startDavitRegistry(t)
	b, want := d.shipped()
	before := d.sent.Load()
	var r recorder
	pulled, err := b.pull(d.host+"/app:2", &r)
	must(t, err)
	size := int64(len(tarOf(t, tree("2"))))
	if sent := d.sent.Load() - before; sent > size/100 || pulled.Image.ID != want.ID {
		t.Errorf("%d of %d bytes travelled for image %s, want %s", sent, size, pulled.Image.ID, want.ID)
	}
	if r.count("Delta: ") != 1 || r.count("Pull complete") != 1 || r.count("instead of 4") != 1 {
		t.Errorf("progress: %q", r.lines)
	}
	ctx := t.Context()
	if _, err := b.Remove(ctx, d.host+"/app:1", image.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	must(t, b.Save(ctx, []string{d.host + "/app:2"}, &archive))
	c := newWorld(t)
	loaded, err := c.Load(ctx, &archive, image.LoadOptions{})
	if err != nil || len(loaded) != 1 || loaded[0].ID != want.ID {
		t.Errorf("loaded %v: %v", loaded, err)
	}
	var pushing recorder
	must(t, b.Tag(ctx, d.host+"/app:2", parse(t, d.host+"/copy:2"), image.ByTag))
	b.push(d.host+"/copy:2", &pushing)
	if pushing.count("Mounted from app") != 1 {
		t.Errorf("push to another repository: %q", pushing.lines)
	}
	elsewhere := registrytest.Start(t, registrytest.Options{})
	must(t, b.Tag(ctx, d.host+"/app:2", parse(t, elsewhere+"/app:2"), image.ByTag))
	b.push(elsewhere+"/app:2", &recorder{})
	if got, err := newWorld(t).pull(elsewhere+"/app:2", &recorder{}); err != nil || got.Image.ID != want.ID {
		t.Errorf("pulled from elsewhere: %s, %v", got.Image.ID, err)
	}
}

// Nobody asks for a delta where there can be none.
func TestPullWithoutDelta(t *testing.T) {
	d := startDavitRegistry(t)
	b, _ := d.shipped()
	if d.asked.Load() != 0 {
		t.Errorf("%d questions in a first pull", d.asked.Load())
	}
	var r recorder
	if _, err := b.pull(d.host+"/app:1", &r); err != nil || d.asked.Load() != 0 || r.count("Delta") != 0 {
		t.Errorf("pulled again what is here: %v, %d questions, %q", err, d.asked.Load(), r.lines)
	}
	other := registrytest.Start(t, registrytest.Options{})
	b.named(other+"/app:1", tree("1"))
	b.push(other+"/app:1", &recorder{})
	c := newWorld(t)
	_, err := c.pull(other+"/app:1", &recorder{})
	must(t, err)
	b.named(other+"/app:2", tree("2"))
	b.push(other+"/app:2", &recorder{})
	if _, err := c.pull(other+"/app:2", &r); err != nil || r.count("Delta") != 0 {
		t.Errorf("pulled from another registry: %v, %q", err, r.lines)
	}
}

// Whatever a registry sends in place of a delta, the image comes, and is the right one.
func TestHostileDeltas(t *testing.T) {
	d := startDavitRegistry(t)
	first, want := d.shipped()
	images, err := first.List(t.Context(), image.ListOptions{})
	must(t, err)
	here := images[0].Layers[0]
	for name, answer := range map[string]http.HandlerFunc{
		"refused":       func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", http.StatusInternalServerError) },
		"garbage":       func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, noise(1, 1<<20)) },
		"nothing":       func(w http.ResponseWriter, r *http.Request) {},
		"another layer": handmade(20<<20, here, func(d *delta.Writer) error { return d.Copy(0, 0, 1<<20) }),
		"wrong bytes":   handmade(3<<10, here, func(d *delta.Writer) error { return d.Literal(make([]byte, 3<<10)) }),
		"endless": handmade(1<<62, here, func(d *delta.Writer) error {
			for range 100 {
				if err := d.Copy(0, 0, 1<<20); err != nil {
					return err
				}
			}
			return nil
		}),
		"a layer that is not here": handmade(1<<10, "sha256:"+oci.DiffID(strings.Repeat("a", 64)), func(d *delta.Writer) error { return d.Copy(0, 0, 1<<10) }),
		"cut off": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000000")
			_, _ = io.WriteString(w, "\x28\xb5\x2f\xfd")
			panic(http.ErrAbortHandler)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newWorld(t)
			_, err := b.pull(d.host+"/app:1", &recorder{})
			must(t, err)
			d.instead.Store(&answer)
			defer d.instead.Store(nil)
			asked := d.asked.Load()
			var r recorder
			pulled, err := b.pull(d.host+"/app:2", &r)
			if err != nil || pulled.Image.ID != want.ID || r.count("Delta") != 0 {
				t.Errorf("got %s: %v, %q", pulled.Image.ID, err, r.lines)
			}
			if d.asked.Load() == asked {
				t.Error("nobody asked for the delta")
			}
			if _, err := b.Get(t.Context(), want.ID); errors.Is(err, errdefs.ErrNotFound) {
				t.Error("the image is not here")
			}
		})
	}
}

// handmade answers with a delta that write makes.
func handmade(size int64, base oci.DiffID, write func(*delta.Writer) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		d, err := delta.NewWriter(w, size, []oci.DiffID{base})
		if err == nil {
			err = write(d)
		}
		if err == nil {
			err = d.Close()
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}
}
