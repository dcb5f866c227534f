package tree

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// opaqueXattr marks a directory that hides those below it (overlayfs.rst, "whiteouts and opaque
// directories").
const opaqueXattr = "trusted.overlay.opaque"

// Union is the tree that overlayfs would show of layer directories, read without mounting them.
// The caller keeps the layers as they are while it is in use.
type Union struct {
	roots []string // highest first

	mu    sync.Mutex
	known map[string][]string // of a directory: its parts, highest first
}

// NewUnion returns the union of layer directories, lowest first. Of none it is empty.
func NewUnion(dirs []string) *Union {
	roots := slices.Clone(dirs)
	slices.Reverse(roots)
	return &Union{roots: roots, known: map[string][]string{".": roots}}
}

// parts returns the host directories that merge into the directory name, highest first.
func (u *Union) parts(name string) ([]string, error) {
	u.mu.Lock()
	parts, ok := u.known[name]
	u.mu.Unlock()
	if ok {
		return parts, nil
	}
	above, err := u.parts(path.Dir(name))
	if err != nil {
		return nil, err
	}
	_, parts, err = Lookup(above, path.Base(name))
	if err != nil {
		return nil, notFound("open", name, err)
	}
	if parts == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.ENOTDIR}
	}
	u.mu.Lock()
	u.known[name] = parts
	u.mu.Unlock()
	return parts, nil
}

// Lookup finds name in the merge of the host directories dirs, highest first. real is where it lies;
// for a directory parts lists the host directories that it merges, for anything else parts is nil.
// It returns fs.ErrNotExist when the name is absent or whited out.
func Lookup(dirs []string, name string) (real string, parts []string, err error) {
	for _, dir := range dirs {
		at := dir + "/" + name
		info, err := os.Lstat(at)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			continue
		}
		if err != nil {
			return "", nil, err
		}
		if isWhiteout(info) {
			break
		}
		if !info.IsDir() {
			if parts == nil {
				return at, nil, nil
			}
			break
		}
		parts = append(parts, at)
		if isOpaque(at) {
			break
		}
	}
	if parts == nil {
		return "", nil, &fs.PathError{Op: "lookup", Path: name, Err: fs.ErrNotExist}
	}
	return parts[0], parts, nil
}

func isWhiteout(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.Mode()&fs.ModeCharDevice != 0 && st.Rdev == 0
}

func isOpaque(dir string) bool {
	var value [1]byte
	n, err := syscall.Getxattr(dir, opaqueXattr, value[:])
	return err == nil && n == 1 && value[0] == 'y'
}

// Real returns where on the host the file or directory lies that the union shows at name. A directory
// has its content there alone if whole is true; else it is merged from several.
func (u *Union) Real(name string) (real string, whole bool, err error) {
	if name == "." {
		if len(u.roots) == 0 {
			return "", false, notFound("lookup", name, fs.ErrNotExist)
		}
		return u.roots[0], len(u.roots) == 1, nil
	}
	above, err := u.parts(path.Dir(name))
	if err != nil {
		return "", false, err
	}
	real, parts, err := Lookup(above, path.Base(name))
	return real, len(parts) <= 1, err
}

// Parts returns the host directories that merge into the directory name, highest first.
func (u *Union) Parts(name string) ([]string, error) { return u.parts(name) }

// Lstat implements Tree.
func (u *Union) Lstat(name string) (Entry, error) {
	if name == "." && len(u.roots) == 0 {
		return Entry{Path: ".", Mode: fs.ModeDir | 0o755}, nil
	}
	real, _, err := u.Real(name)
	if err != nil {
		return Entry{}, notFound("lstat", name, err)
	}
	return LayerEntry(name, real)
}

// ReadDir implements Tree.
func (u *Union) ReadDir(name string) ([]Entry, error) {
	parts, err := u.parts(name)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, part := range parts {
		list, err := os.ReadDir(part)
		if err != nil {
			return nil, err
		}
		for _, d := range list {
			names[d.Name()] = true
		}
	}
	entries := make([]Entry, 0, len(names))
	for child := range names {
		e, err := u.Lstat(Join(name, child))
		if errors.Is(err, fs.ErrNotExist) {
			continue // whited out
		}
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	sortByPath(entries)
	return entries, nil
}

// Open implements Tree.
func (u *Union) Open(name string) (io.ReadCloser, error) {
	real, _, err := u.Real(name)
	if err != nil {
		return nil, notFound("open", name, err)
	}
	return os.OpenFile(real, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
}

// LayerEntry describes the file real of a layer directory as the entry name. No element of real's
// directory is a symbolic link that the layer brought.
func LayerEntry(name, real string) (Entry, error) {
	info, err := os.Lstat(real)
	if err != nil {
		return Entry{}, err
	}
	e := InfoEntry(name, info)
	switch {
	case e.Mode.Type() == fs.ModeSymlink:
		e.Link, err = os.Readlink(real)
	case e.Mode.IsRegular() || e.IsDir():
		e.Xattrs, err = readXattrs(real, keepLayerXattr)
	}
	return e, err
}

// keepLayerXattr admits what a layer's tar carries: all but overlayfs's own and the host's labels.
func keepLayerXattr(name string) bool {
	return !strings.HasPrefix(name, "trusted.overlay.") && !strings.HasPrefix(name, "user.overlay.") &&
		name != "security.selinux" && name != "security.ima" && name != "security.evm"
}

func sortByPath(entries []Entry) {
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
}

func notFound(op, name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	}
	return err
}
