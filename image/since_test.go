package image_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"davit/image"
	"davit/oci/errdefs"
)

func (w *world) saveSince(name string, since ...string) []byte {
	w.t.Helper()
	var out bytes.Buffer
	must(w.t, w.SaveSince(w.t.Context(), []string{name}, since, &out))
	return out.Bytes()
}

// An archive of what is new is small, and makes the very image where the older one is.
func TestSaveSince(t *testing.T) {
	a, b := newWorld(t), newWorld(t)
	a.named("app:1", map[string]string{"base": noise(1, 1<<20)}, map[string]string{"lib": noise(2, 1<<20), "version": "1"})
	want := a.named("app:2", map[string]string{"base": noise(1, 1<<20)}, map[string]string{"lib": noise(2, 1<<20), "version": "2"}, map[string]string{"new": "small"}, map[string]string{"zeros": strings.Repeat("\x00", 40<<20)})
	b.load(a.save("app:1"))
	archive := a.saveSince("app:2", "app:1")
	if len(archive) > 200<<10 {
		t.Errorf("the archive has %d bytes", len(archive))
	}
	loaded, err := b.Load(t.Context(), bytes.NewReader(archive), image.LoadOptions{})
	if err != nil || !slices.Equal(loaded, []image.Loaded{{ID: want.ID, Name: "app:2"}}) {
		t.Fatalf("loaded %v: %v", loaded, err)
	}
	got, err := b.Resolve(t.Context(), "app:2", nil)
	must(t, err)
	if !maps.Equal(b.files(got), a.files(want)) || got.Manifest.Digest != want.Manifest.Digest {
		t.Error("another image came out")
	}
	if _, err := b.Load(t.Context(), bytes.NewReader(archive), image.LoadOptions{}); err != nil {
		t.Errorf("loaded again: %v", err)
	}
	// What was loaded from it is whole.
	newWorld(t).load(b.save("app:2"))
}

// Since two images, of which the new one has something of each.
func TestSaveSinceSeveral(t *testing.T) {
	a, b := newWorld(t), newWorld(t)
	a.named("left", map[string]string{"l": noise(1, 1<<20)})
	a.named("right", map[string]string{"r": noise(2, 1<<20)})
	want := a.named("both", map[string]string{"l": noise(1, 1<<20), "r": noise(2, 1<<20), "x": "new"})
	b.load(a.save("left", "right"))
	archive := a.saveSince("both", "left", "right")
	if len(archive) > 200<<10 {
		t.Errorf("the archive has %d bytes", len(archive))
	}
	loaded, err := b.Load(t.Context(), bytes.NewReader(archive), image.LoadOptions{})
	if err != nil || loaded[0].ID != want.ID {
		t.Errorf("loaded %v: %v", loaded, err)
	}
}

func TestLoadSinceWithoutTheBase(t *testing.T) {
	a := newWorld(t)
	base := a.named("app:1", tree("1"))
	a.named("app:2", tree("2"))
	archive := a.saveSince("app:2", "app:1")
	b := newWorld(t)
	_, err := b.Load(t.Context(), bytes.NewReader(archive), image.LoadOptions{})
	if !errors.Is(err, errdefs.ErrNotFound) || !strings.Contains(err.Error(), "since app:1 (image "+base.ID.Short()+")") {
		t.Errorf("without the base: %v", err)
	}
	if list, err := b.List(t.Context(), image.ListOptions{}); err != nil || len(list) != 0 {
		t.Errorf("%d images are here: %v", len(list), err)
	}
	if err := a.SaveSince(t.Context(), []string{"app:2"}, []string{"app:0"}, &bytes.Buffer{}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("since an image that is not there: %v", err)
	}
}

// A damaged archive makes no image.
func TestLoadDamagedSince(t *testing.T) {
	a := newWorld(t)
	a.named("app:1", tree("1"))
	a.named("app:2", tree("2"))
	a.named("app:3", tree("3"))
	b := newWorld(t)
	b.load(a.save("app:1"))
	files := entries(t, a.saveSince("app:2", "app:1"))
	other := entries(t, a.saveSince("app:3", "app:1"))
	var ours, theirs string
	for name := range files {
		if strings.HasPrefix(name, "davit-deltas/") {
			ours = name
		}
	}
	for name := range other {
		if strings.HasPrefix(name, "davit-deltas/") {
			theirs = name
		}
	}
	for name, content := range map[string]string{"cut off": files[ours][:len(files[ours])/2], "another layer's": other[theirs], "empty": ""} {
		damaged := maps.Clone(files)
		damaged[ours] = content
		if _, err := b.Load(t.Context(), bytes.NewReader(tarOf(t, damaged)), image.LoadOptions{}); err == nil {
			t.Errorf("%s: loaded", name)
		}
	}
	delete(files, ours)
	if _, err := b.Load(t.Context(), bytes.NewReader(tarOf(t, files)), image.LoadOptions{}); err == nil {
		t.Error("without its delta: loaded")
	}
	if _, err := b.Resolve(t.Context(), "app:2", nil); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("an image is here: %v", err)
	}
}

// entries returns an archive's files.
func entries(t *testing.T, archive []byte) map[string]string {
	t.Helper()
	files := map[string]string{}
	r := tar.NewReader(bytes.NewReader(archive))
	for header, err := r.Next(); err == nil; header, err = r.Next() {
		var b bytes.Buffer
		_, err := b.ReadFrom(r)
		must(t, err)
		if header.Typeflag == tar.TypeReg {
			files[header.Name] = b.String()
		}
	}
	return files
}
