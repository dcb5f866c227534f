package tree

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// layers makes layer directories, lowest first, from scripts that run in them.
func layers(t *testing.T, scripts ...string) []string {
	t.Helper()
	var dirs []string
	for _, script := range scripts {
		dir := t.TempDir()
		cmd := exec.Command("sh", "-euc", script)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
		dirs = append(dirs, dir)
	}
	return dirs
}

// mounted lists what the kernel's overlayfs shows of the layers, in the words of listing.
func mounted(t *testing.T, dirs []string) string {
	t.Helper()
	reversed := make([]string, len(dirs))
	for i, dir := range dirs {
		reversed[len(dirs)-1-i] = dir
	}
	reversed = append(reversed, t.TempDir()) // overlayfs wants two at least
	at := t.TempDir()
	if err := syscall.Mount("overlay", at, "overlay", syscall.MS_RDONLY, "lowerdir="+strings.Join(reversed, ":")); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Unmount(at, 0); err != nil {
			t.Error(err)
		}
	}()
	var b strings.Builder
	err := filepath.WalkDir(at, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(at, name)
		if err != nil {
			return err
		}
		e, err := LayerEntry(rel, name)
		if err == nil {
			b.WriteString(line(e))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func line(e Entry) string {
	if e.IsDir() {
		e.Size = 0
	}
	return e.Path + " " + e.Mode.String() + " " + e.Link + " " + e.ModTime.UTC().Format(time.RFC3339) + "\n"
}

func listing(t *testing.T, u Tree) string {
	t.Helper()
	var b strings.Builder
	if err := Walk(u, ".", func(e Entry) error { b.WriteString(line(e)); return nil }); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestUnionShowsWhatOverlayfsShows(t *testing.T) {
	for name, scripts := range map[string][]string{
		"one layer":           {"mkdir -p a/b; echo 1 > a/b/f; ln -s b a/l; mkfifo p; mknod z c 1 5"},
		"merge":               {"mkdir a; echo 1 > a/f; echo 1 > a/g", "mkdir -m 700 a; echo 2 > a/f; echo 2 > a/h"},
		"whiteout":            {"mkdir a; echo 1 > a/f; echo 1 > g", "mkdir a; mknod a/f c 0 0; mknod g c 0 0"},
		"whiteout of a tree":  {"mkdir -p a/b; echo 1 > a/b/f", "mknod a c 0 0"},
		"whiteout and anew":   {"mkdir -p a; echo 1 > a/f", "mknod a c 0 0", "mkdir a; echo 3 > a/g"},
		"opaque":              {"mkdir -p a/b; echo 1 > a/f; echo 1 > a/b/g", "mkdir a; setfattr -n trusted.overlay.opaque -v y a; echo 2 > a/h"},
		"file over directory": {"mkdir -p a/b; echo 1 > a/b/f", "mkdir a; echo 2 > a/b"},
		"directory over file": {"echo 1 > a", "mkdir a; echo 2 > a/f"},
		"link over directory": {"mkdir -p a/b c; echo 1 > a/b/f", "mkdir a; ln -s ../c a/b"},
		"three":               {"mkdir a; echo 1 > a/f", "mkdir a; mknod a/f c 0 0", "mkdir a; echo 3 > a/f"},
	} {
		t.Run(name, func(t *testing.T) {
			dirs := layers(t, scripts...)
			if got, want := listing(t, NewUnion(dirs)), mounted(t, dirs); got != want {
				t.Errorf("got\n%s\noverlayfs shows\n%s", got, want)
			}
		})
	}
}

func TestUnionOpens(t *testing.T) {
	u := NewUnion(layers(t, "mkdir a; printf low > a/f; printf low > a/g", "mkdir a; printf high > a/f"))
	for name, want := range map[string]string{"a/f": "high", "a/g": "low"} {
		f, err := u.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(f)
		if err = errors.Join(err, f.Close()); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
	if _, err := u.Open("a/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	if got := listing(t, NewUnion(nil)); !strings.HasPrefix(got, ". d") || strings.Count(got, "\n") != 1 {
		t.Errorf("nothing shows %q", got)
	}
}

func TestResolveStaysInside(t *testing.T) {
	u := NewUnion(layers(t, `mkdir -p a/b etc; echo 1 > etc/f
ln -s /etc abs; ln -s ../../../etc up; ln -s ../../etc a/b/rel; ln -s loop loop; ln -s b a/chain; ln -s a/chain/../../etc/f deep; ln -s none/x dangling`))
	for name, want := range map[string]string{
		"abs/f": "etc/f", "up/f": "etc/f", "a/b/rel/f": "etc/f", "a/chain": "a/b", "deep": "etc/f",
		"../../etc/f": "etc/f", "dangling/y": "none/x/y", "missing/../etc": "etc", "": ".", "/": ".",
	} {
		if got, err := Resolve(u, name); err != nil || got != want {
			t.Errorf("%q leads to %q, %v; want %q", name, got, err, want)
		}
	}
	if _, err := Resolve(u, "loop/x"); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("error %v", err)
	}
	if _, err := Resolve(u, "etc/f/x"); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("error %v", err)
	}
	if got, err := ResolveParent(u, "abs/../abs"); err != nil || got != "abs" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestHasherSeesChanges(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "f")
	h := NewHasher()
	at := time.Unix(1600000000, 0)
	sums := map[Sum]bool{}
	for _, content := range []string{"one", "two", "six"} {
		if err := errors.Join(os.WriteFile(name, []byte(content), 0o644), os.Chtimes(name, at, at)); err != nil {
			t.Fatal(err)
		}
		u := NewUnion([]string{dir})
		e, err := u.Lstat("f")
		if err != nil {
			t.Fatal(err)
		}
		sum, err := h.Sum(u, e)
		if err != nil {
			t.Fatal(err)
		}
		sums[sum] = true
	}
	if len(sums) != 3 {
		t.Errorf("%d sums of 3 contents", len(sums))
	}
}

func TestReadFileHasALimit(t *testing.T) {
	u := NewUnion(layers(t, "printf 12345 > f; mkfifo p; mkdir d"))
	if got, err := ReadFile(u, "f", 5); err != nil || string(got) != "12345" {
		t.Errorf("got %q, %v", got, err)
	}
	for _, name := range []string{"f", "p", "d", "none"} {
		if _, err := ReadFile(u, name, 4); err == nil {
			t.Errorf("%s is read", name)
		}
	}
}
