package passwd

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"davit/engine/container"
	"davit/oci/errdefs"
	"davit/oci/rootfs"
)

const (
	passwdFile = "root:x:0:0:root:/root:/bin/sh\n# a comment\nbad line\nweb:x:33:33:web:/var/www:/bin/false\n1000:x:5:5:a name of digits:/five:\n"
	groupFile  = "root:x:0:\nweb:x:33:\nadm:x:4:web,root\nbroken\n"
)

// overlay makes layer directories, lowest first, each of the files given by name.
func overlay(t *testing.T, layers ...map[string]string) rootfs.Rootfs {
	t.Helper()
	var r rootfs.Rootfs
	for _, files := range layers {
		dir := t.TempDir()
		for name, content := range files {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		r.Lower = append(r.Lower, dir)
	}
	return r
}

func TestLookup(t *testing.T) {
	root := overlay(t, map[string]string{"etc/passwd": passwdFile, "etc/group": groupFile})
	for spec, want := range map[string]container.User{
		"":         {Groups: []uint32{0, 4}, Home: "/root"},
		"web":      {UID: 33, GID: 33, Groups: []uint32{33, 4}, Home: "/var/www"},
		"33":       {UID: 33, GID: 33, Groups: []uint32{33, 4}, Home: "/var/www"},
		"web:adm":  {UID: 33, GID: 4, Groups: []uint32{4}, Home: "/var/www"},
		"7:9":      {UID: 7, GID: 9, Groups: []uint32{9}, Home: "/"},
		"7":        {UID: 7, Groups: []uint32{0}, Home: "/"},
		"1000":     {UID: 5, GID: 5, Groups: []uint32{5}, Home: "/five"},
		"root:web": {GID: 33, Groups: []uint32{33}, Home: "/root"},
	} {
		got, err := Lookup(root, spec, nil)
		if err != nil {
			t.Errorf("%q: %v", spec, err)
		} else if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%q: -want +got\n%s", spec, d)
		}
	}
	for spec, want := range map[string]string{
		"nobody": "unable to find user nobody: no matching entries in passwd file",
		"web:no": "unable to find group no: no matching entries in group file",
		"-1":     "unable to find user -1: no matching entries in passwd file",
	} {
		if _, err := Lookup(root, spec, nil); !errors.Is(err, errdefs.ErrInvalid) || err.Error() != want {
			t.Errorf("%q: got %v, want %s", spec, err, want)
		}
	}
	got, err := Lookup(root, "7", []string{"adm", "88", "adm"})
	if err != nil || !cmp.Equal(got.Groups, []uint32{0, 4, 88}) {
		t.Errorf("extra groups: %v, %v", got.Groups, err)
	}
}

func read(t *testing.T, r rootfs.Rootfs, name string) string {
	t.Helper()
	b, err := Read(r, name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestReadFindsWhatAnOverlayShows(t *testing.T) {
	r := overlay(t, map[string]string{"etc/passwd": "low", "etc/group": "low", "d/f": "low"}, map[string]string{"etc/passwd": "high"})
	r.Upper = t.TempDir()
	if got := read(t, r, "/etc/passwd"); got != "high" {
		t.Errorf("upper layer: got %q", got)
	}
	if got := read(t, r, "/etc/group"); got != "low" {
		t.Errorf("only below: got %q", got)
	}
	if err := os.MkdirAll(filepath.Join(r.Upper, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mknod(filepath.Join(r.Upper, "etc/passwd"), syscall.S_IFCHR, 0); err != nil {
		t.Fatal(err)
	}
	if got := read(t, r, "/etc/passwd"); got != "" {
		t.Errorf("whiteout: got %q", got)
	}
	if err := os.Mkdir(filepath.Join(r.Upper, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setxattr(filepath.Join(r.Upper, "d"), "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		t.Fatal(err)
	}
	if got := read(t, r, "/d/f"); got != "" {
		t.Errorf("opaque directory: got %q", got)
	}
}

func TestReadFollowsLinksInsideAlone(t *testing.T) {
	r := overlay(t, map[string]string{"real/passwd": "inside"})
	low := r.Lower[0]
	for link, target := range map[string]string{"etc": "/real", "up": "../../../../../real/passwd", "loop": "loop", "out": "/etc/hostname"} {
		if err := os.Symlink(target, filepath.Join(low, link)); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t, r, "/etc/passwd"); got != "inside" {
		t.Errorf("absolute link: got %q", got)
	}
	if got := read(t, r, "/up"); got != "inside" {
		t.Errorf("link above the root: got %q", got)
	}
	if got := read(t, r, "/out"); got != "" {
		t.Errorf("a file of the host was read: %q", got)
	}
	if _, err := Read(r, "/loop"); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("loop: got %v", err)
	}
	if err := syscall.Mkfifo(filepath.Join(low, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := read(t, r, "/fifo"); got != "" {
		t.Errorf("fifo: got %q", got)
	}
}
