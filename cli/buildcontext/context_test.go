package buildcontext

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// write makes files; a name that ends in a slash is a directory.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
	}
}

type entry struct {
	header  *tar.Header
	content string
}

func pack(t *testing.T, c *Context) map[string]entry {
	t.Helper()
	var b bytes.Buffer
	if n, err := c.WriteTo(&b); err != nil || n != int64(b.Len()) {
		t.Fatalf("WriteTo = %d, %v for %d bytes", n, err, b.Len())
	}
	return unpack(t, &b)
}

func unpack(t *testing.T, r io.Reader) map[string]entry {
	t.Helper()
	all := map[string]entry{}
	for reader := tar.NewReader(r); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := all[header.Name]; twice {
			t.Errorf("%s is there twice", header.Name)
		}
		all[header.Name] = entry{header, string(content)}
	}
}

func names(all map[string]entry) string {
	var list []string
	for name := range all {
		list = append(list, name)
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

func TestIgnored(t *testing.T) {
	files := map[string]string{
		"Dockerfile": "FROM scratch", "a.txt": "a", "a.log": "l", "node/x": "x", "node/keep/y": "y", "node/other/z": "z",
		"src/deep/b.log": "l", "src/deep/b.go": "b", "src/important.log": "i",
	}
	for ignore, want := range map[string]string{
		"":                            ".dockerignore Dockerfile a.log a.txt node/ node/keep/ node/keep/y node/other/ node/other/z node/x src/ src/deep/ src/deep/b.go src/deep/b.log src/important.log",
		"**/*.log\nnode":              ".dockerignore Dockerfile a.txt src/ src/deep/ src/deep/b.go",
		"*.log\n/node/":               ".dockerignore Dockerfile a.txt src/ src/deep/ src/deep/b.go src/deep/b.log src/important.log",
		"node\n!node/keep":            ".dockerignore Dockerfile a.log a.txt node/keep/ node/keep/y src/ src/deep/ src/deep/b.go src/deep/b.log src/important.log",
		"*\n!src/deep/*.go":           ".dockerignore Dockerfile src/deep/b.go",
		"# all\n*\n!**/important.log": ".dockerignore Dockerfile src/important.log",
		"Dockerfile\n.dockerignore\n": ".dockerignore Dockerfile a.log a.txt node/ node/keep/ node/keep/y node/other/ node/other/z node/x src/ src/deep/ src/deep/b.go src/deep/b.log src/important.log",
	} {
		dir := t.TempDir()
		write(t, dir, files)
		write(t, dir, map[string]string{".dockerignore": ignore})
		c, err := New(dir, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := names(pack(t, c)); got != want || c.Dockerfile != "Dockerfile" {
			t.Errorf("%q:\n%s\nwant\n%s", ignore, got, want)
		}
	}
}

func TestOwnIgnoreFile(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"x": "x", "y": "y", "docker/app.Dockerfile": "FROM scratch", "docker/app.Dockerfile.dockerignore": "x\n", ".dockerignore": "y\n",
	})
	c, err := New(dir, filepath.Join(dir, "docker/app.Dockerfile"), nil)
	if err != nil {
		t.Fatal(err)
	}
	all := pack(t, c)
	_, x := all["x"]
	_, y := all["y"]
	if c.Dockerfile != "docker/app.Dockerfile" || x || !y {
		t.Errorf("%s: %s", c.Dockerfile, names(all))
	}
}

func TestDockerfileFromOutside(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	write(t, dir, map[string]string{"a": "a", ".dockerignore": "b", "b": "b"})
	write(t, outside, map[string]string{"Dockerfile": "FROM outside"})
	if err := os.Symlink(filepath.Join(outside, "Dockerfile"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(outside, "Dockerfile"), filepath.Join(dir, "link")} {
		c, err := New(dir, path, nil)
		if err != nil {
			t.Fatal(err)
		}
		all := pack(t, c)
		if all[c.Dockerfile].content != "FROM outside" || !strings.HasPrefix(c.Dockerfile, ".dockerfile.") {
			t.Errorf("%s: %s", c.Dockerfile, names(all))
		}
		if got, want := all[".dockerignore"].content, "b\n"+c.Dockerfile+"\n.dockerignore\n"; got != want {
			t.Errorf(".dockerignore is %q, want %q", got, want)
		}
		if _, ok := all["b"]; ok {
			t.Error("b is ignored")
		}
	}
	c, err := New(dir, "", []byte("FROM stdin"))
	if err != nil {
		t.Fatal(err)
	}
	if got := pack(t, c)[c.Dockerfile].content; got != "FROM stdin" {
		t.Errorf("the Dockerfile is %q", got)
	}
}

func TestKinds(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"Dockerfile": "FROM scratch", "run": "#!"})
	if err := os.Chmod(filepath.Join(dir, "run"), 0o4755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "run"), 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(dir, "Dockerfile"), 12, 34); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "away")); err != nil {
		t.Fatal(err)
	}
	socket, err := net.Listen("unix", filepath.Join(dir, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	c, err := New(dir, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	all := pack(t, c)
	if got := names(all); got != "Dockerfile away run" {
		t.Fatal(got)
	}
	if h := all["run"].header; h.Mode != 0o4755 {
		t.Errorf("run has mode %o", h.Mode)
	}
	if h := all["Dockerfile"].header; h.Uid != 0 || h.Gid != 0 || h.Mode != 0o640 {
		t.Errorf("Dockerfile: %+v", h)
	}
	if h := all["away"].header; h.Typeflag != tar.TypeSymlink || h.Linkname != "/etc/passwd" {
		t.Errorf("away: %+v", h)
	}
}

func TestMissing(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"file": ""})
	for _, context := range []string{filepath.Join(dir, "no"), filepath.Join(dir, "file"), dir} {
		if _, err := New(context, "", nil); err == nil || !strings.HasPrefix(err.Error(), "unable to prepare context: ") {
			t.Errorf("%s: %v", context, err)
		}
	}
}

func TestIsArchive(t *testing.T) {
	r, err := FromDockerfile([]byte("FROM scratch"))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if all := unpack(t, bytes.NewReader(plain)); all["Dockerfile"].content != "FROM scratch" {
		t.Errorf("%v", all)
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write(plain); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	for head, want := range map[string]bool{
		string(plain[:HeadLength]): true, zipped.String(): true, "FROM scratch\n": false, "": false,
		strings.Repeat("RUN echo something\n", 40)[:HeadLength]: false,
	} {
		if IsArchive([]byte(head)) != want {
			t.Errorf("IsArchive(%.20q) = %v", head, !want)
		}
	}
}
