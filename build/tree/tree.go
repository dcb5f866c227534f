// Package tree reads file systems that are not mounted: a build context in a directory or a tar
// archive, and the union of an image's layers. It is how COPY and ADD see their sources, and how they
// find out what lies below their destination.
//
// A path here is relative, slash-separated and clean; the root is ".". Methods of a Tree never follow
// symbolic links: a path through one does not exist. Resolve follows them, and can not leave the tree,
// because ".." stops at its root and absolute links begin there.
package tree

import (
	"io"
	"io/fs"
	"path"
	"strings"
	"time"
)

// Tree is a read-only file system. Implementations are safe for concurrent use. A name that does not
// exist gives an error that is fs.ErrNotExist.
type Tree interface {
	// Lstat describes the file at a path without following a symbolic link at its end.
	Lstat(name string) (Entry, error)
	// ReadDir lists a directory, sorted by name.
	ReadDir(name string) ([]Entry, error)
	// Open opens a regular file. The reader is an *os.File where the tree has one.
	Open(name string) (io.ReadCloser, error)
}

// Entry describes one file.
type Entry struct {
	Path    string      // in the tree
	Mode    fs.FileMode // type and permission, with setuid, setgid and sticky bits
	UID     int
	GID     int
	Size    int64 // of a regular file, in bytes
	ModTime time.Time
	Changed time.Time // change of the inode; zero if unknown
	Link    string    // target of a symbolic link
	Major   uint32    // of a device
	Minor   uint32
	Xattrs  map[string]string // without those of overlayfs
	File    FileID            // equal in two entries that are hard links of each other; zero if unknown
}

// FileID identifies the inode behind an entry.
type FileID struct{ Dev, Ino uint64 }

// Name returns the last element of the entry's path.
func (e Entry) Name() string { return path.Base(e.Path) }

// IsDir says whether the entry is a directory.
func (e Entry) IsDir() bool { return e.Mode.IsDir() }

// Clean makes any path a tree path: "/a/../b" is "b", "" and "/" are ".".
func Clean(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if name == "" {
		return "."
	}
	return name
}

// Join appends a name to a tree path.
func Join(dir, name string) string {
	if dir == "." {
		return name
	}
	return dir + "/" + name
}
