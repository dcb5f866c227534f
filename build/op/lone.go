package op

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"time"

	"davit/build/tree"
)

// lone is a tree with one regular file beside its root: a here-document or a download.
type lone struct {
	entry tree.Entry
	open  func() (io.ReadCloser, error)
}

// inlineFile is a file with the given content. Its time is the beginning of the epoch: a
// here-document has none.
func inlineFile(name, content string) *lone {
	return &lone{
		entry: tree.Entry{Path: name, Mode: 0o644, Size: int64(len(content)), ModTime: time.Unix(0, 0)},
		open:  func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader([]byte(content))), nil },
	}
}

// hostFile is the file real of the host under another name.
func hostFile(name, real string, mode fs.FileMode, modified time.Time) (*lone, error) {
	info, err := os.Stat(real)
	if err != nil {
		return nil, err
	}
	return &lone{
		entry: tree.Entry{Path: name, Mode: mode, Size: info.Size(), ModTime: modified},
		open:  func() (io.ReadCloser, error) { return os.Open(real) },
	}, nil
}

// Lstat implements tree.Tree.
func (l *lone) Lstat(name string) (tree.Entry, error) {
	switch name {
	case ".":
		return tree.Entry{Path: ".", Mode: fs.ModeDir | 0o755}, nil
	case l.entry.Path:
		return l.entry, nil
	}
	return tree.Entry{}, &fs.PathError{Op: "lstat", Path: name, Err: fs.ErrNotExist}
}

// ReadDir implements tree.Tree.
func (l *lone) ReadDir(name string) ([]tree.Entry, error) {
	if name != "." {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return []tree.Entry{l.entry}, nil
}

// Open implements tree.Tree.
func (l *lone) Open(name string) (io.ReadCloser, error) {
	if name != l.entry.Path {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return l.open()
}
