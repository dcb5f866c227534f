package script

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"rsc.io/script"
)

// smallDisk is an engine whose data root has a file system of its own, of some MiB.
type smallDisk struct {
	*engine
	dir  string
	tree []string // what "remember" saw
}

// TestFullDisk runs the scripts of testdata/fulldisk, each with an engine on a disk that fills up.
func TestFullDisk(t *testing.T) {
	files, err := filepath.Glob("testdata/fulldisk/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			d := newSmallDisk(t, 48<<20)
			before := d.residue(t)
			d.run(t, d.commands(), file)
			d.free(t)
			d.wantNothingLeft(t, before)
		})
	}
}

func newSmallDisk(t *testing.T, size int64) *smallDisk {
	t.Helper()
	dir, image := t.TempDir(), filepath.Join(t.TempDir(), "disk")
	for _, args := range [][]string{
		{"truncate", "-s", fmt.Sprint(size), image},
		{"mkfs.ext4", "-q", "-m", "0", image},
		{"mount", "-o", "loop", image, dir},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	t.Cleanup(func() { // after the engine has ended
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("unmount the small disk: %v: %s", err, out)
		}
	})
	return &smallDisk{engine: newEngineIn(t, filepath.Join(dir, "data")), dir: dir}
}

func (d *smallDisk) commands() map[string]script.Cmd {
	commands := d.engine.commands()
	add := func(name, summary, args string, run func(*script.State, ...string) (script.WaitFunc, error)) {
		commands[name] = script.Command(script.CmdUsage{Summary: summary, Args: args}, run)
	}
	add("fill", "fill the disk but for some KiB", "[KiB]", d.fill)
	add("fill-inodes", "make files until the disk takes no more, though it has room", "", d.fillInodes)
	add("empty", "make room again", "", func(*script.State, ...string) (script.WaitFunc, error) {
		return nil, os.RemoveAll(filepath.Join(d.dir, "ballast"))
	})
	add("remember", "note which files the data root has", "", func(*script.State, ...string) (script.WaitFunc, error) {
		d.tree = slices.DeleteFunc(d.files(), onItsWay)
		return nil, nil
	})
	add("unchanged", "fail unless the data root has the files that were noted", "", d.unchanged)
	return commands
}

// fill writes ballast until not one more byte fits, and then gives some KiB back.
func (d *smallDisk) fill(_ *script.State, args ...string) (script.WaitFunc, error) {
	for deadline := time.Now().Add(5 * time.Second); slices.ContainsFunc(d.files(), onItsWay) && time.Now().Before(deadline); {
		<-time.After(10 * time.Millisecond)
	}
	dir := filepath.Join(d.dir, "ballast")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	for i, size := range []int{1 << 20, 64 << 10, 4 << 10, 1 << 10} {
		for n := 0; ; n++ {
			name := filepath.Join(dir, fmt.Sprintf("%d-%d", i, n))
			if err := os.WriteFile(name, make([]byte, size), 0o600); err != nil {
				break
			}
		}
		if out, err := exec.Command("sync", "-f", d.dir).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("sync: %w: %s", err, out)
		}
	}
	if len(args) == 0 {
		return nil, nil
	}
	kib, err := strconv.Atoi(args[0])
	for n := 0; err == nil && n < (kib+63)/64; n++ {
		err = os.Truncate(filepath.Join(dir, fmt.Sprintf("0-%d", n/16)), int64(15-n%16)*(64<<10))
	}
	return nil, err
}

// fillInodes makes empty files until there is no inode left.
func (d *smallDisk) fillInodes(*script.State, ...string) (script.WaitFunc, error) {
	for n := 0; ; n++ {
		dir := filepath.Join(d.dir, "ballast", strconv.Itoa(n/1000))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, nil
		}
		if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(n)), nil, 0o600); err != nil {
			return nil, nil
		}
	}
}

func (d *smallDisk) free(t *testing.T) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(d.dir, "ballast")); err != nil {
		t.Error(err)
	}
}

// files are the paths in the data root, but for the marks that the layer store sets some seconds after a
// layer came.
func (d *smallDisk) files() []string {
	var all []string
	_ = filepath.WalkDir(d.data, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && filepath.Base(path) != "durable" { // what is being deleted may vanish under the walk
			all = append(all, strings.TrimPrefix(path, d.data))
		}
		return nil
	})
	return all
}

// onItsWay says that a path is about to be deleted.
func onItsWay(path string) bool { return strings.Contains(path, "trash/") }

// unchanged waits a little: trees are deleted in the background.
func (d *smallDisk) unchanged(*script.State, ...string) (script.WaitFunc, error) {
	var more, fewer []string
	for deadline := time.Now().Add(5 * time.Second); ; {
		now := d.files()
		more = slices.DeleteFunc(slices.Clone(now), func(f string) bool { return slices.Contains(d.tree, f) })
		fewer = slices.DeleteFunc(slices.Clone(d.tree), func(f string) bool { return slices.Contains(now, f) })
		if len(more)+len(fewer) == 0 {
			return nil, nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("the data root has changed: more %q, fewer %q", more, fewer)
		}
		<-time.After(20 * time.Millisecond)
	}
}
