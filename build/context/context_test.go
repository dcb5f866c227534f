package context

import (
	"archive/tar"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"davit/build/tree"
)

func makeDir(t *testing.T, script string) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("sh", "-euc", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

func paths(t *testing.T, files tree.Tree) []string {
	t.Helper()
	var list []string
	err := tree.Walk(files, ".", func(e tree.Entry) error {
		list = append(list, e.Path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list[1:]
}

// TestIgnoreOracles has the examples of Docker's documentation, and cases that were bugs somewhere.
func TestIgnoreOracles(t *testing.T) {
	dir := makeDir(t, `mkdir -p sub/deep node_modules/x .git; touch a.md README.md README-secret.md temp1 tempa sub/temp2 sub/deep/temp3 sub/a.go node_modules/x/keep .git/config "sp ace"`)
	files, err := OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	all := paths(t, files)
	for _, test := range []struct {
		ignore string
		gone   string // what is left out, space separated
	}{
		{"# comment\n\n", ""},
		{"*/temp*\n", "sub/temp2"},
		{"*/*/temp*\n", "sub/deep/temp3"},
		{"temp?\n", "temp1 tempa"},
		{"**/temp*\n", "sub/deep/temp3 sub/temp2 temp1 tempa"},
		{"*.md\n!README.md\n", "README-secret.md a.md"},
		{"*.md\n!README*.md\nREADME-secret.md\n", "README-secret.md a.md"},
		{"node_modules\n.git\n", ".git .git/config node_modules node_modules/x node_modules/x/keep"},
		{"node_modules\n!node_modules/x/keep\n", ""},
		{"/sub/\n", "sub sub/a.go sub/deep sub/deep/temp3 sub/temp2"},
		{"sub/../temp1\n", "temp1"},
		{"./temp1\n", "temp1"},
		{"sub/deep/**\n", "sub/deep/temp3"},
		{"temp[0-9]\n", "temp1"},
		{"*\n!sub/a.go\n", ".git .git/config README-secret.md README.md a.md node_modules node_modules/x node_modules/x/keep sp/ace sub/deep sub/deep/temp3 sub/temp2 temp1 tempa"},
		{"*\n", "ALL"},
		{"  temp1  \n", "temp1"},
	} {
		if err := os.WriteFile(filepath.Join(dir, ".dockerignore"), []byte(test.ignore), 0o644); err != nil {
			t.Fatal(err)
		}
		filtered, err := Ignored(files, "Dockerfile")
		if err != nil {
			t.Fatal(err)
		}
		left := paths(t, filtered)
		var gone []string
		for _, name := range all {
			if !slices.Contains(left, name) {
				gone = append(gone, strings.ReplaceAll(name, " ", "/"))
			}
		}
		want := test.gone
		if want == "ALL" {
			want = strings.ReplaceAll(strings.Join(all, "|"), " ", "/")
			want = strings.ReplaceAll(want, "|", " ")
		}
		if got := strings.Join(gone, " "); got != want {
			t.Errorf("%q leaves out %q, want %q", test.ignore, got, want)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, ".dockerignore"), []byte("[\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Ignored(files, "Dockerfile"); err == nil {
		t.Error("a bad pattern is accepted")
	}
}

func TestDirReadsNothingOutside(t *testing.T) {
	outside := makeDir(t, "echo secret > f; mkdir d; echo secret > d/g")
	dir := makeDir(t, "ln -s "+outside+"/f abs; ln -s "+outside+"/d dir; mkdir in; echo 1 > in/x; ln -s in ln")
	files, err := OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	for _, name := range []string{"abs", "dir/g", "ln/x", "../" + filepath.Base(outside) + "/f", "in/none"} {
		f, err := files.Open(name)
		if err == nil {
			f.Close()
			t.Errorf("%s can be opened", name)
		}
	}
	for _, name := range []string{"dir/g", "ln/x", "in/x/y"} {
		if _, err := files.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if _, err := files.ReadDir("dir"); err == nil {
		t.Error("a link can be listed")
	}
	e, err := files.Lstat("ln")
	if err != nil || e.Link != "in" {
		t.Errorf("link %+v, %v", e, err)
	}
	if e, err := tree.Stat(files, "ln/x"); err != nil || e.Path != "in/x" || e.Size != 2 {
		t.Errorf("file %+v, %v", e, err)
	}
}

func TestTarKeepsTheLastOfTwoEntries(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, content := range []string{"first", "second one"} {
		if err := w.WriteHeader(&tar.Header{Name: "./d/f", Mode: 0o644, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		w.Write([]byte(content))
	}
	w.WriteHeader(&tar.Header{Typeflag: tar.TypeLink, Name: "d/hard", Linkname: "d/f"})
	w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o700})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := ReadTar(&b, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	if got := paths(t, files); !slices.Equal(got, []string{"d", "d/f", "d/hard"}) {
		t.Errorf("paths %q", got)
	}
	for _, name := range []string{"d/f", "d/hard"} {
		if got, err := tree.ReadFile(files, name, 100); err != nil || string(got) != "second one" {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
	f, _ := files.Lstat("d/f")
	hard, _ := files.Lstat("d/hard")
	if f.File != hard.File || f.File == (tree.FileID{}) {
		t.Errorf("files %v and %v", f.File, hard.File)
	}
	if d, err := files.Lstat("d"); err != nil || d.Mode.Perm() != 0o700 {
		t.Errorf("directory %v, %v", d.Mode, err)
	}
}

func FuzzReadTar(f *testing.F) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Name: "a/b", Mode: 0o644, Size: 1})
	w.Write([]byte("x"))
	w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "a"})
	w.Close()
	f.Add(b.Bytes())
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, archive []byte) {
		files, err := ReadTar(bytes.NewReader(archive), dir)
		if err != nil {
			return
		}
		defer files.Close()
		if err := tree.Walk(files, ".", func(tree.Entry) error { return nil }); err != nil {
			t.Errorf("walk: %v", err)
		}
	})
}

func TestIsGit(t *testing.T) {
	for url, want := range map[string]bool{
		"git://h/x": true, "git@h:x": true, "ssh://h/x": true, "github.com/a/b": true, "https://h/x.git": true,
		"https://h/x.git#b:d": true, "https://h/x.tar.gz": false, "http://h/git": false, "/dir/x.git": false,
	} {
		if IsGit(url) != want {
			t.Errorf("%s: %v", url, !want)
		}
	}
}
