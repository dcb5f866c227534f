package context

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"davit/build/tree"
)

// Dir is a build context in a directory of the host, whose files may change while it is read. Nothing
// outside the directory is read, whatever symbolic links its owner puts there meanwhile.
type Dir struct {
	root *os.Root
}

// OpenDir opens the directory at dir.
func OpenDir(dir string) (*Dir, error) {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, fmt.Errorf("open build context: %w", err)
	}
	root, err := os.OpenRoot(real)
	if err != nil {
		return nil, fmt.Errorf("open build context: %w", err)
	}
	return &Dir{root: root}, nil
}

// Close gives the directory up.
func (d *Dir) Close() error { return d.root.Close() }

// Lstat implements tree.Tree.
func (d *Dir) Lstat(name string) (tree.Entry, error) {
	parent, err := d.directory(path.Dir(name))
	if err != nil {
		return tree.Entry{}, err
	}
	defer parent.Close()
	return describe(parent, name, path.Base(name))
}

// directory opens a directory of the context. A path with symbolic links is refused: os.Root would
// follow those that stay inside, and a tree.Tree does not.
func (d *Dir) directory(name string) (*os.Root, error) {
	at := "."
	for element := range strings.SplitSeq(name, "/") {
		at = path.Join(at, element)
		info, err := d.root.Lstat(at)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
	}
	return d.root.OpenRoot(name)
}

// describe makes the Entry of base in the directory parent.
func describe(parent *os.Root, name, base string) (tree.Entry, error) {
	info, err := parent.Lstat(base)
	if err != nil {
		return tree.Entry{}, err
	}
	e := tree.InfoEntry(name, info)
	if e.Mode.Type() == fs.ModeSymlink {
		if e.Link, err = parent.Readlink(base); err != nil {
			return tree.Entry{}, err
		}
	}
	return e, nil
}

// ReadDir implements tree.Tree.
func (d *Dir) ReadDir(name string) ([]tree.Entry, error) {
	dir, err := d.directory(name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	list, err := fs.ReadDir(dir.FS(), ".")
	if err != nil {
		return nil, err
	}
	entries := make([]tree.Entry, 0, len(list))
	for _, item := range list {
		e, err := describe(dir, tree.Join(name, item.Name()), item.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone since it was listed
		}
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// Open implements tree.Tree.
func (d *Dir) Open(name string) (io.ReadCloser, error) {
	dir, err := d.directory(path.Dir(name))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.OpenFile(path.Base(name), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
}
