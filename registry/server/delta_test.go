package server

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"davit/oci"
	"davit/registry/delta"
	form "davit/store/delta"
)

// version is one of an image's versions: 2 MiB, of which each changes a few bytes that all later ones keep.
func version(n int) []byte {
	b := make([]byte, 2<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	for i := 1; i <= n; i++ {
		copy(b[i*100_000:], strings.Repeat("changed ", 50*i))
	}
	return b
}

func zipped(t *testing.T, b []byte) string {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, err := z.Write(b)
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// versions pushes images v0, v1, ... of one layer each, and indexes them unless told otherwise. It returns
// the layers' digests and the manifests'.
func (f *fixture) versions(count int, index bool) (layers, manifests []oci.Digest) {
	f.t.Helper()
	for n := range count {
		layer := zipped(f.t, version(n))
		manifest := f.pushImage("app", "v"+string(rune('0'+n)), layer)
		if index {
			if err := f.registry.deltas.Index(f.t.Context(), "app", manifest); err != nil {
				f.t.Fatal(err)
			}
		}
		layers, manifests = append(layers, oci.DigestOf([]byte(layer))), append(manifests, manifest)
	}
	return layers, manifests
}

func deltaPath(want oci.Digest, have ...oci.Digest) string {
	path := "/davit/v1/app/delta/" + string(want) + "?manifest="
	for _, d := range have {
		path += "&have=" + string(d)
	}
	return path
}

func (f *fixture) blobFile(d oci.Digest) string {
	return filepath.Join(f.root, "blobs", d.Algorithm(), d.Hex())
}

// blobs lists the content that the store holds.
func (f *fixture) blobs() []string {
	f.t.Helper()
	files, err := filepath.Glob(filepath.Join(f.root, "blobs", "*", "*"))
	if err != nil {
		f.t.Fatal(err)
	}
	return files
}

type memory struct{ *bytes.Reader }

func (memory) Close() error { return nil }

// applied makes the archive of a delta from version 0, or from whichever it names.
func applied(t *testing.T, body string, versions int) []byte {
	t.Helper()
	r, err := form.NewReader(strings.NewReader(body), 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	err = r.Use(func(id oci.DiffID) (form.Archive, error) {
		for n := range versions {
			if b := version(n); oci.DiffID(oci.DigestOf(b)) == id {
				return memory{bytes.NewReader(b)}, nil
			}
		}
		t.Fatalf("the delta copies from %s", id)
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDelta(t *testing.T) {
	f := start(t, nil)
	layers, manifests := f.versions(4, true)
	for _, c := range []struct {
		name       string
		want, have int
	}{{"the next version", 1, 0}, {"versions passed over", 3, 0}, {"back to an old version", 0, 3}, {"the same", 2, 2}} {
		t.Run(c.name, func(t *testing.T) {
			header, body := f.want(200, "GET", deltaPath(layers[c.want], "sha256:"+oci.Digest(strings.Repeat("0", 64)), layers[c.have]), nil)
			if got := applied(t, body, 4); !bytes.Equal(got, version(c.want)) || header.Get("Content-Type") != form.MediaType {
				t.Errorf("another archive came out, of %d bytes", len(got))
			}
			if len(body) > 2<<20/10 {
				t.Errorf("the delta has %d bytes", len(body))
			}
		})
	}
	header, referrers := f.want(200, "GET", "/v2/app/referrers/"+string(manifests[1]), nil)
	if !strings.Contains(referrers, delta.ArtifactType) || header.Get("Content-Type") != oci.MediaTypeIndex {
		t.Errorf("referrers of the image: %s", referrers)
	}
	if header, _ := f.want(200, "HEAD", "/v2/app/manifests/v1", nil); header.Get("Davit-Delta") == "" {
		t.Error("a manifest does not say that there are deltas")
	}
}

// What a version adds is in its pack: the layer itself need not be read.
func TestDeltaComesFromPacks(t *testing.T) {
	f := start(t, nil)
	layers, _ := f.versions(4, true)
	for n, d := range layers[1:] {
		answer, err := f.registry.deltas.Answer(t.Context(), delta.Question{Repository: "app", Want: d, Have: layers[:1]})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(f.blobFile(d), 0); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := answer.Send(t.Context(), &out); err != nil || !bytes.Equal(applied(t, out.String(), 1), version(n+1)) {
			t.Errorf("v%d needs its layer: %v", n+1, err)
		}
	}
}

func TestDeltaIsRefused(t *testing.T) {
	f := start(t, nil)
	layers, manifests := f.versions(2, false)
	if _, body := f.want(404, "GET", deltaPath(layers[1], layers[0]), nil); !strings.Contains(body, "DELTA_UNAVAILABLE") {
		t.Errorf("without lists: %s", body)
	}
	for _, m := range manifests {
		if err := f.registry.deltas.Index(t.Context(), "app", m); err != nil {
			t.Fatal(err)
		}
	}
	f.want(200, "GET", deltaPath(layers[1], layers[0]), nil)
	f.want(404, "GET", deltaPath(layers[1]), nil)
	f.want(200, "GET", deltaPath(layers[1])+"&most=100", nil)
	f.want(404, "GET", strings.Replace(deltaPath(layers[1], layers[0]), "/app/", "/other/", 1), nil)
	f.want(400, "GET", deltaPath("sha256:short"), nil)
	f.want(400, "GET", deltaPath(layers[1], "sha256:short"), nil)
	f.want(400, "GET", deltaPath(layers[1], slices.Repeat(layers[:1], 100)...), nil)
	f.want(405, "POST", deltaPath(layers[1], layers[0]), nil)
	// A layer of another repository is nothing that this one's client may name.
	f.want(201, "POST", "/v2/other/blobs/uploads/?digest="+string(oci.DigestOf([]byte(zipped(t, version(7))))), strings.NewReader(zipped(t, version(7))))
	f.want(404, "GET", deltaPath(layers[1], oci.DigestOf([]byte(zipped(t, version(7))))), nil)
}

func TestNoDeltas(t *testing.T) {
	f := startWith(t, Options{NoDeltas: true})
	layers, _ := f.versions(2, false)
	f.registry.MakeDeltas(t.Context())
	f.want(404, "GET", deltaPath(layers[1], layers[0]), nil)
	if header, _ := f.want(200, "HEAD", "/v2/app/manifests/v1", nil); header.Get("Davit-Delta") != "" {
		t.Error("a manifest says that there are deltas")
	}
}

// Layers that are no archives, or that decompress to nearly nothing but zeros, have no lists, and that does
// no harm.
func TestUnfitLayersHaveNoList(t *testing.T) {
	f := start(t, nil)
	noise := string(version(0)[:200<<10])
	bomb := zipped(t, make([]byte, 150<<20))
	for name, layer := range map[string]string{"cut off": zipped(t, version(0))[:500<<10], "bomb": bomb, "small": noise[:10<<10]} {
		manifest := f.pushImage("app", "bad", layer)
		if err := f.registry.deltas.Index(t.Context(), "app", manifest); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		f.want(404, "GET", deltaPath(oci.DigestOf([]byte(layer)), oci.DigestOf([]byte(layer))), nil)
		if _, referrers := f.want(200, "GET", "/v2/app/referrers/"+string(manifest), nil); strings.Contains(referrers, delta.ArtifactType) {
			t.Errorf("%s has a list: %s", name, referrers)
		}
	}
}

// Lists go with the image that they are attached to, and are made again when they are missed.
func TestListsAreCollectedAndMadeAgain(t *testing.T) {
	f := start(t, nil)
	f.registry.refresh = 0
	layers, manifests := f.versions(2, true)
	before := len(f.blobs())
	f.want(202, "DELETE", "/v2/app/manifests/"+string(manifests[1]), nil)
	for range 2 { // unlinked, then deleted
		if _, err := f.registry.Collect(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	}
	// The image's config, layer and manifest, its artifact's manifest, list and pack.
	if now := len(f.blobs()); before-now != 6 {
		t.Errorf("%d blobs are gone of %d, want 6", before-now, before)
	}
	f.want(404, "GET", deltaPath(layers[1], layers[0]), nil)
	f.want(200, "GET", deltaPath(layers[0], layers[0]), nil)

	if _, err := f.registry.Collect(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	_, referrers := f.want(200, "GET", "/v2/app/referrers/"+string(manifests[0]), nil)
	var index oci.Index
	if err := json.Unmarshal([]byte(referrers), &index); err != nil || len(index.Manifests) != 1 {
		t.Fatalf("referrers of the image that stays: %s", referrers)
	}
	f.want(202, "DELETE", "/v2/app/manifests/"+string(index.Manifests[0].Digest), nil)
	for range 2 {
		if _, err := f.registry.Collect(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); f.registry.deltas.Run(ctx) }()
	defer func() { stop(); <-ended }()
	path := strings.Replace(deltaPath(layers[0], layers[0]), "manifest=", "manifest="+string(manifests[0]), 1)
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(20 * time.Millisecond) {
		if status, _, body := f.do("GET", path, nil); status == 200 {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("the lists do not come back: %s", body)
		}
	}
}
