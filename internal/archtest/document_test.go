package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	// inFile is a word in backquotes like `engine/create.go`, or `engine/create.go Containers.Create`.
	inFile = regexp.MustCompile("`([a-z0-9_/-]+\\.go)(?: ([A-Za-z][A-Za-z0-9.]*))?`")
	// inPackage is a word in backquotes like `container.BuildSpec` or `engine.Containers.Create`.
	inPackage = regexp.MustCompile("`([a-z][a-z0-9]*)\\.([A-Za-z][A-Za-z0-9]*)(?:\\.([A-Za-z][A-Za-z0-9]*))?`")
)

// names are what a package declares: functions, types, values, methods and fields (as Type.Method),
// and the files that declare them.
type names map[string][]string

func declared(t *testing.T, dir string) names {
	t.Helper()
	found := names{}
	files, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			for _, name := range namesOf(d) {
				found[name] = append(found[name], filepath.Base(path))
			}
		}
	}
	return found
}

func namesOf(d ast.Decl) []string {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil {
			return []string{d.Name.Name}
		}
		return []string{receiver(d.Recv.List[0].Type) + "." + d.Name.Name}
	case *ast.GenDecl:
		var all []string
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				all = append(all, s.Name.Name)
				all = append(all, membersOf(s)...)
			case *ast.ValueSpec:
				for _, name := range s.Names {
					all = append(all, name.Name)
				}
			}
		}
		return all
	}
	return nil
}

func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

// membersOf are a struct's fields and an interface's methods.
func membersOf(s *ast.TypeSpec) []string {
	var fields *ast.FieldList
	switch u := s.Type.(type) {
	case *ast.StructType:
		fields = u.Fields
	case *ast.InterfaceType:
		fields = u.Methods
	default:
		return nil
	}
	var all []string
	for _, field := range fields.List {
		for _, name := range field.Names {
			all = append(all, s.Name.Name+"."+name.Name)
		}
	}
	return all
}

// The documents name files and functions of the code: each of them exists.
func TestDocumentsNameWhatExists(t *testing.T) {
	documents := []string{"ARCHITECTURE.md", "GLOSSARY.md", "README.md"}
	more, err := filepath.Glob(filepath.Join(root, "docs/*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range more {
		documents = append(documents, "docs/"+filepath.Base(path))
	}
	byName := map[string][]string{} // package name -> directories
	for dir := range scan(t) {
		byName[filepath.Base(dir)] = append(byName[filepath.Base(dir)], dir)
	}
	for _, document := range documents {
		t.Run(document, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(root, document))
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range inFile.FindAllStringSubmatch(string(text), -1) {
				checkFile(t, m[1], m[2])
			}
			for _, m := range inPackage.FindAllStringSubmatch(string(text), -1) {
				if dirs := byName[m[1]]; dirs != nil && !isExtension(m[2]) {
					checkName(t, dirs, m)
				}
			}
		})
	}
}

// isExtension tells `layer.json`, a file, from `layer.Store`, a name.
func isExtension(word string) bool {
	return slices.Contains([]string{"go", "json", "db", "sock", "log", "txt"}, word)
}

func checkFile(t *testing.T, path, name string) {
	if info, err := os.Stat(filepath.Join(root, path)); err != nil || !info.Mode().IsRegular() {
		t.Errorf("there is no file %s", path)
		return
	}
	if name == "" {
		return
	}
	for _, file := range declared(t, filepath.Dir(path))[name] {
		if file == filepath.Base(path) {
			return
		}
	}
	t.Errorf("%s declares no %s", path, name)
}

// checkName looks for pkg.Name, pkg.Type.Member, and pkg.Method of whatever type.
func checkName(t *testing.T, dirs, m []string) {
	name := m[2]
	if m[3] != "" {
		name += "." + m[3]
	}
	for _, dir := range dirs {
		for known := range declared(t, dir) {
			if known == name || m[3] == "" && strings.HasSuffix(known, "."+name) {
				return
			}
		}
	}
	t.Errorf("no package %s declares %s", m[1], name)
}

// Every package of layers.txt is described in ARCHITECTURE.md, and so is no other.
func TestArchitectureDescribesEveryPackage(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile("(?m)^\\| `([a-z0-9/-]+)` \\|")
	described := map[string]bool{}
	for _, m := range line.FindAllStringSubmatch(string(text), -1) {
		described[m[1]] = true
		if info, err := fs.Stat(os.DirFS(root), m[1]); err != nil || !info.IsDir() {
			t.Errorf("ARCHITECTURE.md describes %s, which is no directory", m[1])
		}
	}
	for _, dir := range listed(t) {
		if !described[dir] {
			t.Errorf("ARCHITECTURE.md has no line for package %s", dir)
		}
	}
}

// Every decision is in the index.
func TestDecisionsAreListed(t *testing.T) {
	index, err := os.ReadFile(filepath.Join(root, "docs/adr/README.md"))
	if err != nil {
		t.Fatal(err)
	}
	decisions, err := filepath.Glob(filepath.Join(root, "docs/adr/[0-9]*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range decisions {
		if !strings.Contains(string(index), "("+filepath.Base(path)+")") {
			t.Errorf("docs/adr/README.md does not list %s", filepath.Base(path))
		}
	}
}
