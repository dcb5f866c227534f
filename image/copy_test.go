package image_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"davit/image"
	"davit/internal/registrytest"
	"davit/oci"
	"davit/oci/errdefs"
	"davit/oci/ref"
	"davit/registry/auth"
	"davit/registry/client"
	"davit/store/layer"
)

// remote returns a repository, through a client that does not wait long.
func remote(t testing.TB, name string) *client.Repository {
	t.Helper()
	c, err := client.New(client.Options{Backoff: time.Millisecond, Attempts: 3})
	must(t, err)
	repo, err := c.Repository(parse(t, name), auth.Credentials{})
	must(t, err)
	t.Cleanup(repo.Close)
	return repo
}

func (w *world) push(name string, r *recorder) image.Pushed {
	w.t.Helper()
	pushed, err := w.Push(context.Background(), parse(w.t, name), image.PushOptions{Sink: remote(w.t, name), Progress: r.report})
	must(w.t, err)
	return pushed
}

func (w *world) pull(name string, r *recorder) (image.Pulled, error) {
	w.t.Helper()
	return w.Pull(context.Background(), parse(w.t, name), image.PullOptions{Source: remote(w.t, name), Progress: r.report})
}

func TestPushPull(t *testing.T) {
	host := registrytest.Start(t, registrytest.Options{})
	a, b := newWorld(t), newWorld(t)
	name := host + "/team/app:1"
	img := a.named(name, map[string]string{"base": noise(1, 1<<20)}, map[string]string{"middle": strings.Repeat("m", 1<<20)}, map[string]string{"top": "t"})

	var first recorder
	pushed := a.push(name, &first)
	if first.count("Pushed") != 3 || first.lines[0] != "The push refers to repository ["+host+"/team/app]" {
		t.Errorf("first push: %q", first.lines)
	}
	if last := first.lines[len(first.lines)-1]; last != fmt.Sprintf("1: digest: %s size: %d", pushed.Digest, pushed.Size) {
		t.Errorf("last line %q", last)
	}
	var again recorder
	if p := a.push(name, &again); p != pushed || again.count("Layer already exists") != 3 {
		t.Errorf("second push: %+v, %q", p, again.lines)
	}
	must(t, a.Tag(t.Context(), name, parse(t, host+"/copy"), image.ByTag))
	var mounted recorder
	if p := a.push(host+"/copy", &mounted); p.Digest != pushed.Digest || mounted.count("Mounted from team/app") != 3 {
		t.Errorf("push to another repository: %+v, %q", p, mounted.lines)
	}

	var pulling recorder
	pulled, err := b.pull(name, &pulling)
	must(t, err)
	if pulled.Image.ID != img.ID || !slices.Equal(pulled.Image.Layers, img.Layers) || pulled.Target.Digest != pushed.Digest || !pulled.Newer || pulled.Image.Size != img.Size {
		t.Errorf("pulled %+v", pulled)
	}
	if want := []string{host + "/team/app@" + string(pushed.Digest)}; !slices.Equal(pulled.Image.RepoDigests, want) {
		t.Errorf("RepoDigests %q", pulled.Image.RepoDigests)
	}
	for status, n := range map[string]int{
		"1 Pulling from team/app": 1, "Pulling fs layer": 3, "Download complete": 3, "Verifying Checksum": 3, "Pull complete": 3,
		"Digest: " + string(pushed.Digest): 1, "Status: Downloaded newer image for " + name: 1,
	} {
		if pulling.count(status) != n {
			t.Errorf("%d times %q in %q", pulling.count(status), status, pulling.lines)
		}
	}
	var repeated recorder
	if p, err := b.pull(name, &repeated); err != nil || p.Newer || repeated.count("Already exists") != 3 || repeated.count("Status: Image is up to date for "+name) != 1 {
		t.Errorf("second pull: %+v, %v, %q", p, err, repeated.lines)
	}

	// What was pulled goes elsewhere under the same digest.
	elsewhere := registrytest.Start(t, registrytest.Options{})
	must(t, b.Tag(t.Context(), name, parse(t, elsewhere+"/x:2"), image.ByTag))
	if p := b.push(elsewhere+"/x:2", &recorder{}); p.Digest != pushed.Digest {
		t.Errorf("pushed elsewhere as %s, not %s", p.Digest, pushed.Digest)
	}
}

// TestEditedLayer is M8: of an image whose top layer changed, only that layer travels.
func TestEditedLayer(t *testing.T) {
	host := registrytest.Start(t, registrytest.Options{})
	proxy := registrytest.StartProxy(t, host)
	a, b := newWorld(t), newWorld(t)
	base, dependency := map[string]string{"base": noise(1, 2<<20)}, map[string]string{"nginx": noise(2, 1<<20)}
	a.named(host+"/app:1", base, dependency, map[string]string{"app": noise(3, 100<<10)})
	a.named(host+"/app:2", base, dependency, map[string]string{"app": noise(4, 100<<10)})
	a.push(host+"/app:1", &recorder{})
	a.push(host+"/app:2", &recorder{})

	_, err := b.pull(proxy.Host+"/app:1", &recorder{})
	must(t, err)
	if sent := proxy.Sent(); sent < 3<<20 {
		t.Errorf("the first pull took %d bytes", sent)
	}
	var r recorder
	_, err = b.pull(proxy.Host+"/app:2", &r)
	must(t, err)
	if sent := proxy.Sent(); sent < 100<<10 || sent > 110<<10 || r.count("Already exists") != 2 {
		t.Errorf("the second pull took %d bytes: %q", sent, r.lines)
	}
}

// TestBrokenPull counts bytes: what came before a pull broke does not travel again.
func TestBrokenPull(t *testing.T) {
	host := registrytest.Start(t, registrytest.Options{})
	a, b := newWorld(t), newWorld(t)
	layers := []map[string]string{{"a": noise(1, 2<<20)}, {"b": noise(2, 2<<20)}}
	img := a.named(host+"/big", layers...)
	a.push(host+"/big", &recorder{})
	manifest := pushedManifest(t, host+"/big")

	proxy := registrytest.StartProxy(t, host)
	// The upper layer breaks off after 1 MiB, and then its registry is gone for good.
	upper := "/blobs/" + string(manifest.Layers[1].Digest)
	proxy.Add(registrytest.Fault{Path: upper, Truncate: 1 << 20, Times: 1})
	proxy.Add(registrytest.Fault{Path: upper, Status: http.StatusServiceUnavailable, Times: 3})
	name := proxy.Host + "/big"
	source := &counting{Source: remote(t, name)}
	_, err := b.Pull(t.Context(), parse(t, name), image.PullOptions{Source: source})
	if !errors.Is(err, errdefs.ErrUnavailable) {
		t.Fatalf("broken pull: %v", err)
	}
	if _, err := b.Resolve(t.Context(), name, nil); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("the broken pull left a name: %v", err)
	}
	first := source.n.Load()
	// Housekeeping between the attempts leaves what they need.
	b.named("other", map[string]string{"x": "y"})
	_, err = b.Remove(t.Context(), "other", image.RemoveOptions{})
	must(t, err)

	pulled, err := b.Pull(t.Context(), parse(t, name), image.PullOptions{Source: source})
	must(t, err)
	total := manifest.Layers[0].Size + manifest.Layers[1].Size
	if both := source.n.Load(); pulled.Image.ID != img.ID || first < 1<<20 || both != total {
		t.Errorf("%d and then %d bytes arrived for %d", first, both-first, total)
	}
}

// counting counts the bytes of layers that a source gives.
type counting struct {
	image.Source
	n atomic.Int64
}

// Fetch implements image.Source.
func (c *counting) Fetch(ctx context.Context, desc oci.Descriptor, offset int64) (io.ReadCloser, error) {
	r, err := c.Source.Fetch(ctx, desc, offset)
	if err != nil || desc.MediaType != oci.MediaTypeLayerGzip {
		return r, err
	}
	return &countingReader{r, &c.n}, nil
}

type countingReader struct {
	io.ReadCloser
	n *atomic.Int64
}

// Read implements io.Reader.
func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func pushedManifest(t testing.TB, name string) oci.Manifest {
	t.Helper()
	repo := remote(t, name)
	desc, err := repo.Resolve(t.Context(), parse(t, name).Tag)
	must(t, err)
	r, err := repo.Fetch(t.Context(), desc, 0)
	must(t, err)
	defer r.Close()
	var m oci.Manifest
	must(t, json.NewDecoder(r).Decode(&m))
	return m
}

func TestWrongBytes(t *testing.T) {
	host := registrytest.Start(t, registrytest.Options{})
	a := newWorld(t)
	img := a.named(host+"/x", map[string]string{"a": noise(1, 1<<20)})
	a.push(host+"/x", &recorder{})

	t.Run("once", func(t *testing.T) {
		proxy := registrytest.StartProxy(t, host)
		proxy.Add(registrytest.Fault{Path: string(pushedManifest(t, host+"/x").Layers[0].Digest), Corrupt: true, Times: 1})
		pulled, err := newWorld(t).pull(proxy.Host+"/x", &recorder{})
		if err != nil || pulled.Image.ID != img.ID {
			t.Errorf("pull: %+v, %v", pulled, err)
		}
	})
	t.Run("always", func(t *testing.T) {
		proxy := registrytest.StartProxy(t, host)
		proxy.Add(registrytest.Fault{Path: string(pushedManifest(t, host+"/x").Layers[0].Digest), Corrupt: true, Times: 100})
		b := newWorld(t)
		_, err := b.pull(proxy.Host+"/x", &recorder{})
		if !errors.Is(err, errdefs.ErrDataLoss) || !strings.Contains(err.Error(), "filesystem layer verification failed for digest") {
			t.Errorf("pull: %v", err)
		}
		if list, err := b.List(t.Context(), image.ListOptions{All: true}); err != nil || len(list) != 0 {
			t.Errorf("left %+v, %v", list, err)
		}
	})
	t.Run("configuration", func(t *testing.T) {
		proxy := registrytest.StartProxy(t, host)
		proxy.Add(registrytest.Fault{Path: string(img.ID), Corrupt: true, Times: 100})
		if _, err := newWorld(t).pull(proxy.Host+"/x", &recorder{}); !errors.Is(err, errdefs.ErrDataLoss) {
			t.Errorf("pull: %v", err)
		}
	})
}

func TestPullCanceled(t *testing.T) {
	host := registrytest.Start(t, registrytest.Options{})
	a := newWorld(t)
	a.named(host+"/x", map[string]string{"a": noise(1, 1<<20)})
	a.push(host+"/x", &recorder{})
	proxy := registrytest.StartProxy(t, host)
	proxy.Add(registrytest.Fault{Path: string(pushedManifest(t, host+"/x").Layers[0].Digest), Stall: true, Times: 1})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := newWorld(t).Pull(ctx, parse(t, proxy.Host+"/x"), image.PullOptions{
		Source: remote(t, proxy.Host+"/x"),
		Progress: func(p image.Progress) {
			if p.Status == "Downloading" {
				cancel()
			}
		},
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Pull = %v", err)
	}
}

// TestEnsure finds the layers gone, as after a power failure, and unpacks them from their blobs.
func TestEnsure(t *testing.T) {
	host := registrytest.Start(t, registrytest.Options{})
	a, b := newWorld(t), newWorld(t)
	a.named(host+"/x", map[string]string{"a": "1"}, map[string]string{"dir/implied": "2"})
	a.push(host+"/x", &recorder{})
	pulled, err := b.pull(host+"/x", &recorder{})
	must(t, err)

	empty, err := layer.Open(t.TempDir(), layer.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, empty.Close(context.Background())) })
	after, err := image.New(image.Options{DB: b.db, Content: b.content, Layers: empty})
	must(t, err)
	if empty.Has(pulled.Image.Layers...) {
		t.Fatal("the layers are there already")
	}
	must(t, after.Ensure(t.Context(), pulled.Image))
	if dirs, err := empty.Dirs(pulled.Image.Layers...); err != nil || len(dirs) != 2 {
		t.Errorf("Dirs = %v, %v", dirs, err)
	}
}

// TestPlatforms pushes one image per platform and an index over them, and pulls by platform.
func TestPlatforms(t *testing.T) {
	host := registrytest.Start(t, registrytest.Options{})
	a := newWorld(t)
	index := oci.Index{SchemaVersion: 2, MediaType: oci.MediaTypeIndex}
	ids := map[string]oci.Digest{}
	for _, architecture := range []string{"amd64", "arm64"} {
		name := host + "/multi:" + architecture
		img := a.put(image.PutOptions{Config: oci.Image{OS: "linux", Architecture: architecture}, Names: []ref.Ref{parse(t, name)}}, map[string]string{"arch": architecture})
		pushed := a.push(name, &recorder{})
		ids[architecture] = img.ID
		index.Manifests = append(index.Manifests, oci.Descriptor{
			MediaType: oci.MediaTypeManifest, Digest: pushed.Digest, Size: pushed.Size, Platform: &oci.Platform{OS: "linux", Architecture: architecture},
		})
	}
	raw, err := json.Marshal(index)
	must(t, err)
	desc := oci.Descriptor{MediaType: oci.MediaTypeIndex, Digest: oci.DigestOf(raw), Size: int64(len(raw))}
	must(t, remote(t, host+"/multi").PutManifest(t.Context(), "latest", desc, raw))

	b := newWorld(t)
	name := parse(t, host+"/multi")
	for architecture, id := range ids {
		platform := &oci.Platform{OS: "linux", Architecture: architecture}
		pulled, err := b.Pull(t.Context(), name, image.PullOptions{Source: remote(t, name.String()), Platform: platform})
		if err != nil || pulled.Image.ID != id || pulled.Target.Digest != desc.Digest {
			t.Errorf("%s: %+v, %v", architecture, pulled, err)
		}
		if _, err := b.Resolve(t.Context(), name.String(), platform); err != nil {
			t.Errorf("%s is not found: %v", architecture, err)
		}
	}
	_, err = b.Pull(t.Context(), name, image.PullOptions{Source: remote(t, name.String()), Platform: &oci.Platform{OS: "linux", Architecture: "s390x"}})
	if !errors.Is(err, errdefs.ErrNotFound) || err.Error() != "no matching manifest for linux/s390x in the manifest list entries" {
		t.Errorf("no such platform: %v", err)
	}
	single := parse(t, host+"/multi:arm64")
	_, err = b.Pull(t.Context(), single, image.PullOptions{Source: remote(t, single.String()), Platform: &oci.Platform{OS: "linux", Architecture: "amd64"}})
	if err == nil || !strings.Contains(err.Error(), "was found but its platform (linux/arm64) does not match the specified platform (linux/amd64)") {
		t.Errorf("single manifest of another platform: %v", err)
	}
	// The index is collected with its last name, not before.
	_, err = b.Remove(t.Context(), name.String(), image.RemoveOptions{Force: true})
	must(t, err)
}

// TestHostileManifests serves manifests that contradict themselves.
func TestHostileManifests(t *testing.T) {
	good := oci.DigestOf([]byte("x"))
	cases := map[string]string{
		"schema version": `{"schemaVersion":1}`,
		"bad digest":     `{"schemaVersion":2,"config":{"digest":"sha256:../../x","size":1},"layers":[]}`,
		"negative size":  fmt.Sprintf(`{"schemaVersion":2,"config":{"digest":%q,"size":-5},"layers":[]}`, good),
		"huge config":    fmt.Sprintf(`{"schemaVersion":2,"config":{"digest":%q,"size":99999999999},"layers":[]}`, good),
		"no image":       manifestWithConfig(`{"hello":"world"}`),
		"layer count":    manifestWithConfig(`{"rootfs":{"type":"layers","diff_ids":["` + string(good) + `"]}}`),
		"no JSON":        `]`,
	}
	for name, manifest := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := newWorld(t).Pull(t.Context(), parse(t, "bad"), image.PullOptions{Source: fixed{manifest}})
			if err == nil {
				t.Error("the pull succeeded")
			}
			t.Log(err)
		})
	}
}

func manifestWithConfig(config string) string {
	return fmt.Sprintf(`{"schemaVersion":2,"config":{"digest":%q,"size":%d,"data":%q},"layers":[]}`,
		oci.DigestOf([]byte(config)), len(config), base64.StdEncoding.EncodeToString([]byte(config)))
}

// fixed is a source of one manifest; a configuration it embeds (descriptor.md, "data") it serves too.
type fixed struct{ manifest string }

func (f fixed) Resolve(context.Context, string) (oci.Descriptor, error) {
	return oci.Descriptor{MediaType: oci.MediaTypeManifest, Digest: oci.DigestOf([]byte(f.manifest)), Size: int64(len(f.manifest))}, nil
}

func (f fixed) Fetch(_ context.Context, desc oci.Descriptor, offset int64) (io.ReadCloser, error) {
	if desc.Digest == oci.DigestOf([]byte(f.manifest)) {
		return io.NopCloser(strings.NewReader(f.manifest[offset:])), nil
	}
	return io.NopCloser(bytes.NewReader(desc.Data[offset:])), nil
}
