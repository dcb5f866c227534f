package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"davit/internal/fileattr"
	"davit/kernel/sys"
	"davit/oci/errdefs"
)

// CopyUp copies the directory from, with everything below it, into the volume when that is empty, and
// otherwise does nothing: owners, modes, times, xattrs, hard links, symbolic links, devices, holes. The
// volume's own directory takes the attributes of from. from is a path whose symbolic links are resolved
// (/proc/self/fd/N of an open directory is fine); links below it are copied, never followed. When it
// fails, the volume is empty again.
func (s *Store) CopyUp(ctx context.Context, name, from string) error {
	v, err := s.Get(ctx, name)
	if err != nil {
		return err
	}
	over, err := s.copying.Take(ctx, name)
	if err != nil {
		return fmt.Errorf("copy the image's files to volume %s: %w", name, err)
	}
	defer over()
	mark := filepath.Join(s.root, name, "copying")
	err = firstUse(mark, v.Path)
	if errors.Is(err, errInUse) {
		return nil
	}
	if err == nil {
		err = copyTree(ctx, v.Path, from)
	}
	if err != nil {
		err = fmt.Errorf("copy the image's files to volume %s: %w", name, err)
		return errors.Join(err, clearDir(v.Path), os.Remove(mark))
	}
	return os.Remove(mark)
}

// errInUse says that a volume has content of its own.
var errInUse = errors.New("volume is not empty")

// firstUse checks that data is empty, but for what an interrupted copy left, and sets the mark.
func firstUse(mark, data string) error {
	_, err := os.Lstat(mark)
	if err == nil {
		return clearDir(data)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	d, err := os.Open(data)
	if err != nil {
		return err
	}
	defer d.Close()
	if names, err := d.Readdirnames(1); len(names) > 0 {
		return errInUse
	} else if err != io.EOF {
		return err
	}
	return os.WriteFile(mark, nil, 0o600)
}

// clearDir empties a directory.
func clearDir(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

// treeCopy copies one tree.
type treeCopy struct {
	ctx   context.Context
	root  int              // descriptor of the destination
	links map[inode]string // where the copy of a file with several names is
}

type inode struct{ dev, ino uint64 }

func copyTree(ctx context.Context, to, from string) error {
	src, err := syscall.Open(from, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	dst, err := syscall.Open(to, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return errors.Join(err, syscall.Close(src))
	}
	defer syscall.Close(dst)
	c := &treeCopy{ctx: ctx, root: dst, links: map[inode]string{}}
	return c.directory(src, dst, "")
}

// directory copies what is in src, which it closes, to dst, and then the attributes: a default ACL or
// set-gid bit would otherwise pass to what is made in dst.
func (c *treeCopy) directory(src, dst int, path string) error {
	d := os.NewFile(uintptr(src), path)
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if err := c.entry(src, dst, name, path+name); err != nil {
			return fmt.Errorf("%s: %w", path+name, err)
		}
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(src, &st); err != nil {
		return err
	}
	attr, err := fileattr.Of(src, ".", st)
	if err != nil {
		return err
	}
	return attr.Set(dst)
}

// entry copies one name; path is where it goes below the destination's root.
func (c *treeCopy) entry(src, dst int, name, path string) error {
	st, err := sys.Fstatat(src, name)
	if err != nil {
		return err
	}
	kind := st.Mode & syscall.S_IFMT
	if kind == syscall.S_IFDIR {
		return c.subdirectory(src, dst, name, path)
	}
	if kind == syscall.S_IFSOCK {
		return nil // its listener is elsewhere
	}
	id := inode{st.Dev, st.Ino}
	if first, ok := c.links[id]; ok && st.Nlink > 1 {
		return sys.Linkat(c.root, first, dst, name)
	}
	attr, err := fileattr.Of(src, name, st)
	if err != nil {
		return err
	}
	if st.Nlink > 1 {
		c.links[id] = path
	}
	switch kind {
	case syscall.S_IFREG:
		return copyFile(src, dst, name, st.Size, attr)
	case syscall.S_IFLNK:
		target, err := sys.Readlinkat(src, name)
		if err == nil {
			err = sys.Symlinkat(target, dst, name)
		}
		if err != nil {
			return err
		}
		return attr.SetAt(dst, name, true)
	case syscall.S_IFCHR, syscall.S_IFBLK, syscall.S_IFIFO:
		if err := sys.Mknodat(dst, name, kind|0o600, st.Rdev); err != nil {
			return err
		}
		return attr.SetAt(dst, name, false)
	}
	return errdefs.Invalid("file of unknown type %#o", kind)
}

func (c *treeCopy) subdirectory(src, dst int, name, path string) error {
	if err := sys.Mkdirat(dst, name, 0o700); err != nil {
		return err
	}
	from, err := sys.OpenBeneath(src, name, syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	to, err := sys.OpenBeneath(dst, name, syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return errors.Join(err, syscall.Close(from))
	}
	defer syscall.Close(to)
	return c.directory(from, to, path+"/")
}

func copyFile(src, dst int, name string, size int64, attr *fileattr.Attr) error {
	in, err := sys.OpenBeneath(src, name, syscall.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	from := os.NewFile(uintptr(in), name)
	defer from.Close()
	out, err := sys.Openat(dst, name, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	to := os.NewFile(uintptr(out), name)
	err = copyData(to, from, size)
	if err == nil {
		err = attr.Set(out)
	}
	return errors.Join(err, to.Close())
}

// copyData copies a file's data and leaves its holes as holes.
func copyData(to, from *os.File, size int64) error {
	for at := int64(0); at < size; {
		data, err := from.Seek(at, sys.SeekData)
		if errors.Is(err, syscall.ENXIO) {
			break // a hole up to the end
		}
		if err != nil {
			return err
		}
		hole, err := from.Seek(data, sys.SeekHole)
		if err != nil {
			return err
		}
		if _, err := from.Seek(data, io.SeekStart); err != nil {
			return err
		}
		if _, err := to.Seek(data, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.CopyN(to, from, hole-data); err != nil {
			return err
		}
		at = hole
	}
	return to.Truncate(size)
}
