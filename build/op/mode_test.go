package op

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestChmod asks chmod(1) what each mode means.
func TestChmod(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	modes := []string{"0644", "755", "4711", "u+x", "go-w", "a=r", "+x", "u=rwx,go=rx", "g+s", "o+t", "u=g", "g=u-w", "ug+rwX", "a-x,u+X", "u+s,g-s", "=r", "-r", "o=u"}
	for _, start := range []fs.FileMode{0o644, 0o750, 0o7777, 0} {
		for _, isDir := range []bool{false, true} {
			for _, mode := range modes {
				checkChmod(t, dir, start, isDir, mode)
			}
		}
	}
}

func checkChmod(t *testing.T, dir string, start fs.FileMode, isDir bool, mode string) {
	t.Helper()
	name := filepath.Join(dir, "f")
	err := os.WriteFile(name, nil, 0o600)
	if isDir {
		os.Remove(name)
		err = os.Mkdir(name, 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(name)
	if err := os.Chmod(name, withBits(0, uint32(start))); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	change, err := parseChmod(mode)
	if err != nil {
		t.Fatal(err)
	}
	// Without a class chmod(1) heeds the umask; a build has none.
	cmd := exec.Command("sh", "-c", `umask 0; chmod -- "$0" "$1"`, mode, name)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("chmod %s: %v %s", mode, err, out)
	}
	after, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	got, want := change(before.Mode()), after.Mode()
	if isDir && mode[0] >= '0' && mode[0] <= '7' {
		want &^= fs.ModeSetuid | fs.ModeSetgid // GNU chmod keeps them for directories; COPY --chmod sets the mode
		got &^= fs.ModeSetuid | fs.ModeSetgid
	}
	if got != want {
		t.Errorf("%s of %v: got %v, chmod(1) makes %v", mode, before.Mode(), got, want)
	}
}

func TestChmodRefuses(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"x", "u", "99", "10000", "u+q", "z+x", "u+x,", "+x,,"} {
		if _, err := parseChmod(mode); err == nil {
			t.Errorf("%q is accepted", mode)
		}
	}
}
