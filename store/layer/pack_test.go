package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"davit/oci"
	"davit/oci/errdefs"
)

func runIn(t testing.TB, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return string(out)
}

const makeBase = `
mkdir -p etc usr/bin var/log keep/sub swap
echo root > etc/passwd; echo hosts > etc/hosts; echo log > var/log/messages
echo tool > usr/bin/tool; ln usr/bin/tool usr/bin/tool2; ln -s tool usr/bin/link
echo old > keep/old; echo sub > keep/sub/f; echo file > swap/file; echo x > becomes-dir; mkdir becomes-file; echo in > becomes-file/in
`

const changeIt = `
echo more >> etc/passwd
rm var/log/messages
rm -r keep; mkdir keep; echo new > keep/new; chmod 1777 keep
mkdir fresh; echo f > fresh/f; ln fresh/f fresh/g; mkfifo fresh/pipe; mknod fresh/null c 1 3; mknod fresh/disk b 7 9
rm becomes-dir; mkdir becomes-dir; echo y > becomes-dir/y
rm -r becomes-file; echo z > becomes-file
chown 3000000:7 swap/file; chmod 4755 usr/bin/tool
setfattr -n user.k -v v etc/hosts
touch -d @1234567890.123456789 swap
ln -s /etc etc/self
`

// baseLayer makes a layer of what a script makes, by way of Adopt.
func baseLayer(t testing.TB, s *Store, script string) oci.DiffID {
	t.Helper()
	dir := filepath.Join(s.root, "tmp", "base")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	runIn(t, dir, "sh", "-eu", "-c", script)
	id, err := s.Adopt(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// What a container sees is what another machine sees after the writes have travelled as a layer.
func TestPackedOverlayUnpacksToTheSame(t *testing.T) {
	s := newStore(t)
	base := baseLayer(t, s, makeBase)
	o := newOverlay(t, s, inLayer(t, s, "", base))
	o.run(t, changeIt)
	want := describe(t, o.root)
	var packed, again bytes.Buffer
	if err := Pack(t.Context(), &packed, o.upper); err != nil {
		t.Fatal(err)
	}
	if err := Pack(t.Context(), &again, o.upper); err != nil || !bytes.Equal(packed.Bytes(), again.Bytes()) {
		t.Errorf("packing twice gives different bytes (%v)", err)
	}

	other := newStore(t)
	var baseTar bytes.Buffer
	if err := s.Tar(t.Context(), &baseTar, base); err != nil {
		t.Fatal(err)
	}
	mustUnpack(t, other, baseTar.Bytes())
	top := mustUnpack(t, other, packed.Bytes(), base)
	if !other.Has(top) {
		t.Error("a packed layer does not stand alone")
	}
	dirs, err := other.Dirs(base, top)
	if err != nil {
		t.Fatal(err)
	}
	sameTrees(t, describe(t, mountOverlay(t, dirs, "", "")), want, ".")
}

func TestAdoptKeepsDirectoryAndDigest(t *testing.T) {
	s := newStore(t)
	base := baseLayer(t, s, makeBase)
	o := newOverlay(t, s, inLayer(t, s, "", base))
	o.run(t, changeIt)
	want := describe(t, o.root)
	var packed bytes.Buffer
	if err := Pack(t.Context(), &packed, o.upper); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Unmount(o.root, 0); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", o.root, "tmpfs", 0, ""); err != nil { // for the cleanup to unmount
		t.Fatal(err)
	}
	id, err := s.Adopt(t.Context(), o.upper)
	if err != nil || id != diffID(packed.Bytes()) {
		t.Fatalf("adopted as %s, %v", id, err)
	}
	if exists(o.upper) {
		t.Error("the upper directory is still there")
	}
	var again bytes.Buffer
	if err := s.Tar(t.Context(), &again, base, id); err != nil || !bytes.Equal(again.Bytes(), packed.Bytes()) {
		t.Errorf("Tar of the adopted layer differs: %v", err)
	}
	dirs, err := s.Dirs(base, id)
	if err != nil {
		t.Fatal(err)
	}
	sameTrees(t, describe(t, mountOverlay(t, dirs, "", "")), want, ".")
}

func TestAdoptAcrossFileSystems(t *testing.T) {
	s := newStore(t)
	shm := t.TempDir()
	if err := syscall.Mount("tmpfs", shm, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(shm, syscall.MNT_DETACH) })
	upper := filepath.Join(shm, "upper")
	if err := os.Mkdir(upper, 0o755); err != nil {
		t.Fatal(err)
	}
	runIn(t, upper, "sh", "-eu", "-c", makeBase)
	want := describe(t, upper)
	id, err := s.Adopt(t.Context(), upper)
	if err != nil || exists(upper) {
		t.Fatalf("adopt: %v; upper left: %v", err, exists(upper))
	}
	sameTrees(t, describe(t, inLayer(t, s, "", id)), want, ".")
}

func TestPackRefuses(t *testing.T) {
	for name, spoil := range map[string]string{
		"name like a whiteout": "touch .wh.x",
		"redirect":             "mkdir d; setfattr -n trusted.overlay.redirect -v /e d",
		"metacopy":             "touch f; setfattr -n trusted.overlay.metacopy f",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			runIn(t, dir, "sh", "-eu", "-c", spoil)
			if err := Pack(t.Context(), io.Discard, dir); !errors.Is(err, errdefs.ErrInvalid) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestPackLeavesOutSocketsAndDefaultRoot(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mknod(filepath.Join(dir, "socket"), syscall.S_IFSOCK|0o600, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if got := tarNames(t, dir); len(got) != 0 {
		t.Errorf("entries %v", got)
	}
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	if got := tarNames(t, dir); !slices.Equal(got, []string{"./"}) {
		t.Errorf("entries %v", got)
	}
}

func tarNames(t *testing.T, dir string) (names []string) {
	t.Helper()
	var b bytes.Buffer
	if err := Pack(t.Context(), &b, dir); err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(&b); ; {
		h, err := r.Next()
		if err == io.EOF {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
}

func TestChanges(t *testing.T) {
	s := newStore(t)
	base := baseLayer(t, s, makeBase)
	o := newOverlay(t, s, inLayer(t, s, "", base))
	o.run(t, changeIt)
	changes, err := Changes(t.Context(), o.upper, []string{inLayer(t, s, "", base)})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range changes {
		got = append(got, string("CAD"[c.Kind])+" "+c.Path)
	}
	want := strings.Split(strings.TrimSpace(`
C /becomes-dir
A /becomes-dir/y
C /becomes-file
C /etc
C /etc/hosts
C /etc/passwd
A /etc/self
A /fresh
A /fresh/disk
A /fresh/f
A /fresh/g
A /fresh/null
A /fresh/pipe
C /keep
A /keep/new
D /keep/old
D /keep/sub
C /swap
C /swap/file
C /usr
C /usr/bin
C /usr/bin/tool
C /var
C /var/log
D /var/log/messages`), "\n")
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestDecompress(t *testing.T) {
	plain := bytes.Repeat([]byte("davit swings cargo aboard\n"), 100_000)
	dir := t.TempDir()
	name := filepath.Join(dir, "data")
	if err := os.WriteFile(name, plain, 0o600); err != nil {
		t.Fatal(err)
	}
	for kind, command := range map[Compression]string{Plain: "cat", Gzip: "gzip -c", Bzip2: "bzip2 -c", Xz: "xz -c", Zstd: "zstd -c"} {
		t.Run(string(kind), func(t *testing.T) {
			b := []byte(runIn(t, dir, "sh", "-c", command+" <data"))
			r, got, err := Decompress(bytes.NewReader(b))
			if err != nil || got != kind {
				t.Fatalf("%s, %v", got, err)
			}
			defer r.Close()
			if out, err := io.ReadAll(r); err != nil || !bytes.Equal(out, plain) {
				t.Errorf("%d bytes, %v", len(out), err)
			}
			if kind == Plain {
				return
			}
			r, _, err = Decompress(bytes.NewReader(b[:len(b)-20]))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if _, err := io.ReadAll(r); err == nil {
				t.Error("a stream that was cut off seems complete")
			}
		})
	}
	r, _, err := Decompress(bytes.NewReader(nil))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); len(b) != 0 || err != nil {
		t.Errorf("nothing decompresses to %q, %v", b, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
