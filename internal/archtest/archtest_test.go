package archtest

import (
	"bufio"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const root = "../.."

// imports of one package of the tree.
type imports struct {
	product map[string]bool // by its ordinary files
	tests   map[string]bool // by its _test.go files
}

// scan reads the import lines of every Go file of the module, whatever its build tags.
func scan(t *testing.T) map[string]imports {
	t.Helper()
	packages := map[string]imports{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return skipDir(path, d)
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		return addFile(packages, path)
	})
	if err != nil {
		t.Fatal(err)
	}
	return packages
}

// skipDir leaves out what is not part of the module: hidden and testdata directories and nested modules.
func skipDir(path string, d fs.DirEntry) error {
	if path == root {
		return nil
	}
	name := d.Name()
	if strings.HasPrefix(name, ".") || name == "testdata" || name == "bin" {
		return filepath.SkipDir
	}
	if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil {
		return filepath.SkipDir
	}
	return nil
}

func addFile(packages map[string]imports, path string) error {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
	if err != nil {
		return err
	}
	dir, err := filepath.Rel(root, filepath.Dir(path))
	if err != nil {
		return err
	}
	p, ok := packages[dir]
	if !ok {
		p = imports{map[string]bool{}, map[string]bool{}}
		packages[dir] = p
	}
	into := p.product
	if strings.HasSuffix(path, "_test.go") {
		into = p.tests
	}
	for _, spec := range file.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return err
		}
		into[name] = true
	}
	return nil
}

// lines returns the first word and the rest of each line of a file of the root, without comments.
func lines(t *testing.T, name, separator string) map[string]string {
	t.Helper()
	file, err := os.Open(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	found := map[string]string{}
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		line := strings.TrimSpace(scanner.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, rest, _ := strings.Cut(line, separator)
		if _, twice := found[key]; twice {
			t.Errorf("%s lists %s twice", name, key)
		}
		found[key] = strings.TrimSpace(rest)
	}
	return found
}

func TestLayers(t *testing.T) {
	layers, packages := lines(t, "layers.txt", ":"), scan(t)
	for dir, p := range packages {
		line, listed := layers[dir]
		if !listed {
			t.Errorf("package %s is not in layers.txt", dir)
			continue
		}
		allowed := strings.Fields(line)
		for name := range p.product {
			if own, ok := strings.CutPrefix(name, "davit/"); ok && !slices.Contains(allowed, own) {
				t.Errorf("%s imports %s, which layers.txt does not allow", dir, own)
			}
		}
		for _, own := range allowed {
			if !p.product["davit/"+own] {
				t.Errorf("layers.txt lets %s import %s, which it does not", dir, own)
			}
		}
	}
	for dir := range layers {
		if _, ok := packages[dir]; !ok {
			t.Errorf("layers.txt lists %s, which is not a package", dir)
		}
	}
}

// Rules that a list of allowed imports cannot say.
func TestBans(t *testing.T) {
	for dir, p := range scan(t) {
		kernelSide := dir == "kernel/sys" || dir == "cmd/davit-init"
		for _, name := range []string{"golang.org/x/sys/unix", "unsafe"} {
			if p.product[name] && !kernelSide {
				t.Errorf("%s imports %s: only kernel/sys (and davit-init, which links nothing else) speaks to the kernel directly", dir, name)
			}
		}
		if strings.HasPrefix(dir, "oci") && !strings.HasPrefix(dir, "ociruntime") {
			for name := range p.product {
				if first, _, _ := strings.Cut(name, "/"); strings.Contains(first, ".") {
					t.Errorf("%s imports %s: the vocabulary uses the standard library alone", dir, name)
				}
			}
		}
		for name := range p.product {
			for _, word := range []string{"util", "common", "helpers", "misc", "base"} {
				if strings.HasPrefix(name, "davit/") && filepath.Base(name) == word {
					t.Errorf("package %s: %q says nothing about what is in it", name, word)
				}
			}
		}
	}
}

func TestDeps(t *testing.T) {
	deps, packages := lines(t, "deps.txt", " "), scan(t)
	used := map[string]bool{}
	for dir, p := range packages {
		for _, set := range []map[string]bool{p.product, p.tests} {
			for name := range set {
				first, _, _ := strings.Cut(name, "/")
				if !strings.Contains(first, ".") {
					continue
				}
				module := moduleOf(deps, name)
				if module == "" {
					t.Errorf("%s imports %s, whose module deps.txt does not list with a reason", dir, name)
				}
				used[module] = true
			}
		}
	}
	for module, reason := range deps {
		if reason == "" {
			t.Errorf("deps.txt gives no reason for %s", module)
		}
		if !used[module] {
			t.Errorf("deps.txt lists %s, which nothing imports", module)
		}
	}
}

func moduleOf(deps map[string]string, name string) string {
	for prefix := name; strings.Contains(prefix, "/"); prefix = prefix[:strings.LastIndexByte(prefix, '/')] {
		if _, ok := deps[prefix]; ok {
			return prefix
		}
	}
	return ""
}
