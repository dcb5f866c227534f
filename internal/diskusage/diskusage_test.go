package diskusage

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The same bytes as du(1), of sparse files, hard links, long directories and links.
func TestOfIsDu(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	var err error
	for i := range 300 {
		sub := path(fmt.Sprintf("sub%d", i%3))
		err = errors.Join(err, os.MkdirAll(sub, 0o755), os.WriteFile(filepath.Join(sub, strings.Repeat("n", 100)+fmt.Sprint(i)), make([]byte, i*100), 0o600))
	}
	err = errors.Join(err, os.WriteFile(path("sparse"), nil, 0o600), os.Truncate(path("sparse"), 1<<30),
		os.WriteFile(path("many"), make([]byte, 100000), 0o600), os.Link(path("many"), path("sub0/names")), os.Link(path("many"), path("sub1/names")),
		os.Symlink("/etc", path("link")), os.Symlink(strings.Repeat("x", 200), path("dangling")))
	if err != nil {
		t.Fatal(err)
	}
	du := func(args ...string) (bytes int64) {
		t.Helper()
		out, err := exec.Command("du", append([]string{"-s", "-B1"}, args...)...).Output()
		if err == nil {
			_, err = fmt.Sscan(string(out), &bytes)
		}
		if err != nil {
			t.Fatal(err)
		}
		return bytes
	}
	if u, err := Of(t.Context(), dir); err != nil || u.Bytes != du(dir) || u.Bytes > 100<<20 || u.Inodes != 1+3+300+2+2 {
		t.Errorf("%d bytes and %d inodes, %v; du says %d", u.Bytes, u.Inodes, err, du(dir))
	}
	u, err := Without(t.Context(), dir, map[string]bool{path("sub0"): true, path("many"): true})
	if want := du("--exclude=sub0", "--exclude=many", dir); err != nil || u.Bytes != want {
		t.Errorf("without two trees: %d bytes, %v; du says %d", u.Bytes, err, want)
	}
	if u, err := Of(t.Context(), path("many")); err != nil || u.Bytes != du(path("many")) || u.Inodes != 1 {
		t.Errorf("a file: %+v, %v; du says %d", u, err, du(path("many")))
	}
	if n, err := Content(t.Context(), dir); err != nil || n != 299*300/2*100+1<<30+100000+int64(len("/etc"))+200 {
		t.Errorf("the files hold %d bytes, %v", n, err)
	}
	if _, err := Of(t.Context(), path("missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}
