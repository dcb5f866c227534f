package snapshot

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/oci/rootfs"
	"davit/store/layer"
)

// stores is a layer store with one image of two layers, and a snapshot store over it.
type stores struct {
	*Store
	layers *layer.Store
	root   string
	image  []oci.DiffID
}

func newStores(t testing.TB) *stores {
	t.Helper()
	root := t.TempDir()
	layers, err := layer.Open(filepath.Join(root, "layers"), layer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := layers.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	s := &stores{layers: layers, root: filepath.Join(root, "snapshots")}
	s.addLayer(t, tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o751, Uid: 3, Gid: 4}, tar.Header{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o755})
	s.addLayer(t, tar.Header{Name: "f", Mode: 0o644})
	s.reopen(t)
	return s
}

func (s *stores) addLayer(t testing.TB, headers ...tar.Header) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	id := oci.DiffID(oci.DigestOf(b.Bytes()))
	if err := s.layers.Unpack(t.Context(), id, s.image, &b); err != nil {
		t.Fatal(err)
	}
	s.image = append(s.image, id)
}

func (s *stores) reopen(t testing.TB) {
	t.Helper()
	var err error
	if s.Store, err = Open(s.root, s.layers, nil); err != nil {
		t.Fatal(err)
	}
	opened := s.Store
	t.Cleanup(func() {
		if err := opened.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// mount mounts what the store says, until the returned function is called.
func mount(t testing.TB, r rootfs.Rootfs) (at string, unmount func()) {
	t.Helper()
	at = t.TempDir()
	lower := slices.Clone(r.Lower)
	slices.Reverse(lower)
	options := "lowerdir=" + strings.Join(lower, ":")
	if r.Upper != "" {
		options += ",upperdir=" + r.Upper + ",workdir=" + r.Work
	}
	if r.Volatile {
		options += ",volatile"
	}
	if err := syscall.Mount("overlay", at, "overlay", 0, options); err != nil {
		t.Fatalf("mount %s: %v", options, err)
	}
	done := false
	unmount = func() {
		if !done {
			done = true
			if err := syscall.Unmount(at, 0); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(unmount)
	return at, unmount
}

func write(t testing.TB, name, data string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestLifeOfASnapshot(t *testing.T) {
	s := newStores(t)
	r, err := s.Prepare(t.Context(), "c1", s.image, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Prepare(t.Context(), "c1", s.image, Options{}); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("prepare again: %v", err)
	}
	at, unmount := mount(t, r)
	st, err := os.Stat(at)
	if sys := st.Sys().(*syscall.Stat_t); err != nil || sys.Mode&0o7777 != 0o755 || sys.Uid != 3 || sys.Gid != 4 {
		t.Errorf("the root is not the image's, open to all: %+v, %v", sys, err)
	}
	write(t, filepath.Join(at, "d", "new"), strings.Repeat("x", 10_000))
	if err := os.Remove(filepath.Join(at, "f")); err != nil {
		t.Fatal(err)
	}
	changes, err := s.Changes(t.Context(), "c1")
	if want := "[{/d 0} {/d/new 1} {/f 2}]"; err != nil || fmt.Sprint(changes) != want {
		t.Errorf("changes %v, %v, want %s", changes, err, want)
	}
	if n, err := s.Written(t.Context(), "c1"); err != nil || n != 10_000 {
		t.Errorf("%d bytes written, %v", n, err)
	}
	committed, err := s.Commit(t.Context(), "c1", nil)
	if err != nil {
		t.Fatal(err)
	}
	unmount()

	s.reopen(t) // the engine restarts
	again, err := s.Rootfs("c1")
	if err != nil || fmt.Sprint(again) != fmt.Sprint(r) {
		t.Fatalf("rootfs after a restart %v, %v", again, err)
	}
	sealed, err := s.Seal(t.Context(), "c1")
	if err != nil || sealed != committed {
		t.Errorf("sealed as %s, committed as %s, %v", sealed, committed, err)
	}
	if _, err := s.Get("c1"); !errors.Is(err, errdefs.ErrNotFound) || len(s.List()) != 0 {
		t.Errorf("a sealed snapshot is still there: %v", err)
	}
	view, err := s.View(t.Context(), "v", append(s.image, sealed))
	if err != nil {
		t.Fatal(err)
	}
	at, _ = mount(t, view)
	if b, err := os.ReadFile(filepath.Join(at, "d", "new")); err != nil || len(b) != 10_000 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if _, err := os.Stat(filepath.Join(at, "f")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("f is back: %v", err)
	}
	if st, err := os.Stat(at); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("the root of a view: %v, %v", st.Mode(), err)
	}
	if err := os.WriteFile(filepath.Join(at, "x"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
		t.Errorf("write to a view: %v", err)
	}
}

func TestVolatileCanBeMountedAgain(t *testing.T) {
	s := newStores(t)
	r, err := s.Prepare(t.Context(), "c1", s.image, Options{Volatile: true})
	if err != nil || !r.Volatile {
		t.Fatalf("%v, %v", r, err)
	}
	at, unmount := mount(t, r)
	write(t, filepath.Join(at, "kept"), "x")
	unmount()
	if r, err = s.Rootfs("c1"); err != nil {
		t.Fatal(err)
	}
	at, _ = mount(t, r)
	if _, err := os.Stat(filepath.Join(at, "kept")); err != nil {
		t.Error(err)
	}
}

func TestRemove(t *testing.T) {
	s := newStores(t)
	for _, key := range []string{"a", "b"} {
		if _, err := s.Prepare(t.Context(), key, s.image, Options{Volatile: true}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Remove(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), "a"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("remove again: %v", err)
	}
	if _, err := s.Prepare(t.Context(), "a", nil, Options{}); err != nil {
		t.Errorf("the key is not free: %v", err)
	}
	if list := s.List(); len(list) != 2 || list[0].Key != "a" || len(list[0].Layers) != 0 || len(list[1].Layers) != 2 {
		t.Errorf("list %v", list)
	}
}

func TestBadInput(t *testing.T) {
	s := newStores(t)
	for _, key := range []string{"", ".", "..", ".hidden", "a/b", "trash", "a b", strings.Repeat("k", 129)} {
		if _, err := s.Prepare(t.Context(), key, s.image, Options{}); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("key %q: %v", key, err)
		}
	}
	missing := oci.DiffID(oci.DigestOf([]byte("missing")))
	if _, err := s.Prepare(t.Context(), "c", []oci.DiffID{missing}, Options{}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a missing layer: %v", err)
	}
	if _, err := os.Stat(filepath.Join(s.root, "c")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was left of it: %v", err)
	}
}

func TestCrashedPrepareIsDiscarded(t *testing.T) {
	s := newStores(t)
	if err := os.MkdirAll(filepath.Join(s.root, "half", "upper"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.reopen(t)
	if len(s.List()) != 0 {
		t.Errorf("list %v", s.List())
	}
	if _, err := s.Prepare(t.Context(), "half", s.image, Options{}); err != nil {
		t.Error(err)
	}
}

func BenchmarkPrepareRemove(b *testing.B) {
	s := newStores(b)
	for i := 0; b.Loop(); i++ {
		key := fmt.Sprint("c", i)
		if _, err := s.Prepare(b.Context(), key, s.image, Options{Volatile: true}); err != nil {
			b.Fatal(err)
		}
		if err := s.Remove(b.Context(), key); err != nil {
			b.Fatal(err)
		}
	}
}
