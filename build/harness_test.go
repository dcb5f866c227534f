package build_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"davit/build"
	"davit/build/cache"
	buildcontext "davit/build/context"
	"davit/build/export"
	"davit/oci"
	"davit/oci/errdefs"
	"davit/oci/rootfs"
	"davit/store/layer"
	"davit/store/metadata"
	"davit/store/snapshot"
)

// host is a builder over real stores in a temporary directory, with one base image, "base", that
// holds a static busybox.
type host struct {
	*build.Builder
	t      *testing.T
	root   string
	layers *layer.Store
	snaps  *snapshot.Store
	images *images
	runner *runner
	events []build.Event
	lines  []string // the classic text, message by message
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{t: t, root: t.TempDir(), runner: &runner{}}
	var err error
	if h.layers, err = layer.Open(filepath.Join(h.root, "layers"), layer.Options{}); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	if h.snaps, err = snapshot.Open(filepath.Join(h.root, "snapshots"), h.layers, log); err != nil {
		t.Fatal(err)
	}
	db, err := metadata.Open(filepath.Join(h.root, "davit.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(db.Close(), h.snaps.Close(context.Background()), h.layers.Close(context.Background())); err != nil {
			t.Error(err)
		}
	})
	records, err := cache.Open(db, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	h.images = &images{byID: map[oci.Digest]oci.Image{}, names: map[string]oci.Digest{}}
	h.Builder, err = build.New(build.Options{
		Root: filepath.Join(h.root, "build"), RunRoot: filepath.Join(h.root, "run"),
		Images: h.images, Layers: layers{h.layers, h.snaps}, Runner: h.runner, Cache: records,
		HTTP: http.DefaultClient, Log: log, Now: time.Now, Decompress: decompress,
	})
	if err != nil {
		t.Fatal(err)
	}
	h.addBase("base", busybox(t))
	return h
}

func decompress(r io.Reader) (io.ReadCloser, error) {
	plain, _, err := layer.Decompress(r)
	return plain, err
}

// addBase imports a tar as an image with one layer.
func (h *host) addBase(name string, archive []byte) {
	h.t.Helper()
	diffID, err := h.layers.Import(h.t.Context(), nil, bytes.NewReader(archive))
	if err != nil {
		h.t.Fatal(err)
	}
	image := oci.Image{
		OS: "linux", Architecture: "amd64", RootFS: oci.RootFS{Type: "layers", DiffIDs: []oci.DiffID{diffID}},
		Config: oci.Config{Env: []string{"PATH=/bin:/usr/local/bin"}, Cmd: []string{"sh"}},
	}
	h.setImage(name, image)
}

func (h *host) setImage(name string, image oci.Image) {
	h.t.Helper()
	id, err := h.images.Put(h.t.Context(), image)
	if err != nil {
		h.t.Fatal(err)
	}
	h.images.names[name] = id
}

// build builds a Dockerfile over context files ("path" -> content; a "/" at the end makes a directory).
func (h *host) build(dockerfile string, files map[string]string, change ...func(*build.Request)) (build.Result, error) {
	h.t.Helper()
	all := map[string]string{"Dockerfile": dockerfile}
	for name, content := range files {
		all[name] = content
	}
	return h.buildTar(tarOf(h.t, all), change...)
}

func (h *host) buildTar(archive []byte, change ...func(*build.Request)) (build.Result, error) {
	h.t.Helper()
	files, err := h.OpenContext(h.t.Context(), bytes.NewReader(archive), "")
	if err != nil {
		return build.Result{}, err
	}
	return h.buildContext(files, change...)
}

func (h *host) buildContext(files buildcontext.Context, change ...func(*build.Request)) (build.Result, error) {
	h.t.Helper()
	defer files.Close()
	r := build.Request{Context: files}
	for _, c := range change {
		c(&r)
	}
	h.events, h.lines = nil, nil
	classic := build.NewClassic(func(m build.Message) { h.lines = append(h.lines, m.Stream) }, build.Removal{Succeeded: true})
	result, err := h.Build(h.t.Context(), r, func(e build.Event) {
		h.events = append(h.events, e)
		classic.Event(e)
	})
	if err == nil {
		classic.Finish(result)
	}
	return result, err
}

func (h *host) mustBuild(dockerfile string, files map[string]string, change ...func(*build.Request)) build.Result {
	h.t.Helper()
	result, err := h.build(dockerfile, files, change...)
	if err != nil {
		h.t.Fatalf("build: %v\n%s", err, strings.Join(h.lines, ""))
	}
	return result
}

// cached lists the instructions of the last build that came from the cache.
func (h *host) cached() (texts []string) {
	for _, e := range h.events {
		if e.Kind == build.StepDone && e.Cached {
			texts = append(texts, e.Step.Text)
		}
	}
	slices.Sort(texts)
	return texts
}

// sh runs a command in the image and returns what it prints.
func (h *host) sh(image oci.Image, script string) string {
	h.t.Helper()
	key := "look"
	root, err := h.snaps.Prepare(h.t.Context(), key, image.RootFS.DiffIDs, snapshot.Options{})
	if err != nil {
		h.t.Fatal(err)
	}
	var out bytes.Buffer
	spec := build.RunSpec{Rootfs: root, Args: []string{"/bin/sh", "-c", script}, Env: image.Config.Env, Cwd: "/"}
	code, err := h.runner.Run(h.t.Context(), spec, &out, &out)
	if err = errors.Join(err, h.snaps.Remove(h.t.Context(), key)); err != nil || code != 0 {
		h.t.Fatalf("%s: code %d, %v\n%s", script, code, err, out.String())
	}
	return strings.TrimSpace(out.String())
}

// layers are the stores as a Builder wants them.
type layers struct {
	layers *layer.Store
	snaps  *snapshot.Store
}

func (l layers) Prepare(ctx context.Context, key string, below []oci.DiffID) (rootfs.Rootfs, error) {
	return l.snaps.Prepare(ctx, key, below, snapshot.Options{Volatile: true})
}

func (l layers) Commit(ctx context.Context, key string) (oci.DiffID, error) {
	return l.snaps.Seal(ctx, key)
}

func (l layers) Remove(ctx context.Context, key string) error {
	if err := l.snaps.Remove(ctx, key); !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	return nil
}

func (l layers) Dirs(_ context.Context, ids []oci.DiffID) ([]string, error) {
	return l.layers.Dirs(ids...)
}

func (l layers) Size(_ context.Context, ids []oci.DiffID) (int64, error) {
	return l.layers.Size(ids...)
}

func (l layers) Lease() func() { return l.layers.Lease() }

// images keeps images in memory.
type images struct {
	mu    sync.Mutex
	byID  map[oci.Digest]oci.Image
	names map[string]oci.Digest
	puts  int
}

func (i *images) Base(_ context.Context, r build.BaseRequest) (build.Base, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	id, ok := i.names[r.Name]
	if !ok {
		return build.Base{}, errdefs.NotFound("pull access denied for %s, repository does not exist", r.Name)
	}
	return build.Base{ID: id, Config: i.byID[id]}, nil
}

func (i *images) Has(_ context.Context, id oci.Digest) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	_, ok := i.byID[id]
	return ok
}

func (i *images) Put(_ context.Context, config oci.Image) (oci.Digest, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	id, err := export.ID(config)
	i.byID[id] = config
	i.puts++
	return id, err
}

func (i *images) Tag(_ context.Context, id oci.Digest, name string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.names[name] = id
	return nil
}

// runner runs a RUN step in a mount namespace of its own: the overlay and the binds are mounted
// there, and go with it.
type runner struct {
	mu   sync.Mutex
	runs []build.RunSpec
}

func (r *runner) Run(ctx context.Context, spec build.RunSpec, stdout, stderr io.Writer) (int, error) {
	r.mu.Lock()
	r.runs = append(r.runs, spec)
	r.mu.Unlock()
	root, err := os.MkdirTemp("", "davit-build-root-")
	if err != nil {
		return 0, err
	}
	defer os.Remove(root)
	args := []string{"--mount", "--propagation", "private", "/bin/sh", "-euc", mountScript(spec, root), "sh"}
	cmd := exec.CommandContext(ctx, "unshare", append(args, spec.Args...)...)
	cmd.Stdout, cmd.Stderr, cmd.Env = stdout, stderr, spec.Env
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() >= 0 {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// mountScript mounts what the specification says under root and becomes its process.
func mountScript(spec build.RunSpec, root string) string {
	var s strings.Builder
	fmt.Fprintln(&s, "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	lower := slices.Clone(spec.Rootfs.Lower)
	slices.Reverse(lower)
	if len(lower) == 0 {
		fmt.Fprintf(&s, "mount --bind %s %s\n", spec.Rootfs.Upper, root)
	} else {
		fmt.Fprintf(&s, "mount -t overlay overlay -o lowerdir=%s,upperdir=%s,workdir=%s %s\n", strings.Join(lower, ":"), spec.Rootfs.Upper, spec.Rootfs.Work, root)
	}
	fmt.Fprintf(&s, "mkdir -p %[1]s/dev %[1]s/proc\nmount -t tmpfs dev %[1]s/dev\nmount -t proc proc %[1]s/proc\n: > %[1]s/dev/null\n", root)
	for _, m := range spec.Mounts {
		target := root + m.Target
		if m.Type == build.MountTmpfs {
			fmt.Fprintf(&s, "mkdir -p %[1]s\nmount -t tmpfs tmpfs %[1]s\n", target)
			continue
		}
		fmt.Fprintf(&s, "if [ -d %[1]s ]; then mkdir -p %[2]s; else mkdir -p %[3]s; : >> %[2]s; fi\nmount --bind %[1]s %[2]s\n", m.Source, target, filepath.Dir(target))
		if m.ReadOnly {
			fmt.Fprintf(&s, "mount -o remount,bind,ro %s\n", target)
		}
	}
	env := ""
	for _, pair := range spec.Env {
		env += " '" + strings.ReplaceAll(pair, "'", `'\''`) + "'"
	}
	// The inner shell takes the directory, then becomes the step's program.
	fmt.Fprintf(&s, "exec chroot --userspec=%d:%d --groups=%s %s /bin/busybox env -i%s /bin/busybox sh -c 'cd \"$0\" && exec \"$@\"' '%s' \"$@\"\n",
		spec.UID, spec.GID, groups(spec), root, env, spec.Cwd)
	return s.String()
}

func groups(spec build.RunSpec) string {
	list := []string{fmt.Sprint(spec.GID)}
	for _, g := range spec.Groups {
		list = append(list, fmt.Sprint(g))
	}
	return strings.Join(list, ",")
}

// tarOf archives files, sorted. Content "-> x" makes a symbolic link.
func tarOf(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var headers []*tar.Header
	for _, name := range slices.Sorted(mapKeys(files)) {
		h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name])), ModTime: time.Unix(1700000000, 0)}
		if strings.HasSuffix(name, "/") {
			h.Typeflag, h.Mode, h.Size = tar.TypeDir, 0o755, 0
		}
		if target, ok := strings.CutPrefix(files[name], "-> "); ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, target, 0
		}
		headers = append(headers, h)
	}
	return archive(t, headers, files)
}

func mapKeys(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for key := range m {
			if !yield(key) {
				return
			}
		}
	}
}

func archive(t *testing.T, headers []*tar.Header, content map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			io.WriteString(w, content[h.Name])
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// busybox is a root file system with a static busybox, users and a merged /lib.
func busybox(t *testing.T) []byte {
	t.Helper()
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	content := map[string]string{
		"bin/busybox": string(program),
		"etc/passwd":  "root:x:0:0:root:/root:/bin/sh\napp:x:1001:1002:app:/home/app:/bin/sh\n",
		"etc/group":   "root:x:0:\napp:x:1002:\nextra:x:1500:app\n",
	}
	at := time.Unix(1600000000, 0)
	dir := func(name string, mode int64) *tar.Header {
		return &tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode, ModTime: at}
	}
	headers := []*tar.Header{dir("./", 0o755), dir("bin/", 0o755), dir("etc/", 0o755), dir("tmp/", 0o1777), dir("usr/", 0o755), dir("usr/lib/", 0o755), dir("secret/", 0o700)}
	headers = append(headers, &tar.Header{Typeflag: tar.TypeSymlink, Name: "lib", Linkname: "usr/lib", Mode: 0o777, ModTime: at})
	for _, name := range []string{"bin/busybox", "etc/passwd", "etc/group"} {
		mode := int64(0o644)
		if name == "bin/busybox" {
			mode = 0o755
		}
		headers = append(headers, &tar.Header{Name: name, Mode: mode, Size: int64(len(content[name])), ModTime: at})
	}
	for _, name := range []string{"sh", "cat", "ls", "stat", "ln", "echo", "id", "true", "false", "test", "find", "mkdir", "rm", "touch", "env", "readlink", "pwd", "chmod", "mv", "wc", "sort"} {
		headers = append(headers, &tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + name, Linkname: "busybox", Mode: 0o777, ModTime: at})
	}
	return archive(t, headers, content)
}

func jsonOf(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func openDir(t *testing.T, dir string) buildcontext.Context {
	t.Helper()
	files, err := buildcontext.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// secretMap is a set of secrets.
type secretMap map[string]string

// Secret implements build.Secrets.
func (s secretMap) Secret(_ context.Context, id string) ([]byte, error) {
	value, ok := s[id]
	if !ok {
		return nil, errdefs.NotFound("no secret %s", id)
	}
	return []byte(value), nil
}
