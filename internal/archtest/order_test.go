package archtest

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// listed are the packages of layers.txt in its order, from the bottom of the tree to its top.
func listed(t *testing.T) []string {
	t.Helper()
	file, err := os.Open(filepath.Join(root, "layers.txt"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var dirs []string
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		line := strings.TrimSpace(scanner.Text())
		if dir, _, ok := strings.Cut(line, ":"); ok && !strings.HasPrefix(line, "#") {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

func TestImportsPointDownward(t *testing.T) {
	order, packages := listed(t), scan(t)
	for at, dir := range order {
		for name := range packages[dir].product {
			own, ok := strings.CutPrefix(name, "davit/")
			if ok && !slices.Contains(order[:at], own) {
				t.Errorf("%s imports %s, which layers.txt does not list above it", dir, own)
			}
		}
	}
}

// ban says what a program or package may not contain, directly or by what it imports.
type ban struct {
	dir    string
	never  []string // import paths; all below them are meant too
	reason string
}

var linkBans = []ban{
	{"cli", []string{"davit/engine", "davit/image", "davit/store", "davit/task", "davit/build"}, "the command speaks to the engine by its API alone"},
	{"cmd/davit", []string{"net/http", "crypto/tls", "compress", "github.com/klauspost", "davit/engine", "davit/registry/client"}, "the command starts in milliseconds; davitd connect is its TLS"},
	{"cmd/davit-oci", []string{"net/http", "crypto/tls", "go.etcd.io", "davit/engine", "davit/api", "davit/image"}, "runtime and monitor know neither API nor database"},
	{"cmd/davit-init", []string{"fmt", "encoding/json", "regexp", "net", "os/exec"}, "the first code in a container pays for each package initialiser"},
	{"task", []string{"davit/ociruntime", "davit/monitor", "davit/kernel/cgroup"}, "the engine's side of the monitor speaks to it over a socket"},
	{"image", []string{"davit/registry", "davit/api", "davit/engine", "net/http"}, "an image is copied from whatever content source it is handed"},
	{"engine", []string{"davit/ociruntime", "davit/monitor", "davit/registry/client", "davit/registry/server", "davit/api"}, "cmd/davitd alone chooses implementations"},
	{"ociruntime", []string{"davit/store", "davit/network", "davit/task", "davit/monitor"}, "the runtime is a library below the monitor"},
}

func TestLinkBans(t *testing.T) {
	for _, b := range linkBans {
		t.Run(b.dir, func(t *testing.T) {
			for _, name := range linked(t, b.dir) {
				for _, never := range b.never {
					if name == never || strings.HasPrefix(name, never+"/") && never != "net" {
						t.Errorf("%s contains %s: %s", b.dir, name, b.reason)
					}
				}
			}
		})
	}
}

// linked are the import paths of all packages that dir is built from.
func linked(t *testing.T, dir string) []string {
	t.Helper()
	list := exec.Command("go", "list", "-deps", "./"+dir)
	list.Dir, list.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	out, err := list.Output()
	if err != nil {
		t.Fatalf("%s: %v", list, err)
	}
	return strings.Fields(string(out))
}

// Deciding is separate from doing: these packages touch no file, socket or process.
func TestDecidingDoesNoIO(t *testing.T) {
	packages := scan(t)
	for _, dir := range []string{"build/solve", "build/plan", "engine/container"} {
		for name := range packages[dir].product {
			if slices.Contains([]string{"os", "io/ioutil", "net", "net/http", "os/exec", "syscall", "path/filepath"}, name) {
				t.Errorf("%s imports %s: it decides and does nothing", dir, name)
			}
		}
	}
	for name := range packages["ociruntime/plan"].product {
		// Plans speak of open flags and file types, but open nothing: os.FileMode and syscall constants.
		if slices.Contains([]string{"net", "os/exec", "io/ioutil", "davit/kernel/sys"}, name) {
			t.Errorf("ociruntime/plan imports %s: it decides and does nothing", name)
		}
	}
}
