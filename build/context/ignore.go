package context

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"

	"davit/build/tree"
	"davit/oci/errdefs"
)

const maxIgnoreFile = 1 << 20

// Ignored returns t without what its .dockerignore excludes. A file named like the Dockerfile with the
// suffix ".dockerignore" wins over the one at the root.
func Ignored(t tree.Tree, dockerfile string) (tree.Tree, error) {
	for _, name := range []string{tree.Clean(dockerfile) + ".dockerignore", ".dockerignore"} {
		content, err := tree.ReadFile(t, name, maxIgnoreFile)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		patterns, err := ignorefile.ReadAll(bytes.NewReader(content))
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		if len(patterns) == 0 {
			return t, nil
		}
		filtered, err := Filter(t, patterns)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return filtered, nil
	}
	return t, nil
}

// filtered shows the paths of visible only.
type filtered struct {
	tree.Tree
	visible map[string]bool
}

// Filter returns t without what patterns, in the language of .dockerignore, exclude. A directory that
// is excluded but holds something that is not ("!" patterns) stays visible.
func Filter(t tree.Tree, patterns []string) (tree.Tree, error) {
	matcher, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, errdefs.As(errdefs.ErrInvalid, err)
	}
	f := &filtered{Tree: t, visible: map[string]bool{".": true}}
	if err := f.scan(matcher, ".", patternmatcher.MatchInfo{}); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *filtered) scan(m *patternmatcher.PatternMatcher, dir string, above patternmatcher.MatchInfo) error {
	entries, err := f.Tree.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		excluded, info, err := m.MatchesUsingParentResults(e.Path, above)
		if err != nil {
			return fmt.Errorf("match %s: %w", e.Path, err)
		}
		if !excluded {
			f.show(e.Path)
		}
		if e.IsDir() && (!excluded || m.Exclusions()) {
			if err := f.scan(m, e.Path, info); err != nil {
				return err
			}
		}
	}
	return nil
}

// show makes a path visible, and the directories above it.
func (f *filtered) show(name string) {
	for ; !f.visible[name]; name = path.Dir(name) {
		f.visible[name] = true
	}
}

func (f *filtered) hidden(op, name string) error {
	if f.visible[name] {
		return nil
	}
	return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
}

// Lstat implements tree.Tree.
func (f *filtered) Lstat(name string) (tree.Entry, error) {
	if err := f.hidden("lstat", name); err != nil {
		return tree.Entry{}, err
	}
	return f.Tree.Lstat(name)
}

// ReadDir implements tree.Tree.
func (f *filtered) ReadDir(name string) ([]tree.Entry, error) {
	if err := f.hidden("open", name); err != nil {
		return nil, err
	}
	entries, err := f.Tree.ReadDir(name)
	if err != nil {
		return nil, err
	}
	shown := entries[:0:0]
	for _, e := range entries {
		if f.visible[e.Path] {
			shown = append(shown, e)
		}
	}
	return shown, nil
}

// Open implements tree.Tree.
func (f *filtered) Open(name string) (io.ReadCloser, error) {
	if err := f.hidden("open", name); err != nil {
		return nil, err
	}
	return f.Tree.Open(name)
}

// Sum implements tree.Summed for a tree that does.
func (f *filtered) Sum(name string) (tree.Sum, bool) {
	if s, ok := f.Tree.(tree.Summed); ok && f.visible[name] {
		return s.Sum(name)
	}
	return tree.Sum{}, false
}
