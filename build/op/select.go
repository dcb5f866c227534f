package op

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/moby/patternmatcher"

	"davit/build/tree"
	"davit/oci/errdefs"
)

// source is one thing to copy.
type source struct {
	tree     tree.Tree
	entry    tree.Entry
	name     string // at its destination: that of a link, not of the file that it leads to
	contents bool   // a directory's contents rather than itself
	under    string // with --parents: the directory below the destination that it goes to; else "."
	own      bool   // keep the owners of the files; else they become root's
	remote   bool   // it came from a URL
}

// missing is docker's message for a source that is not there.
func missing(instruction, name string) error {
	return errdefs.NotFound("%s failed: file not found in build context or excluded by .dockerignore: stat %s: file does not exist", instruction, name)
}

// selectSources finds what the paths of COPY or ADD name in t. Paths may have wildcards, of which one
// has to match something.
func selectSources(t tree.Tree, instruction string, paths []string, parents, own bool) ([]source, error) {
	var all []source
	for _, name := range paths {
		found, err := selectPath(t, name, parents)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, missing(instruction, strings.TrimPrefix(name, "/"))
		}
		if err != nil {
			return nil, fmt.Errorf("%s failed: %w", instruction, err)
		}
		if len(found) == 0 {
			return nil, errdefs.NotFound("%s failed: no source files were specified: nothing matches %s", instruction, name)
		}
		for i := range found {
			found[i].own = own
		}
		all = append(all, found...)
	}
	return all, nil
}

// selectPath resolves one path. Symbolic links on the way are followed inside the tree; so is the last
// one, except with --parents, which keeps the names.
func selectPath(t tree.Tree, name string, parents bool) ([]source, error) {
	pivot := "."
	if parents {
		if before, after, ok := strings.Cut("/"+name, "/./"); ok {
			pivot, name = tree.Clean(before), before+"/"+after
		}
	}
	var found []source
	matches, err := glob(t, tree.Clean(name), parents)
	if err != nil {
		return nil, err
	}
	for _, match := range matches {
		if !parents {
			e, err := tree.Stat(t, match)
			if err != nil {
				return nil, err
			}
			found = append(found, source{tree: t, entry: e, name: path.Base(match), contents: e.IsDir(), under: "."})
			continue
		}
		e, err := t.Lstat(match)
		if err != nil {
			return nil, err
		}
		under := path.Dir(match)
		if pivot != "." {
			under = strings.TrimPrefix(strings.TrimPrefix(under, pivot), "/")
		}
		found = append(found, source{tree: t, entry: e, name: path.Base(match), contents: match == ".", under: tree.Clean(under)})
	}
	return found, nil
}

// glob returns the paths that a pattern in the language of path.Match names, sorted; with deep also
// "**" for any number of directories. Without wildcards it returns the pattern, which must exist.
func glob(t tree.Tree, pattern string, deep bool) ([]string, error) {
	at := []string{"."}
	if pattern == "." {
		return at, nil
	}
	wild := false
	for element := range strings.SplitSeq(pattern, "/") {
		next, err := globElement(t, at, element, deep)
		if err != nil {
			return nil, err
		}
		wild = wild || strings.ContainsAny(element, `*?[\`)
		if len(next) == 0 && !wild {
			return nil, &fs.PathError{Op: "stat", Path: pattern, Err: fs.ErrNotExist}
		}
		at = next
	}
	return at, nil
}

func globElement(t tree.Tree, at []string, element string, deep bool) ([]string, error) {
	next := map[string]bool{}
	for _, dir := range at {
		resolved, err := tree.Resolve(t, dir)
		if err != nil {
			return nil, err
		}
		if deep && element == "**" {
			err = everyDirectory(t, resolved, next)
		} else if strings.ContainsAny(element, `*?[\`) {
			err = matchIn(t, resolved, element, next)
		} else if _, lerr := t.Lstat(tree.Join(resolved, element)); lerr == nil {
			next[tree.Join(resolved, element)] = true
		} else {
			err = lerr
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return slices.Sorted(maps.Keys(next)), nil
}

func everyDirectory(t tree.Tree, dir string, found map[string]bool) error {
	return tree.Walk(t, dir, func(e tree.Entry) error {
		if e.IsDir() {
			found[e.Path] = true
		}
		return nil
	})
}

func matchIn(t tree.Tree, dir, element string, found map[string]bool) error {
	e, err := t.Lstat(dir)
	if err != nil || !e.IsDir() {
		return err
	}
	children, err := t.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, child := range children {
		ok, err := path.Match(element, child.Name())
		if err != nil {
			return errdefs.Invalid("bad pattern %q: %w", element, err)
		}
		if ok {
			found[child.Path] = true
		}
	}
	return nil
}

// exclusion tells what --exclude leaves out. The zero value leaves out nothing.
type exclusion struct {
	matcher *patternmatcher.PatternMatcher
}

func newExclusion(patterns []string) (exclusion, error) {
	if len(patterns) == 0 {
		return exclusion{}, nil
	}
	m, err := patternmatcher.New(patterns)
	if err != nil {
		return exclusion{}, errdefs.Invalid("bad --exclude: %w", err)
	}
	return exclusion{m}, nil
}

// match says whether the path, relative to the copied directory, is left out, and if so whether
// something below it may still be wanted.
func (x exclusion) match(name string) (excluded, descend bool, err error) {
	if x.matcher == nil || name == "." {
		return false, true, nil
	}
	excluded, err = x.matcher.MatchesOrParentMatches(name)
	return excluded, !excluded || x.matcher.Exclusions(), err
}

// selected calls visit for every entry of a source that is not excluded, with its path relative to the
// source ("." for itself). A directory comes before what is in it.
func (s source) selected(x exclusion, visit func(rel string, e tree.Entry) error) error {
	if !s.entry.IsDir() {
		excluded, _, err := x.match(s.name)
		if err != nil || excluded {
			return err
		}
		return visit(".", s.entry)
	}
	return tree.Walk(s.tree, s.entry.Path, func(e tree.Entry) error {
		rel := relative(s.entry.Path, e.Path)
		excluded, descend, err := x.match(rel)
		switch {
		case err != nil:
			return err
		case excluded && !descend:
			return fs.SkipDir
		case excluded:
			return nil
		}
		return visit(rel, e)
	})
}

func relative(base, name string) string {
	if base == "." {
		return name
	}
	return tree.Clean(strings.TrimPrefix(strings.TrimPrefix(name, base), "/"))
}

// digestSources hashes what the sources bring: names, kinds, modes, owners if kept, links and content,
// but no times, so that a fresh checkout of the same files is the same.
func digestSources(h *tree.Hasher, sources []source, x exclusion) (string, error) {
	sum := sha256.New()
	for _, s := range sources {
		name := s.name
		if s.contents {
			name = ""
		}
		field(sum, "source", s.under, name)
		err := s.selected(x, func(rel string, e tree.Entry) error {
			return digestEntry(sum, h, s, rel, e)
		})
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

func digestEntry(sum hash.Hash, h *tree.Hasher, s source, rel string, e tree.Entry) error {
	if s.contents && rel == "." && s.entry.Path == "." {
		return nil // the root's own metadata is not copied
	}
	field(sum, rel, e.Mode.String(), e.Link)
	if s.own {
		field(sum, fmt.Sprint(e.UID, ":", e.GID))
	}
	if e.Major != 0 || e.Minor != 0 {
		field(sum, fmt.Sprint(e.Major, ":", e.Minor))
	}
	for _, name := range slices.Sorted(maps.Keys(e.Xattrs)) {
		field(sum, name, e.Xattrs[name])
	}
	if !e.Mode.IsRegular() {
		return nil
	}
	content, err := h.Sum(s.tree, e)
	if err != nil {
		return err
	}
	sum.Write(content[:])
	return nil
}

// field writes strings so that no two lists of them look alike.
func field(w hash.Hash, fields ...string) {
	for _, f := range fields {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(f)))
		w.Write(size[:])
		w.Write([]byte(f))
	}
}
