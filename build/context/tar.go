package context

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"davit/build/tree"
	"davit/oci/errdefs"
)

// Tar is a build context that came as a tar archive. The archive is kept as one nameless file with an
// index, and never unpacked, so nothing in it can reach a place of the host. File contents are hashed
// as they arrive.
type Tar struct {
	spool *os.File
	nodes map[string]*node
}

type node struct {
	entry    tree.Entry
	offset   int64 // of a regular file's content in the spool
	sum      tree.Sum
	children []string // names of a directory's entries
}

// ReadTar reads an uncompressed tar archive to its end and keeps the content in dir, which must be on
// a file system with O_TMPFILE. Close gives the space back.
func ReadTar(r io.Reader, dir string) (*Tar, error) {
	spool, err := openSpool(dir)
	if err != nil {
		return nil, err
	}
	t := &Tar{spool: spool, nodes: map[string]*node{}}
	t.nodes["."] = &node{entry: tree.Entry{Path: ".", Mode: fs.ModeDir | 0o755}}
	if err := t.fill(tar.NewReader(r)); err != nil {
		return nil, errors.Join(fmt.Errorf("read build context: %w", err), spool.Close())
	}
	// What follows the end of the archive belongs to it: padding up to the writer's block size.
	if _, err := io.Copy(io.Discard, r); err != nil {
		return nil, errors.Join(fmt.Errorf("read build context: %w", err), spool.Close())
	}
	for _, n := range t.nodes {
		slices.Sort(n.children)
	}
	return t, nil
}

func (t *Tar) fill(r *tar.Reader) error {
	var end int64
	for inode := uint64(1); ; inode++ {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return errdefs.As(errdefs.ErrInvalid, err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		name, err := entryName(h.Name)
		if err != nil {
			return err
		}
		n := &node{entry: tree.TarEntry(name, h), offset: end}
		n.entry.File = tree.FileID{Dev: 1, Ino: inode}
		if h.Typeflag == tar.TypeLink {
			if n, err = t.hardLink(name, h.Linkname); err != nil {
				return err
			}
		} else if n.entry.Mode.IsRegular() {
			hash := sha256.New()
			size, err := io.Copy(io.MultiWriter(t.spool, hash), r)
			if err != nil {
				return fmt.Errorf("keep %s: %w", name, err)
			}
			end += size
			hash.Sum(n.sum[:0])
		}
		if err := t.add(n); err != nil {
			return err
		}
	}
}

// entryName refuses names that would leave the context if somebody followed them.
func entryName(name string) (string, error) {
	if slices.Contains(strings.Split(name, "/"), "..") {
		return "", errdefs.Invalid("the entry %q leaves the build context", name)
	}
	return tree.Clean(name), nil
}

func (t *Tar) hardLink(name, target string) (*node, error) {
	target, err := entryName(target)
	if err != nil {
		return nil, err
	}
	old, ok := t.nodes[target]
	if !ok || old.entry.IsDir() {
		return nil, errdefs.Invalid("the entry %q is a hard link to %q, which is no file before it", name, target)
	}
	n := *old
	n.entry.Path = name
	return &n, nil
}

// add puts n in its place, and makes the directories above it that the archive left out.
func (t *Tar) add(n *node) error {
	name := n.entry.Path
	if name == "." {
		if n.entry.IsDir() {
			n.children = t.nodes["."].children
			t.nodes["."] = n
		}
		return nil
	}
	parent, ok := t.nodes[path.Dir(name)]
	if !ok {
		parent = &node{entry: tree.Entry{Path: path.Dir(name), Mode: fs.ModeDir | 0o755}}
		if err := t.add(parent); err != nil {
			return err
		}
	}
	if !parent.entry.IsDir() {
		return errdefs.Invalid("the entry %q lies below %q, which is not a directory", name, parent.entry.Path)
	}
	old, ok := t.nodes[name]
	switch {
	case !ok:
		parent.children = append(parent.children, path.Base(name))
	case old.entry.IsDir() && n.entry.IsDir():
		n.children = old.children
	case old.entry.IsDir() && len(old.children) > 0:
		return errdefs.Invalid("the entry %q replaces a directory that is not empty", name)
	}
	t.nodes[name] = n
	return nil
}

// Close frees the archive. Readers that are open then fail.
func (t *Tar) Close() error { return t.spool.Close() }

func (t *Tar) node(op, name string) (*node, error) {
	n, ok := t.nodes[name]
	if !ok {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	}
	return n, nil
}

// Lstat implements tree.Tree.
func (t *Tar) Lstat(name string) (tree.Entry, error) {
	n, err := t.node("lstat", name)
	if err != nil {
		return tree.Entry{}, err
	}
	return n.entry, nil
}

// ReadDir implements tree.Tree.
func (t *Tar) ReadDir(name string) ([]tree.Entry, error) {
	n, err := t.node("open", name)
	if err != nil {
		return nil, err
	}
	entries := make([]tree.Entry, 0, len(n.children))
	for _, child := range n.children {
		entries = append(entries, t.nodes[tree.Join(name, child)].entry)
	}
	return entries, nil
}

// Open implements tree.Tree.
func (t *Tar) Open(name string) (io.ReadCloser, error) {
	n, err := t.node("open", name)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(io.NewSectionReader(t.spool, n.offset, n.entry.Size)), nil
}

// Sum implements tree.Summed.
func (t *Tar) Sum(name string) (tree.Sum, bool) {
	n, ok := t.nodes[name]
	if !ok || !n.entry.Mode.IsRegular() {
		return tree.Sum{}, false
	}
	return n.sum, true
}
