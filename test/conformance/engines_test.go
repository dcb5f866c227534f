package conformance

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Engines of other people run their containers with davit-oci. Each engine has a network, a mount table
// and process ids of its own, so that all of it ends with the script that drives it.
func TestEngines(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for name, least := range map[string]int{"podman": 16, "docker": 23} {
		t.Run(name, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "davit-"+name+"-")
			if err != nil {
				t.Fatal(err)
			}
			parent := fmt.Sprintf("/davit-conformance-%d-%s", os.Getpid(), name)
			t.Cleanup(func() { clean(t, dir, parent) })
			image := filepath.Join(dir, "image.tar")
			if out, err := exec.Command(filepath.Join(root, "examples/base/busybox.sh"), image).CombinedOutput(); err != nil {
				t.Fatalf("make image: %v\n%s", err, out)
			}
			out := drive(t, filepath.Join(root, "test/conformance/testdata", name+".sh"), filepath.Join(root, "bin/davit-oci"), dir, image, parent)
			if passed := strings.Count("\n"+out, "\nok "); passed < least || strings.Contains(out, "not ok") {
				t.Errorf("%d checks of %d passed:\n%s", passed, least, out)
			}
		})
	}
}

// The systemd cgroup driver, below a systemd that the test starts.
func TestSystemd(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "davit-systemd-")
	if err != nil {
		t.Fatal(err)
	}
	parent := fmt.Sprintf("/davit-conformance-%d-systemd", os.Getpid())
	t.Cleanup(func() { clean(t, dir, parent) })
	image := filepath.Join(dir, "image.tar")
	if out, err := exec.Command(filepath.Join(root, "examples/base/busybox.sh"), image).CombinedOutput(); err != nil {
		t.Fatalf("make image: %v\n%s", err, out)
	}
	out := drive(t, filepath.Join(root, "test/conformance/testdata/systemd.sh"), filepath.Join(root, "bin"), dir, image, parent)
	if passed := strings.Count("\n"+out, "\nok "); passed < 20 || strings.Contains(out, "not ok") {
		t.Errorf("%d checks passed:\n%s", passed, out)
	}
}

// drive runs a script in namespaces that end with it, and returns what it prints.
func drive(t *testing.T, script string, args ...string) string {
	t.Helper()
	inside := []string{
		"--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private",
		"sh", "-c", `ip link set lo up && sh "$@"`, "sh", script,
	}
	cmd := exec.Command("unshare", append(inside, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v", filepath.Base(script), err)
	}
	return string(out)
}

// clean removes an engine's directory and the control groups that it leaves to its successors.
func clean(t *testing.T, dir, parent string) {
	var groups []string
	hierarchies, err := filepath.Glob("/sys/fs/cgroup/*" + parent)
	if err != nil {
		t.Error(err)
	}
	for _, group := range append(hierarchies, "/sys/fs/cgroup"+parent) {
		err := filepath.WalkDir(group, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				groups = append(groups, path)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	for _, group := range slices.Backward(groups) {
		if err := os.Remove(group); err != nil {
			t.Error(err)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
}
