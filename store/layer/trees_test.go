package layer

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"davit/internal/fileattr"
)

// describe writes down everything about a tree: a line per path with type, mode, owner, time, xattrs,
// device, link target, content, and to which other path it is hard linked. overlayfs's own xattrs are
// left out, so that a mounted overlay and a plain copy of it compare equal.
func describe(t testing.TB, root string) map[string]string {
	t.Helper()
	tree := map[string]string{}
	first := map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		st := stat(t, path)
		line := fmt.Sprintf("%o %d:%d %d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & syscall.S_IFMT {
		case syscall.S_IFREG:
			line += fmt.Sprintf(" %d %x", st.Size, sha256.Sum256([]byte(content(t, path))))
		case syscall.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " -> " + target
		case syscall.S_IFCHR, syscall.S_IFBLK:
			line += fmt.Sprintf(" device %x", st.Rdev)
		}
		if st.Nlink > 1 && !d.IsDir() {
			if _, ok := first[st.Ino]; !ok {
				first[st.Ino] = rel
			}
			line += " linked to " + first[st.Ino]
		}
		tree[rel] = line + describeXattrs(t, path, *st)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func describeXattrs(t testing.TB, path string, st syscall.Stat_t) string {
	t.Helper()
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	attr, err := fileattr.Of(int(dir.Fd()), filepath.Base(path), st)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(attr.Xattrs)) {
		if !strings.HasPrefix(name, "user.rootlesscontainers") {
			fmt.Fprintf(&b, " %s=%q", name, attr.Xattrs[name])
		}
	}
	return b.String()
}

// sameTrees reports every difference between two descriptions; ignore names paths left out.
func sameTrees(t testing.TB, got, want map[string]string, ignore ...string) {
	t.Helper()
	for _, path := range ignore {
		delete(got, path)
		delete(want, path)
	}
	for path, line := range want {
		if got[path] != line {
			t.Errorf("%s:\n got %s\nwant %s", path, got[path], line)
		}
	}
	for path, line := range got {
		if _, ok := want[path]; !ok {
			t.Errorf("%s: got %s, want nothing", path, line)
		}
	}
}

// mountOverlay mounts lowers, lowest first, with an upper directory unless that is empty, and unmounts at
// the end of the test.
func mountOverlay(t testing.TB, lowers []string, upper, work string) string {
	t.Helper()
	at := t.TempDir()
	top := slices.Clone(lowers)
	slices.Reverse(top)
	options := "lowerdir=" + strings.Join(top, ":")
	if upper != "" {
		options += ",upperdir=" + upper + ",workdir=" + work
	}
	if err := syscall.Mount("overlay", at, "overlay", 0, options); err != nil {
		t.Fatalf("mount overlay %s: %v", options, err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(at, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return at
}

// overlay is a writable overlay for a test.
type overlay struct{ root, upper string }

func newOverlay(t testing.TB, s *Store, lowers ...string) overlay {
	t.Helper()
	base := filepath.Join(s.root, "tmp") // Adopt renames
	dir, err := os.MkdirTemp(base, "upper-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	upper, work := filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	for _, d := range []string{upper, work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return overlay{mountOverlay(t, lowers, upper, work), upper}
}

// run does steps like "rm a", in the overlay's root.
func (o overlay) run(t testing.TB, script string) {
	t.Helper()
	runIn(t, o.root, "sh", "-eu", "-c", script)
}
