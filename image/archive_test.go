package image_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"davit/image"
	"davit/internal/registrytest"
	"davit/oci"
	"davit/oci/errdefs"
)

// run runs a program and fails the test with its output.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (w *world) save(names ...string) string {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), "image.tar")
	f, err := os.Create(path)
	must(w.t, err)
	must(w.t, w.Save(w.t.Context(), names, f))
	must(w.t, f.Close())
	return path
}

func (w *world) load(path string) []image.Loaded {
	w.t.Helper()
	f, err := os.Open(path)
	must(w.t, err)
	defer f.Close()
	loaded, err := w.Load(w.t.Context(), f, image.LoadOptions{})
	must(w.t, err)
	return loaded
}

// content returns the concatenated files of an image's layer directories, by name.
func (w *world) files(img image.Image) map[string]string {
	w.t.Helper()
	files := map[string]string{}
	for i := range img.Layers {
		dir, err := w.layers.Dir(img.Layers[:i+1]...)
		must(w.t, err)
		entries, err := os.ReadDir(dir)
		must(w.t, err)
		for _, entry := range entries {
			b, err := os.ReadFile(filepath.Join(dir, entry.Name()))
			must(w.t, err)
			files[entry.Name()] = string(b)
		}
	}
	return files
}

func twoLayers(w *world, name string) image.Image {
	return w.named(name, map[string]string{"a": "first", "big": noise(9, 300<<10)}, map[string]string{"b": "second"})
}

// check loads an archive into an empty store and compares.
func check(t *testing.T, path string, want image.Image, name string) *world {
	t.Helper()
	w := newWorld(t)
	loaded := w.load(path)
	if !slices.Contains(loaded, image.Loaded{ID: want.ID, Name: name}) {
		t.Errorf("loaded %+v, want %s as %q", loaded, want.ID, name)
	}
	img, err := w.Get(t.Context(), want.ID)
	must(t, err)
	if !slices.Equal(img.Layers, want.Layers) || w.files(img)["b"] != "second" {
		t.Errorf("loaded image %+v", img)
	}
	return w
}

func TestSaveLoad(t *testing.T) {
	w := newWorld(t)
	img := twoLayers(w, "app:1")
	must(t, w.Tag(t.Context(), "app:1", parse(t, "app:2"), image.ByTag))
	must(t, w.Tag(t.Context(), "app:1", parse(t, "quay.io/other/app:x"), image.ByTag))

	got := check(t, w.save("app:1"), img, "app:1")
	if list, err := got.List(t.Context(), image.ListOptions{}); err != nil || !slices.Equal(list[0].RepoTags, []string{"app:1"}) {
		t.Errorf("tags %v, %v", list[0].RepoTags, err)
	}
	check(t, w.save(img.ID.Short()), img, "")
	all := newWorld(t).load(w.save("app", "quay.io/other/app:x"))
	if len(all) != 3 {
		t.Errorf("loaded %+v", all)
	}
	if err := w.Save(t.Context(), []string{"none"}, io.Discard); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("Save of nothing: %v", err)
	}

	path := w.save("app:1")
	for _, program := range []string{"gzip", "bzip2", "xz", "zstd"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Errorf("%s is not installed", program)
			continue
		}
		out, err := exec.Command(program, "-c", path).Output()
		must(t, err)
		compressed := filepath.Join(t.TempDir(), program)
		must(t, os.WriteFile(compressed, out, 0o600))
		check(t, compressed, img, "app:1")
	}
}

// TestSavePulled keeps a pulled image's digest on its way through an archive.
func TestSavePulled(t *testing.T) {
	host := registrytest.Start(t, registrytest.Options{})
	a, b := newWorld(t), newWorld(t)
	img := twoLayers(a, host+"/app:1")
	pushed := a.push(host+"/app:1", &recorder{})
	_, err := b.pull(host+"/app:1", &recorder{})
	must(t, err)
	c := check(t, b.save(host+"/app:1"), img, host+"/app:1")
	must(t, c.Tag(t.Context(), img.ID.Hex(), parse(t, host+"/again:1"), image.ByTag))
	if p := c.push(host+"/again:1", &recorder{}); p.Digest != pushed.Digest {
		t.Errorf("pushed as %s, not %s", p.Digest, pushed.Digest)
	}
}

func TestSkopeoAndUmoci(t *testing.T) {
	w := newWorld(t)
	img := twoLayers(w, "app:1")
	dir := t.TempDir()
	saved := w.save("app:1")

	// What davit wrote, others read.
	asDocker, asOCI := filepath.Join(dir, "docker.tar"), filepath.Join(dir, "oci.tar")
	run(t, "skopeo", "copy", "--insecure-policy", "docker-archive:"+saved, "docker-archive:"+asDocker+":copied:1")
	run(t, "skopeo", "copy", "--insecure-policy", "oci-archive:"+saved, "oci-archive:"+asOCI+":localhost/copied:2")
	layout := filepath.Join(dir, "layout")
	must(t, os.Mkdir(layout, 0o755))
	run(t, "tar", "-xf", saved, "-C", layout)
	bundle := filepath.Join(dir, "bundle")
	run(t, "umoci", "unpack", "--image", layout+":1", bundle)
	if b, err := os.ReadFile(filepath.Join(bundle, "rootfs", "b")); err != nil || string(b) != "second" {
		t.Errorf("umoci unpacked %q, %v", b, err)
	}

	// What others wrote, davit reads.
	if got := newWorld(t).load(asDocker); len(got) != 1 || got[0].Name != "copied:1" {
		t.Errorf("skopeo's docker-archive: %+v", got)
	}
	got := newWorld(t)
	if loaded := got.load(asOCI); len(loaded) != 1 || loaded[0].Name != "localhost/copied:2" {
		t.Errorf("skopeo's oci-archive: %+v", loaded)
	}
	list, err := got.List(t.Context(), image.ListOptions{})
	must(t, err)
	if !slices.Equal(list[0].Layers, img.Layers) || got.files(list[0])["a"] != "first" {
		t.Errorf("skopeo's oci-archive: %+v", list[0])
	}
	run(t, "umoci", "config", "--image", layout+":1", "--config.cmd", "/changed")
	packed := filepath.Join(dir, "umoci.tar")
	run(t, "tar", "-cf", packed, "-C", layout, "index.json", "oci-layout", "blobs")
	changed := newWorld(t)
	loaded := changed.load(packed)
	if back, err := changed.Get(t.Context(), loaded[0].ID); err != nil || !slices.Equal(back.Config.Config.Cmd, []string{"/changed"}) {
		t.Errorf("umoci's layout: %+v, %v", back, err)
	}
}

// TestLayoutOnDisk lets skopeo read the content store where it lies.
func TestLayoutOnDisk(t *testing.T) {
	host := registrytest.Start(t, registrytest.Options{})
	a, b := newWorld(t), newWorld(t)
	twoLayers(a, host+"/app:1")
	pushed := a.push(host+"/app:1", &recorder{})
	_, err := b.pull(host+"/app:1", &recorder{})
	must(t, err)
	out := run(t, "skopeo", "copy", "--insecure-policy", "oci:"+filepath.Join(b.dir, "content")+":"+host+"/app:1", "dir:"+t.TempDir())
	if !strings.Contains(out, "Writing manifest") || pushed.Digest == "" {
		t.Errorf("skopeo: %s", out)
	}
}

// TestOldDockerArchive loads the form that docker wrote before version 25, with the links of 1.9.
func TestOldDockerArchive(t *testing.T) {
	layer := tarOf(t, map[string]string{"b": "second"})
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	z.Write(layer)
	must(t, z.Close())
	diffID := oci.DiffID(oci.DigestOf(layer))
	config, err := json.Marshal(oci.Image{OS: "linux", Architecture: "amd64", RootFS: oci.RootFS{Type: "layers", DiffIDs: []oci.DiffID{diffID, diffID, diffID}}})
	must(t, err)
	manifest := `[{"Config":"c.json","RepoTags":["old:1","old:2"],"Layers":["one/layer.tar","two/layer.tar","three/layer.tar"]}]`
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	file := func(name string, content []byte) {
		must(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(content)), Mode: 0o644}))
		_, err := w.Write(content)
		must(t, err)
	}
	file("./c.json", config)
	file("one/layer.tar", layer)
	must(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "two/layer.tar", Linkname: "../one/layer.tar"}))
	file("three/layer.tar", zipped.Bytes())
	file("manifest.json", []byte(manifest))
	must(t, w.Close())

	s := newWorld(t)
	loaded, err := s.Load(t.Context(), &b, image.LoadOptions{})
	if err != nil || len(loaded) != 2 || loaded[1].Name != "old:2" || loaded[0].ID != oci.DigestOf(config) {
		t.Errorf("Load = %+v, %v", loaded, err)
	}
}

func TestBadArchives(t *testing.T) {
	entry := func(files map[string]string) []byte { return tarOf(t, files) }
	cases := map[string][]byte{
		"nothing":        nil,
		"no archive":     []byte(strings.Repeat("x", 2000)),
		"no image":       entry(map[string]string{"a": "b"}),
		"missing config": entry(map[string]string{"manifest.json": `[{"Config":"nope","Layers":[]}]`}),
		"missing blob":   entry(map[string]string{"oci-layout": "{}", "index.json": `{"manifests":[{"mediaType":"` + oci.MediaTypeManifest + `","digest":"` + string(oci.DigestOf(nil)) + `","size":3}]}`}),
		"bad JSON":       entry(map[string]string{"index.json": "{"}),
		"bad name":       entry(map[string]string{"c": `{"rootfs":{"type":"layers","diff_ids":[]}}`, "manifest.json": `[{"Config":"c","RepoTags":["UPPER"],"Layers":[]}]`}),
		"wrong layer":    entry(map[string]string{"c": `{"rootfs":{"type":"layers","diff_ids":["` + string(oci.DigestOf([]byte("other"))) + `"]}}`, "l": string(entry(nil)), "manifest.json": `[{"Config":"c","Layers":["l"]}]`}),
		"link circle":    linkCircle(t),
	}
	for name, archive := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			_, err := w.Load(t.Context(), bytes.NewReader(archive), image.LoadOptions{})
			if err == nil {
				t.Error("it was loaded")
			}
			if list, err := w.List(t.Context(), image.ListOptions{All: true}); err != nil || len(list) != 0 {
				t.Errorf("left %+v, %v", list, err)
			}
			if left, err := filepath.Glob(filepath.Join(w.dir, "load-*")); err != nil || len(left) != 0 {
				t.Errorf("left %v, %v", left, err)
			}
		})
	}
}

func linkCircle(t *testing.T) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	must(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "manifest.json", Linkname: "x"}))
	must(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "x", Linkname: "manifest.json"}))
	must(t, w.Close())
	return b.Bytes()
}

// TestDockerd exchanges archives with Debian's docker.io, both ways.
func TestDockerd(t *testing.T) {
	socket := startDockerd(t)
	docker := func(args ...string) string {
		return run(t, "docker", append([]string{"-H", "unix://" + socket}, args...)...)
	}
	w := newWorld(t)
	img := twoLayers(w, "app:1")

	if out := docker("load", "-i", w.save("app:1")); !strings.Contains(out, "Loaded image: app:1") {
		t.Errorf("docker load: %s", out)
	}
	if id := strings.TrimSpace(docker("image", "inspect", "-f", "{{.Id}}", "app:1")); id != string(img.ID) {
		t.Errorf("docker has %s, not %s", id, img.ID)
	}
	docker("tag", "app:1", "back:3")
	saved := filepath.Join(t.TempDir(), "back.tar")
	docker("save", "-o", saved, "back:3")
	check(t, saved, img, "back:3")

	// A pulled image, whose archive holds compressed layers.
	host := registrytest.Start(t, registrytest.Options{})
	compressed := w.named(host+"/zip:1", map[string]string{"z": noise(5, 100<<10)})
	w.push(host+"/zip:1", &recorder{})
	b := newWorld(t)
	_, err := b.pull(host+"/zip:1", &recorder{})
	must(t, err)
	docker("load", "-i", b.save(host+"/zip:1"))
	if id := strings.TrimSpace(docker("image", "inspect", "-f", "{{.Id}}", host+"/zip:1")); id != string(compressed.ID) {
		t.Errorf("docker has %s, not %s", id, compressed.ID)
	}
}

// startDockerd runs a dockerd of its own, without network, until the test ends.
func startDockerd(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	socket := filepath.Join(dir, "docker.sock")
	log, err := os.Create(filepath.Join(dir, "log"))
	must(t, err)
	cmd := exec.Command("dockerd", "--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"), "--pidfile", filepath.Join(dir, "pid"),
		"-H", "unix://"+socket, "--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-masq=false", "--storage-driver", "vfs")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	must(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		<-ended
		log.Close()
	})
	deadline := time.After(60 * time.Second)
	for tick := time.Tick(50 * time.Millisecond); ; {
		select {
		case err := <-ended:
			ended <- err
			text, _ := os.ReadFile(log.Name())
			t.Fatalf("dockerd ended: %v\n%s", err, text)
		case <-deadline:
			t.Fatal("dockerd does not answer after a minute")
		case <-tick:
			if exec.Command("docker", "-H", "unix://"+socket, "version").Run() == nil {
				return socket
			}
		}
	}
}
