package metadata

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"davit/oci/errdefs"
)

// smallDisk mounts a file system of some MiB.
func smallDisk(t *testing.T, kind string, size int64) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root")
	}
	image, dir := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	must := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
	}
	must("truncate", "-s", fmt.Sprint(size), image)
	must("mkfs."+kind, "-q", image)
	must("mount", "-o", "loop", image, dir)
	t.Cleanup(func() { must("umount", dir) })
	return dir
}

// fill writes until not one byte more fits.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	name := filepath.Join(dir, "ballast")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 4096, 512} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
		if !errdefs.NoSpace(err) {
			t.Fatal(err)
		}
		syscall.Sync()
	}
	return func() {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}

// Records are removed and changed while the disk is full; adding ends with the right class of error,
// changes nothing, and works again once there is room.
func TestFullDisk(t *testing.T) {
	dir := smallDisk(t, "ext4", 16<<20)
	path := filepath.Join(dir, "db")
	db := open(t, path)
	table := NewTable[string]("things")
	put := func(from, to int) error {
		return db.Update(func(tx *Tx) error {
			for i := from; i < to; i++ {
				if err := table.Put(tx, fmt.Sprintf("%06d", i), strings.Repeat("x", 1000)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := put(0, 500); err != nil {
		t.Fatal(err)
	}
	free := fill(t, dir)
	n := 500
	var err error
	for ; err == nil && n < 5000; n += 50 {
		err = put(n, n+50)
	}
	if !errdefs.NoSpace(err) {
		t.Fatalf("no error of a full disk after %d records: %v", n, err)
	}
	n -= 50
	for i := 0; i < n; i += 5 {
		if err := db.Update(func(tx *Tx) error { return table.Delete(tx, fmt.Sprintf("%06d", i)) }); err != nil {
			t.Fatalf("delete record %d: %v", i, err)
		}
	}
	count := func() (c int) {
		if err := db.View(func(tx *Tx) error {
			for range table.All(tx) {
				c++
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		return c
	}
	if got, want := count(), n-(n+4)/5; got != want {
		t.Errorf("%d records are left, want %d", got, want)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, path) // on the full disk
	free()
	if err := put(n, n+1000); err != nil || count() != n-(n+4)/5+1000 {
		t.Errorf("after there is room: %v, %d records", err, count())
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}
