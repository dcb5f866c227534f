package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"davit/oci"
)

// Tars for the tests, written entry by entry.

type entry = tar.Header

// reg is a regular file's entry; its content is passed to build by name.
func file(name string, content string) (entry, string) {
	return entry{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content)), ModTime: epoch}, content
}

var epoch = time.Unix(1_500_000_000, 0)

// builder writes a tar and remembers the first error.
type builder struct {
	t   testing.TB
	buf bytes.Buffer
	w   *tar.Writer
}

func newTar(t testing.TB) *builder {
	b := &builder{t: t}
	b.w = tar.NewWriter(&b.buf)
	return b
}

func (b *builder) add(h entry, content string) *builder {
	b.t.Helper()
	if h.ModTime.IsZero() {
		h.ModTime = epoch
	}
	if err := b.w.WriteHeader(&h); err != nil {
		b.t.Fatal(err)
	}
	if _, err := io.WriteString(b.w, content); err != nil {
		b.t.Fatal(err)
	}
	return b
}

func (b *builder) file(name, content string) *builder {
	h, c := file(name, content)
	return b.add(h, c)
}

func (b *builder) dir(name string) *builder {
	return b.add(entry{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755}, "")
}

func (b *builder) symlink(name, target string) *builder {
	return b.add(entry{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, "")
}

func (b *builder) link(name, target string) *builder {
	return b.add(entry{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644}, "")
}

func (b *builder) bytes() []byte {
	b.t.Helper()
	if err := b.w.Close(); err != nil {
		b.t.Fatal(err)
	}
	return b.buf.Bytes()
}

func diffID(b []byte) oci.DiffID { return oci.DiffID(oci.DigestOf(b)) }

// newStore opens a store in a directory of the test and closes it at its end.
func newStore(t testing.TB) *Store {
	t.Helper()
	return openStore(t, filepath.Join(t.TempDir(), "layers"))
}

func openStore(t testing.TB, root string) *Store {
	t.Helper()
	s, err := Open(root, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// mustUnpack unpacks a tar over parents and checks that Tar returns the same bytes.
func mustUnpack(t testing.TB, s *Store, b []byte, parents ...oci.DiffID) oci.DiffID {
	t.Helper()
	id := diffID(b)
	if err := s.Unpack(t.Context(), id, parents, bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	layers := append(parents[:len(parents):len(parents)], id)
	if !s.Has(layers...) {
		t.Fatal("unpacked, but the store does not have it")
	}
	var again bytes.Buffer
	if err := s.Tar(t.Context(), &again, layers...); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.Bytes(), b) {
		t.Fatal("Tar returned other bytes than were unpacked")
	}
	return id
}

// inLayer returns the path of a name in the directory of the topmost of layers.
func inLayer(t testing.TB, s *Store, name string, layers ...oci.DiffID) string {
	t.Helper()
	dir, err := s.Dir(layers...)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

func stat(t testing.TB, path string) *syscall.Stat_t {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t)
}

func content(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func xattr(t testing.TB, path, name string) string {
	t.Helper()
	buf := make([]byte, 256)
	n, err := syscall.Getxattr(path, name, buf)
	if err == syscall.ENODATA {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

// leftovers returns what a store keeps beside its complete layers.
func leftovers(t testing.TB, s *Store) []string {
	t.Helper()
	drafts, err := filepath.Glob(filepath.Join(s.root, "tmp", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return drafts
}

func isOverlayWhiteout(t testing.TB, path string) bool {
	t.Helper()
	return isWhiteout(*stat(t, path))
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func repeat(s string, n int) string { return strings.Repeat(s, n) }
