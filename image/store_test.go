package image_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"davit/image"
	"davit/oci"
	"davit/oci/errdefs"
	"davit/oci/ref"
	"davit/store/content"
	"davit/store/gc"
	"davit/store/layer"
	"davit/store/metadata"
)

// world is an image store over real stores in a temporary directory.
type world struct {
	*image.Store
	t       testing.TB
	dir     string
	db      *metadata.DB
	content *content.Store
	layers  *layer.Store
	users   map[oci.Digest][]image.User
}

func (w *world) ImageUsers() map[oci.Digest][]image.User { return w.users }

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	db, err := metadata.Open(filepath.Join(w.dir, "davit.db"))
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	w.db = db
	w.content, err = content.Open(filepath.Join(w.dir, "content"))
	must(t, err)
	w.layers, err = layer.Open(filepath.Join(w.dir, "layers"), layer.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, w.layers.Close(context.Background())) })
	w.Store, err = image.New(image.Options{
		DB: db, Content: w.content, Layers: w.layers, Users: w, TempDir: w.dir,
		Collect: func(ctx context.Context) (int64, error) {
			report, err := gc.Collect(ctx, w.content, w.layers, w.Roots)
			return report.BlobBytes + report.LayerBytes, err
		},
	})
	must(t, err)
	return w
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func parse(t testing.TB, name string) ref.Ref {
	t.Helper()
	r, err := ref.Parse(name)
	must(t, err)
	return r.WithDefaultTag()
}

// tarOf returns a tar of files with the given contents.
func tarOf(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		must(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(files[name])), Mode: 0o644, ModTime: time.Unix(1e9, 0)}))
		_, err := w.Write([]byte(files[name]))
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

// noise returns n bytes that do not compress, different for each seed.
func noise(seed byte, n int) string {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return string(b)
}

// put makes an image of one layer per map, lowest first.
func (w *world) put(o image.PutOptions, layers ...map[string]string) image.Image {
	w.t.Helper()
	ctx := context.Background()
	defer w.layers.Lease()()
	for i, files := range layers {
		id, err := w.layers.Import(ctx, o.Config.RootFS.DiffIDs, bytes.NewReader(tarOf(w.t, files)))
		must(w.t, err)
		o.Config.RootFS.DiffIDs = append(o.Config.RootFS.DiffIDs, id)
		o.Config.History = append(o.Config.History, oci.History{CreatedBy: fmt.Sprintf("layer %d", i)})
	}
	if o.Config.Architecture == "" {
		o.Config.OS, o.Config.Architecture = image.HostPlatform().OS, image.HostPlatform().Architecture
	}
	img, err := w.Put(ctx, o)
	must(w.t, err)
	return img
}

func (w *world) named(name string, layers ...map[string]string) image.Image {
	w.t.Helper()
	return w.put(image.PutOptions{Names: []ref.Ref{parse(w.t, name)}}, layers...)
}

// recorder keeps the statuses of a pull or push by item.
type recorder struct {
	mu    sync.Mutex
	lines []string
}

func (r *recorder) report(p image.Progress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	line := strings.TrimSpace(p.ID + " " + p.Status)
	if len(r.lines) == 0 || r.lines[len(r.lines)-1] != line {
		r.lines = append(r.lines, line)
	}
}

func (r *recorder) count(part string) int {
	n := 0
	for _, line := range r.lines {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

func texts(deleted []image.Deleted) []string {
	var all []string
	for _, d := range deleted {
		if d.Untagged != "" {
			all = append(all, "Untagged: "+d.Untagged)
		} else {
			all = append(all, "Deleted: "+string(d.Deleted))
		}
	}
	return all
}

func TestResolve(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	img := w.named("busybox:1", map[string]string{"bin": "x"})
	other := w.named("localhost:5000/other", map[string]string{"bin": "y"})
	for _, name := range []string{"busybox:1", "docker.io/library/busybox:1", string(img.ID), img.ID.Hex(), img.ID.Short(), "sha256:" + img.ID.Short()} {
		if got, err := w.Resolve(ctx, name, nil); err != nil || got.ID != img.ID {
			t.Errorf("Resolve(%s) = %s, %v", name, got.ID, err)
		}
	}
	if got, err := w.Resolve(ctx, "localhost:5000/other", nil); err != nil || got.ID != other.ID || got.RepoTags[0] != "localhost:5000/other:latest" || got.Size != 1 {
		t.Errorf("Resolve = %+v, %v", got, err)
	}
	for name, want := range map[string]string{
		"busybox": "No such image: busybox:latest", "nothing:2": "No such image: nothing:2",
		"sha256:" + strings.Repeat("0", 64): "No such image: sha256:" + strings.Repeat("0", 64),
	} {
		if _, err := w.Resolve(ctx, name, nil); !errors.Is(err, errdefs.ErrNotFound) || err.Error() != want {
			t.Errorf("Resolve(%s) = %v", name, err)
		}
	}
	foreign := oci.Platform{OS: "linux", Architecture: "s390x"}
	if _, err := w.Resolve(ctx, "busybox:1", &foreign); !errors.Is(err, errdefs.ErrNotFound) || !strings.Contains(err.Error(), "does not match the specified platform (linux/s390x)") {
		t.Errorf("Resolve for another platform = %v", err)
	}
	// Enough images that two IDs begin with the same digit.
	for i := range 17 {
		w.put(image.PutOptions{Config: oci.Image{Author: fmt.Sprint(i)}})
	}
	ambiguous := 0
	for _, digit := range "0123456789abcdef" {
		if _, err := w.Resolve(ctx, string(digit), nil); err != nil && err.Error() == "multiple IDs found with provided prefix: "+string(digit) {
			ambiguous++
		}
	}
	if ambiguous == 0 {
		t.Error("no ambiguous prefix among 19 images")
	}
}

func TestTagAndRemove(t *testing.T) {
	ctx := t.Context()
	files := map[string]string{"a": "1"}
	chain := func(img image.Image) string { return "Deleted: " + string(oci.Chain(img.Layers...)) }

	t.Run("name by name", func(t *testing.T) {
		w := newWorld(t)
		img := w.named("x:1", files)
		must(t, w.Tag(ctx, "x:1", parse(t, "y:2"), image.ByTag))
		got, err := w.Remove(ctx, "x:1", image.RemoveOptions{})
		if want := []string{"Untagged: x:1"}; err != nil || !slices.Equal(texts(got), want) {
			t.Errorf("first name: %q, %v", texts(got), err)
		}
		got, err = w.Remove(ctx, "y:2", image.RemoveOptions{})
		if want := []string{"Untagged: y:2", "Deleted: " + string(img.ID), chain(img)}; err != nil || !slices.Equal(texts(got), want) {
			t.Errorf("last name: %q, %v", texts(got), err)
		}
		if w.layers.Has(img.Layers...) {
			t.Error("the layer is still there")
		}
		for blob := range w.content.Walk(ctx) {
			t.Errorf("blob %s is still there", blob.Digest)
		}
	})
	t.Run("tag moves", func(t *testing.T) {
		w := newWorld(t)
		old := w.named("x", files)
		w.named("x", map[string]string{"b": "2"})
		got, err := w.Get(ctx, old.ID)
		if err != nil || !got.Dangling() {
			t.Errorf("old image: %+v, %v", got, err)
		}
	})
	t.Run("by ID", func(t *testing.T) {
		w := newWorld(t)
		img := w.named("x:1", files)
		must(t, w.Tag(ctx, "x:1", parse(t, "x:2"), image.ByTag))
		_, err := w.Remove(ctx, img.ID.Short(), image.RemoveOptions{})
		want := "conflict: unable to delete " + img.ID.Short() + " (must be forced) - image is referenced in multiple repositories"
		if !errors.Is(err, errdefs.ErrConflict) || err.Error() != want {
			t.Errorf("two names: %v", err)
		}
		got, err := w.Remove(ctx, img.ID.Short(), image.RemoveOptions{Force: true})
		if want := []string{"Untagged: x:1", "Untagged: x:2", "Deleted: " + string(img.ID), chain(img)}; err != nil || !slices.Equal(texts(got), want) {
			t.Errorf("forced: %q, %v", texts(got), err)
		}
	})
	t.Run("in use", func(t *testing.T) {
		w := newWorld(t)
		img := w.named("x", files)
		container := strings.Repeat("c", 64)
		w.users = map[oci.Digest][]image.User{img.ID: {{Container: container}}}
		_, err := w.Remove(ctx, "x", image.RemoveOptions{})
		want := `conflict: unable to remove repository reference "x" (must force) - container cccccccccccc is using its referenced image ` + img.ID.Short()
		if !errors.Is(err, errdefs.ErrConflict) || err.Error() != want {
			t.Errorf("by name: %v", err)
		}
		_, err = w.Remove(ctx, img.ID.Hex(), image.RemoveOptions{})
		want = "conflict: unable to delete " + img.ID.Short() + " (must be forced) - image is being used by stopped container cccccccccccc"
		if err == nil || err.Error() != want {
			t.Errorf("by ID: %v", err)
		}
		w.users[img.ID][0].Running = true
		_, err = w.Remove(ctx, img.ID.Hex(), image.RemoveOptions{Force: true})
		want = "conflict: unable to delete " + img.ID.Short() + " (cannot be forced) - image is being used by running container cccccccccccc"
		if err == nil || err.Error() != want {
			t.Errorf("running, forced: %v", err)
		}
		got, err := w.Remove(ctx, "x", image.RemoveOptions{Force: true})
		if err != nil || !slices.Equal(texts(got), []string{"Untagged: x:latest"}) || !w.Has(img.ID) {
			t.Errorf("running, forced by name: %q, %v", texts(got), err)
		}
	})
	t.Run("parents", func(t *testing.T) {
		w := newWorld(t)
		parent := w.put(image.PutOptions{Config: oci.Image{Author: "parent"}}, files)
		child := w.put(image.PutOptions{Parent: parent.ID, Config: oci.Image{RootFS: oci.RootFS{DiffIDs: parent.Layers}}, Names: []ref.Ref{parse(t, "child")}}, map[string]string{"b": "2"})
		if list, err := w.List(ctx, image.ListOptions{}); err != nil || len(list) != 1 || list[0].ID != child.ID {
			t.Errorf("List = %v, %v", list, err)
		}
		if list, err := w.List(ctx, image.ListOptions{All: true}); err != nil || len(list) != 2 {
			t.Errorf("List all = %v, %v", list, err)
		}
		_, err := w.Remove(ctx, parent.ID.Hex(), image.RemoveOptions{Force: true})
		if err == nil || !strings.HasSuffix(err.Error(), "(cannot be forced) - image has dependent child images") {
			t.Errorf("parent: %v", err)
		}
		got, err := w.Remove(ctx, "child", image.RemoveOptions{})
		want := []string{"Untagged: child:latest", "Deleted: " + string(child.ID), chain(child), "Deleted: " + string(parent.ID), chain(parent)}
		if err != nil || !slices.Equal(texts(got), want) {
			t.Errorf("child: %q, %v", texts(got), err)
		}
	})
	t.Run("noprune", func(t *testing.T) {
		w := newWorld(t)
		parent := w.put(image.PutOptions{}, files)
		w.put(image.PutOptions{Parent: parent.ID, Config: oci.Image{Author: "c", RootFS: oci.RootFS{DiffIDs: parent.Layers}}, Names: []ref.Ref{parse(t, "child")}})
		if _, err := w.Remove(ctx, "child", image.RemoveOptions{NoPrune: true}); err != nil || !w.Has(parent.ID) {
			t.Errorf("the parent is gone: %v", err)
		}
	})
	t.Run("unknown", func(t *testing.T) {
		_, err := newWorld(t).Remove(ctx, "nope", image.RemoveOptions{Force: true})
		if !errors.Is(err, errdefs.ErrNotFound) || err.Error() != "No such image: nope:latest" {
			t.Error(err)
		}
	})
}

func TestListFilters(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	at := func(n int) *time.Time { t := time.Date(2024, 1, n, 0, 0, 0, 0, time.UTC); return &t }
	for i, name := range []string{"busybox:1", "busybox:2", "quay.io/a/busybox:1"} {
		w.put(image.PutOptions{
			Config: oci.Image{Created: at(i + 1), Config: oci.Config{Labels: map[string]string{"n": fmt.Sprint(i)}}}, Names: []ref.Ref{parse(t, name)},
		})
	}
	w.put(image.PutOptions{Config: oci.Image{Created: at(9)}})
	yes, no := true, false
	cases := map[string]struct {
		o    image.ListOptions
		want string
	}{
		"all":           {image.ListOptions{}, "<none> quay.io/a/busybox:1 busybox:2 busybox:1"},
		"dangling":      {image.ListOptions{Dangling: &yes}, "<none>"},
		"not dangling":  {image.ListOptions{Dangling: &no}, "quay.io/a/busybox:1 busybox:2 busybox:1"},
		"repository":    {image.ListOptions{Reference: []string{"busybox"}}, "busybox:2 busybox:1"},
		"pattern":       {image.ListOptions{Reference: []string{"busy*:1", "*/*/*"}}, "quay.io/a/busybox:1 busybox:1"},
		"label":         {image.ListOptions{Labels: map[string]string{"n": "1"}}, "busybox:2"},
		"label present": {image.ListOptions{Labels: map[string]string{"n": ""}}, "quay.io/a/busybox:1 busybox:2 busybox:1"},
		"not label":     {image.ListOptions{NotLabels: map[string]string{"n": "1"}}, "<none> quay.io/a/busybox:1 busybox:1"},
		"before":        {image.ListOptions{Before: "busybox:2"}, "busybox:1"},
		"since":         {image.ListOptions{Since: "busybox:2"}, "<none> quay.io/a/busybox:1"},
		"until":         {image.ListOptions{Until: *at(3)}, "busybox:2 busybox:1"},
	}
	for name, c := range cases {
		list, err := w.List(ctx, c.o)
		must(t, err)
		var got []string
		for _, img := range list {
			got = append(got, strings.Join(append(img.RepoTags, []string{"<none>"}[:1-min(1, len(img.RepoTags))]...), ","))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestHistoryAndUsage(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	base := w.named("base", map[string]string{"a": "12345"})
	config := oci.Image{RootFS: oci.RootFS{DiffIDs: base.Layers}, History: append(slices.Clone(base.Config.History), oci.History{CreatedBy: "ENV", EmptyLayer: true})}
	top := w.put(image.PutOptions{Parent: base.ID, Config: config, Names: []ref.Ref{parse(t, "top")}}, map[string]string{"b": "678"})
	history, err := w.History(ctx, "top")
	must(t, err)
	var got []string
	for _, h := range history {
		got = append(got, fmt.Sprintf("%s %s %d", oci.Digest(h.ID).Short(), h.CreatedBy, h.Size))
	}
	want := []string{top.ID.Short() + " layer 0 3", base.ID.Short() + " ENV 0", " layer 0 5"}
	if !slices.Equal(got, want) {
		t.Errorf("History = %q, want %q", got, want)
	}
	usage, err := w.DiskUsage(ctx)
	must(t, err)
	shared, err := w.layers.Disk(ctx, base.Layers...)
	must(t, err)
	unique, err := w.layers.Disk(ctx, top.Layers...)
	must(t, err)
	for _, u := range usage {
		if want := map[oci.Digest]int64{base.ID: 0, top.ID: unique}[u.Image.ID]; u.Shared != shared || u.Unique != want || shared == 0 || unique == 0 {
			t.Errorf("usage of %v: shared %d, unique %d; want %d, %d", u.Image.RepoTags, u.Shared, u.Unique, shared, want)
		}
	}
}

func TestPrune(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.named("kept", map[string]string{"a": "1"})
	used := w.named("used", map[string]string{"b": "1"})
	w.put(image.PutOptions{Config: oci.Image{Author: "dangling"}}, map[string]string{"c": noise(1, 1000)})
	w.users = map[oci.Digest][]image.User{used.ID: {{Container: strings.Repeat("d", 64)}}}
	pruned, err := w.Prune(ctx, image.PruneOptions{})
	if err != nil || len(pruned.Deleted) != 2 || pruned.Reclaimed < 1000 {
		t.Errorf("Prune = %+v, %v", pruned, err)
	}
	pruned, err = w.Prune(ctx, image.PruneOptions{All: true})
	if err != nil || len(pruned.Deleted) != 3 || texts(pruned.Deleted)[0] != "Untagged: kept:latest" {
		t.Errorf("Prune all = %+v, %v", pruned, err)
	}
	if list, err := w.List(ctx, image.ListOptions{}); err != nil || len(list) != 1 || list[0].ID != used.ID {
		t.Errorf("left: %+v, %v", list, err)
	}
}

func TestImport(t *testing.T) {
	w := newWorld(t)
	img, err := w.Import(t.Context(), bytes.NewReader(tarOf(t, map[string]string{"f": "content"})), image.ImportOptions{
		Names: []ref.Ref{parse(t, "imported")}, Changes: []string{"CMD /bin/true", "EXPOSE 80"}, Message: "why",
	})
	must(t, err)
	if img.Size != 7 || img.Config.Comment != "why" || len(img.Config.Config.Cmd) != 3 || img.RepoTags[0] != "imported:latest" {
		t.Errorf("Import = %+v", img)
	}
	if _, err := w.Import(t.Context(), strings.NewReader("no tar at all"), image.ImportOptions{}); err == nil {
		t.Error("Import took what is no tar")
	}
	if _, err := w.Import(t.Context(), strings.NewReader(""), image.ImportOptions{Changes: []string{"RUN x"}}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("Import with a bad change: %v", err)
	}
}
