package tree

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"
)

// maxLinks is the kernel's limit of symbolic links in one path (path_resolution(7)).
const maxLinks = 40

// Resolve follows every symbolic link in name, the last one too, and returns where it leads. What does
// not exist is appended as it is, so the result need not exist. It fails with syscall.ELOOP on a cycle
// and with syscall.ENOTDIR when a file stands where a directory must.
func Resolve(t Tree, name string) (string, error) {
	return resolve(t, name, true)
}

// ResolveParent is Resolve for all but the last element, which may then be a symbolic link.
func ResolveParent(t Tree, name string) (string, error) {
	return resolve(t, name, false)
}

func resolve(t Tree, name string, last bool) (string, error) {
	todo := strings.Split(Clean(name), "/")
	at, links := ".", 0
	for len(todo) > 0 {
		element := todo[0]
		todo = todo[1:]
		switch element {
		case "", ".":
			continue
		case "..":
			at = path.Dir(at)
			continue
		}
		next := Join(at, element)
		e, err := t.Lstat(next)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return Clean(path.Join(next, path.Join(todo...))), nil
		case err != nil:
			return "", err
		case e.Mode.Type() == fs.ModeSymlink && (last || len(todo) > 0):
			if links++; links > maxLinks {
				return "", &fs.PathError{Op: "resolve", Path: name, Err: syscall.ELOOP}
			}
			if path.IsAbs(e.Link) {
				at = "."
			}
			todo = slices.Concat(strings.Split(e.Link, "/"), todo)
			continue
		case !e.IsDir() && len(todo) > 0:
			return "", &fs.PathError{Op: "resolve", Path: next, Err: syscall.ENOTDIR}
		}
		at = next
	}
	return at, nil
}

// Stat describes what name leads to, through symbolic links.
func Stat(t Tree, name string) (Entry, error) {
	at, err := Resolve(t, name)
	if err != nil {
		return Entry{}, err
	}
	return t.Lstat(at)
}

// ReadFile returns the content of a regular file of at most limit bytes, through symbolic links.
func ReadFile(t Tree, name string, limit int64) ([]byte, error) {
	e, err := Stat(t, name)
	if err != nil {
		return nil, err
	}
	if !e.Mode.IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("not a regular file")}
	}
	if e.Size > limit {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("%d bytes, more than the limit of %d", e.Size, limit)}
	}
	f, err := t.Open(e.Path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, e.Size)
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}

// Walk calls visit for the entry at name and everything below it, parents first, siblings sorted. When
// visit returns fs.SkipDir, what is below the entry is left out.
func Walk(t Tree, name string, visit func(Entry) error) error {
	e, err := t.Lstat(name)
	if err != nil {
		return err
	}
	return walk(t, e, visit)
}

func walk(t Tree, e Entry, visit func(Entry) error) error {
	if err := visit(e); err != nil {
		if errors.Is(err, fs.SkipDir) {
			return nil
		}
		return err
	}
	if !e.IsDir() {
		return nil
	}
	children, err := t.ReadDir(e.Path)
	if err != nil {
		return err
	}
	for _, child := range children {
		if err := walk(t, child, visit); err != nil {
			return err
		}
	}
	return nil
}
