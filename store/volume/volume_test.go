package volume

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"davit/oci/errdefs"
)

func openStore(t testing.TB, root string) *Store {
	t.Helper()
	s, err := Open(root, nil)
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

func mustCreate(t testing.TB, s *Store, name string) Volume {
	t.Helper()
	v, err := s.Create(t.Context(), name, "", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestLifeOfAVolume(t *testing.T) {
	root := t.TempDir()
	s := openStore(t, root)
	options := map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}
	v, err := s.Create(t.Context(), "data", "local", options, map[string]string{"k": "v"})
	if err != nil {
		t.Fatal(err)
	}
	if m, ok := v.Mount(); !ok || m != (Mount{"tmpfs", "tmpfs", "size=1m"}) {
		t.Errorf("mount %v, %v", m, ok)
	}
	anonymous := mustCreate(t, s, "")
	if len(anonymous.Name) != 64 || !anonymous.Anonymous() || v.Anonymous() {
		t.Errorf("anonymous volume %+v", anonymous)
	}
	if _, ok := anonymous.Mount(); ok {
		t.Error("a plain volume wants a mount")
	}
	if again := mustCreate(t, s, "data"); again.Labels["k"] != "v" || !again.Created.Equal(v.Created) {
		t.Errorf("created again: %+v", again)
	}
	if err := os.WriteFile(filepath.Join(anonymous.Path, "f"), make([]byte, 8192), 0o600); err != nil {
		t.Fatal(err)
	}

	s = openStore(t, root) // the engine restarts
	got, err := s.Get(t.Context(), "data")
	if err != nil || got.Path != v.Path || got.Labels["k"] != "v" || got.Options["o"] != "size=1m" || !got.Created.Equal(v.Created) {
		t.Errorf("after a restart %+v, %v", got, err)
	}
	if list := s.List(t.Context()); len(list) != 2 {
		t.Errorf("list %v", list)
	}
	err = s.Remove(t.Context(), "data", []string{"c1", "c2"})
	if !errors.Is(err, errdefs.ErrConflict) || err.Error() != "remove data: volume is in use - [c1, c2]" {
		t.Errorf("remove while in use: %v", err)
	}
	names, bytes, err := s.Prune(t.Context(), Volume.Anonymous)
	if err != nil || len(names) != 1 || names[0] != anonymous.Name || bytes < 8192 {
		t.Errorf("pruned %v, %d bytes, %v", names, bytes, err)
	}
	if err := s.Remove(t.Context(), "data", nil); err != nil {
		t.Error(err)
	}
	if _, err := s.Get(t.Context(), "data"); !errors.Is(err, errdefs.ErrNotFound) || err.Error() != "get data: no such volume" {
		t.Errorf("get after remove: %v", err)
	}
}

func TestLostRecordKeepsTheData(t *testing.T) {
	root := t.TempDir()
	v := mustCreate(t, openStore(t, root), "data")
	if err := os.Truncate(filepath.Join(root, "data", "volume.json"), 0); err != nil {
		t.Fatal(err)
	}
	if got, err := openStore(t, root).Get(t.Context(), "data"); err != nil || got.Path != v.Path {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestBadInput(t *testing.T) {
	s := openStore(t, t.TempDir())
	rule := ` includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path`
	for _, c := range []struct {
		name    string
		options map[string]string
		want    string
	}{
		{"a b", nil, `create a b: "a b"` + rule},
		{"../x", nil, `create ../x: "../x"` + rule},
		{".hidden", nil, `create .hidden: ".hidden"` + rule},
		{"x", nil, "create x: volume name is too short, names should be at least two alphanumeric characters"},
		{"ok", map[string]string{"colour": "red"}, `create ok: invalid option: "colour"`},
		{"ok", map[string]string{"type": "nfs"}, `create ok: missing required option: "device"`},
		{"ok", map[string]string{"o": "ro"}, `create ok: missing required option: "device"`},
		{"ok", map[string]string{"size": "1g"}, "create ok: quota size requested but no quota support"},
	} {
		_, err := s.Create(t.Context(), c.name, "", c.options, nil)
		if !errors.Is(err, errdefs.ErrInvalid) || err.Error() != c.want {
			t.Errorf("%q %v: %v", c.name, c.options, err)
		}
	}
	if _, err := s.Create(t.Context(), "ok", "nosuch", nil, nil); !errors.Is(err, errdefs.ErrNotFound) || !strings.Contains(err.Error(), `plugin "nosuch" not found`) {
		t.Errorf("unknown driver: %v", err)
	}
	if len(s.List(t.Context())) != 0 {
		t.Error("a refused volume was made")
	}
}

func shell(t testing.TB, dir, script string) string {
	t.Helper()
	cmd := exec.Command("bash", "-eu", "-c", script)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// listing shows everything that CopyUp promises to keep.
const listing = `
find . -printf '%p %y %m %U:%G %T@ %s %l %n\n' | sort | sed -E 's/^(\. d [^ ]+ [^ ]+ [^ ]+) [0-9]+/\1/'
find . -type f -exec md5sum {} + | sort
getfattr -R -h -d -m - . | sort
stat -c '%n %t:%T' null; stat -c '%i' one a/two | sort -u | wc -l
`

func TestCopyUp(t *testing.T) {
	s := openStore(t, t.TempDir())
	v := mustCreate(t, s, "data")
	from := t.TempDir()
	shell(t, from, `
		mkdir -p a/b d empty; echo 1 > one; ln one a/two; chown 5:6 one; chmod 4711 one
		ln -s /etc/passwd link; ln -s . self; mkfifo pipe; mknod null c 1 3
		truncate -s 3M holes; printf x | dd of=holes bs=1 seek=2000000 conv=notrunc status=none
		head -c 300000 /dev/urandom > big; setfattr -n user.k -v v big
		chmod 2770 d; setfattr -n system.posix_acl_default -v 0x0200000001000700ffffffff020007000c00000004000700ffffffff10000700ffffffff20000000ffffffff d; touch d/f; chown -h 7:8 link
		touch -d @1234567890.5 a; chmod 711 .; chown 9:10 .; setfattr -n user.root -v r .`)
	if err := s.CopyUp(t.Context(), "data", from); err != nil {
		t.Fatal(err)
	}
	if got, want := shell(t, v.Path, listing), shell(t, from, listing); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(filepath.Join(v.Path, "holes"), &st); err != nil || st.Blocks*512 > 100_000 {
		t.Errorf("holes takes %d bytes, %v", st.Blocks*512, err)
	}
	shell(t, v.Path, "echo mine > one")
	if err := s.CopyUp(t.Context(), "data", from); err != nil {
		t.Fatal(err)
	}
	if got := shell(t, v.Path, "cat one"); got != "mine\n" {
		t.Errorf("a used volume was overwritten: %q", got)
	}
}

func TestInterruptedCopyUp(t *testing.T) {
	root := t.TempDir()
	s := openStore(t, root)
	v := mustCreate(t, s, "data")
	from := t.TempDir()
	shell(t, from, "echo whole > f; echo g > g")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.CopyUp(ctx, "data", from); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	if got := shell(t, v.Path, "ls"); got != "" {
		t.Errorf("a copy that failed left %q", got)
	}
	shell(t, v.Path, "echo half > f; touch ../copying") // killed while copying
	s = openStore(t, root)
	if err := s.CopyUp(t.Context(), "data", from); err != nil {
		t.Fatal(err)
	}
	if got := shell(t, v.Path, "cat f g; ls .."); got != "whole\ng\n_data\nvolume.json\n" {
		t.Errorf("got %q", got)
	}
}

func TestMountedVolumeStays(t *testing.T) {
	s := openStore(t, t.TempDir())
	v := mustCreate(t, s, "data")
	if err := syscall.Mount("tmpfs", v.Path, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(v.Path, syscall.MNT_DETACH) })
	shell(t, v.Path, "echo precious > f")
	if err := s.Remove(t.Context(), "data", nil); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("remove: %v", err)
	}
	if got := shell(t, v.Path, "cat f"); got != "precious\n" {
		t.Errorf("got %q", got)
	}
}
