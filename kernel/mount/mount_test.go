package mount

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"davit/kernel/ns"
	"davit/kernel/sys"
	"davit/oci/rootfs"
)

const hostBase = 1 << 20

// layersOf makes a root file system of three layers, the topmost hiding a file of the lowest.
func layersOf(t *testing.T) rootfs.Rootfs {
	t.Helper()
	dir := t.TempDir()
	r := rootfs.Rootfs{Upper: dir + "/c/fs", Work: dir + "/c/work"}
	for i := range 3 {
		layer := fmt.Sprintf("%s/layer%d", dir, i)
		r.Lower = append(r.Lower, layer)
		write(t, layer+"/same", fmt.Sprint(i))
		write(t, fmt.Sprintf("%s/only%d", layer, i), "x")
	}
	for _, d := range []string{r.Upper, r.Work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// userNS returns a user namespace that maps 65536 ids from hostBase on, held by a sleeping process.
func userNS(t *testing.T) *os.File {
	t.Helper()
	ids := []syscall.SysProcIDMap{{HostID: hostBase, Size: 65536}}
	holder := exec.Command("sleep", "1000")
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { holder.Process.Kill(); holder.Wait() })
	f, err := ns.Open(holder.Process.Pid, "user")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// Every way to mount shows the same tree, takes writes into the upper directory, and leaves no trace
// in the host's mount table.
func TestRootfs(t *testing.T) {
	mapping := Mapping{UserNS: userNS(t), UID: hostBase, GID: hostBase}
	for name, test := range map[string]struct {
		mapping Mapping
		mount   func(*layers) (*os.File, error)
		mounted bool // one layer is a mount of its own
	}{
		"new-interface":               {Mapping{}, (*layers).mount, false},
		"new-interface-idmapped":      {mapping, (*layers).mount, false},
		"new-interface-idmapped-each": {mapping, (*layers).mount, true},
		"classic":                     {Mapping{}, (*layers).classic, false},
		"classic-idmapped":            {mapping, (*layers).classic, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := layersOf(t)
			if test.mounted {
				mountOver(t, r.Lower[1])
			}
			before := mountTable(t)
			l := &layers{rootfs: r, mapping: test.mapping}
			defer l.close()
			l.openBase()
			if (l.base != nil) != (test.mapping.UserNS != nil) {
				t.Errorf("one mount for all layers: %v", l.base)
			}
			if err := l.open(); err != nil {
				t.Fatal(err)
			}
			tree, err := test.mount(l)
			if err != nil {
				t.Fatal(err)
			}
			defer tree.Close()
			look(t, tree, r, test.mapping)
			if after := mountTable(t); after != before {
				t.Errorf("the mount table changed:\n%s\n%s", before, after)
			}
		})
	}
}

// mountOver puts a tmpfs with the same content over a directory, until the test ends.
func mountOver(t *testing.T, dir string) {
	t.Helper()
	content := os.DirFS(dir)
	fs, err := sys.FsOpen("tmpfs")
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	if err := sys.FsCreate(fs); err != nil {
		t.Fatal(err)
	}
	tree, err := sys.FsMount(fs, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	if err := os.CopyFS(fmt.Sprintf("/proc/self/fd/%d/", tree.Fd()), content); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "same")); err != nil { // so that the wrong directory shows
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "only1")); err != nil {
		t.Fatal(err)
	}
	if err := sys.MoveMount(tree, nil, dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

func look(t *testing.T, tree *os.File, r rootfs.Rootfs, m Mapping) {
	t.Helper()
	at := func(name string) string { return fmt.Sprintf("/proc/self/fd/%d/%s", tree.Fd(), name) }
	if text, err := os.ReadFile(at("same")); err != nil || string(text) != "2" {
		t.Errorf("the topmost layer does not win: %q, %v", text, err)
	}
	for i := range 3 {
		if _, err := os.Stat(at(fmt.Sprintf("only%d", i))); err != nil {
			t.Error(err)
		}
	}
	var st syscall.Stat_t
	if err := syscall.Stat(at("same"), &st); err != nil || int(st.Uid) != m.UID || int(st.Gid) != m.GID {
		t.Errorf("a file belongs to %d:%d, %v, want %d:%d", st.Uid, st.Gid, err, m.UID, m.GID)
	}
	if m.UserNS != nil {
		return // the host's root has no id there; the container's own writes are package ociruntime's to test
	}
	if err := os.WriteFile(at("new"), []byte("n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(r.Upper, "new")); err != nil || string(text) != "n" {
		t.Errorf("a write is not in the upper directory: %q, %v", text, err)
	}
}

func mountTable(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestSingleReadOnlyLayer(t *testing.T) {
	r := layersOf(t)
	tree, err := Rootfs(rootfs.Rootfs{Lower: r.Lower[:1]}, Mapping{})
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	if err := os.WriteFile(fmt.Sprintf("/proc/self/fd/%d/new", tree.Fd()), nil, 0o644); err == nil {
		t.Error("a read-only root file system takes writes")
	}
}
