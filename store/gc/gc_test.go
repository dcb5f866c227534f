package gc

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"testing"

	"davit/oci"
	"davit/store/content"
	"davit/store/layer"
)

type world struct {
	t      *testing.T
	blobs  *content.Store
	layers *layer.Store
}

func newWorld(t *testing.T) *world {
	t.Helper()
	root := t.TempDir()
	blobs, err := content.Open(filepath.Join(root, "content"))
	if err != nil {
		t.Fatal(err)
	}
	layers, err := layer.Open(filepath.Join(root, "layers"), layer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := layers.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return &world{t, blobs, layers}
}

// image stores an image of one layer for each name and returns its manifest and stack.
func (w *world) image(names ...string) (oci.Descriptor, []oci.DiffID) {
	w.t.Helper()
	manifest := oci.Manifest{SchemaVersion: 2, MediaType: oci.MediaTypeManifest}
	var stack []oci.DiffID
	for _, name := range names {
		var b bytes.Buffer
		tw := tar.NewWriter(&b)
		if err := errors.Join(tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644}), tw.Close()); err != nil {
			w.t.Fatal(err)
		}
		id := oci.DiffID(oci.DigestOf(b.Bytes()))
		manifest.Layers = append(manifest.Layers, w.put(oci.MediaTypeLayer, b.Bytes()))
		if err := w.layers.Unpack(w.t.Context(), id, stack, &b); err != nil {
			w.t.Fatal(err)
		}
		stack = append(stack, id)
	}
	manifest.Config = w.putJSON(oci.MediaTypeConfig, oci.Image{OS: "linux", RootFS: oci.RootFS{Type: "layers", DiffIDs: stack}})
	return w.putJSON(oci.MediaTypeManifest, manifest), stack
}

func (w *world) put(mediaType string, b []byte) oci.Descriptor {
	w.t.Helper()
	desc, err := w.blobs.PutBytes(w.t.Context(), mediaType, b)
	if err != nil {
		w.t.Fatal(err)
	}
	return desc
}

func (w *world) putJSON(mediaType string, v any) oci.Descriptor {
	w.t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.put(mediaType, b)
}

func (w *world) collect(roots Roots) Report {
	w.t.Helper()
	report, err := Collect(w.t.Context(), w.blobs, w.layers, func(context.Context) (Roots, error) { return roots, nil })
	if err != nil {
		w.t.Fatal(err)
	}
	return report
}

// count returns how many blobs and layers there are.
func (w *world) count() (blobs, layers int) {
	w.t.Helper()
	for _, err := range w.blobs.Walk(w.t.Context()) {
		if err != nil {
			w.t.Fatal(err)
		}
		blobs++
	}
	return blobs, len(w.layers.List())
}

func TestCollect(t *testing.T) {
	w := newWorld(t)
	kept, _ := w.image("base", "app-1")
	elsewhere := oci.Descriptor{MediaType: oci.MediaTypeManifest, Digest: oci.DigestOf([]byte("another platform's")), Size: 18}
	index := w.putJSON(oci.MediaTypeIndex, oci.Index{SchemaVersion: 2, Manifests: []oci.Descriptor{kept, elsewhere}})
	_, running := w.image("base", "app-2") // its name is gone, a container still runs
	w.image("other")
	if blobs, layers := w.count(); blobs != 11 || layers != 4 {
		t.Fatalf("%d blobs, %d layers", blobs, layers)
	}
	report := w.collect(Roots{Blobs: []oci.Descriptor{index}, Layers: [][]oci.DiffID{running}})
	if blobs, layers := w.count(); blobs != 5 || layers != 3 {
		t.Errorf("left: %d blobs, %d layers", blobs, layers)
	}
	if len(report.Blobs) != 6 || report.BlobBytes == 0 || len(report.Layers) != 1 {
		t.Errorf("report %+v", report)
	}
	w.collect(Roots{})
	if blobs, layers := w.count(); blobs != 0 || layers != 0 {
		t.Errorf("without roots: %d blobs, %d layers", blobs, layers)
	}
}

func TestCollectSparesWhatComesMeanwhile(t *testing.T) {
	w := newWorld(t)
	old, _ := w.image("old")
	_, err := Collect(t.Context(), w.blobs, w.layers, func(ctx context.Context) (Roots, error) {
		w.image("pulled while the roots were looked up")
		if _, err := w.blobs.Info(ctx, old.Digest); err != nil { // somebody is about to name it
			return Roots{}, err
		}
		return Roots{}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if blobs, layers := w.count(); blobs != 4 || layers != 1 {
		t.Errorf("%d blobs, %d layers", blobs, layers)
	}
}

func TestUnreadableManifestStopsTheCollection(t *testing.T) {
	w := newWorld(t)
	bad := w.put(oci.MediaTypeManifest, []byte("{not json"))
	w.image("precious")
	roots := func(context.Context) (Roots, error) { return Roots{Blobs: []oci.Descriptor{bad}}, nil }
	if _, err := Collect(t.Context(), w.blobs, w.layers, roots); err == nil {
		t.Error("no error")
	}
	if blobs, layers := w.count(); blobs != 4 || layers != 1 {
		t.Errorf("%d blobs, %d layers", blobs, layers)
	}
}
