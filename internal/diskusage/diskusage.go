// Package diskusage counts what a directory tree takes on the disk.
package diskusage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"davit/kernel/sys"
)

// Usage is what du -x (du(1)) counts: allocated blocks, every file with several names once, holes and what is
// mounted in the tree not at all.
type Usage struct {
	Bytes  int64
	Inodes int64
}

// Of measures the tree at dir, the directory itself included; a file is measured too. What vanishes
// meanwhile is left out.
func Of(ctx context.Context, dir string) (Usage, error) { return Without(ctx, dir, nil) }

// Content is how many bytes the files in the tree at dir hold, holes included and directories not: what
// docker ps --size counts.
func Content(ctx context.Context, dir string) (bytes int64, err error) {
	w := &walk{ctx: ctx, seen: map[inode]bool{}, content: true}
	err = w.tree(dir)
	return w.usage.Bytes, err
}

// Without is Of that leaves out the trees whose paths skip has: clean, and beginning with dir.
func Without(ctx context.Context, dir string, skip map[string]bool) (Usage, error) {
	w := &walk{ctx: ctx, seen: map[inode]bool{}, skip: skip}
	if err := w.tree(dir); err != nil {
		return Usage{}, err
	}
	return w.usage, nil
}

type inode struct{ dev, ino uint64 }

type walk struct {
	ctx   context.Context
	dev   uint64
	usage Usage
	seen  map[inode]bool // files with several names
	skip  map[string]bool

	content bool // count what files hold, not what they take
}

// tree counts all of it.
func (w *walk) tree(dir string) error {
	var st syscall.Stat_t
	if err := syscall.Lstat(dir, &st); err != nil {
		return fmt.Errorf("measure %s: %w", dir, err)
	}
	w.dev = st.Dev
	w.count(st)
	if st.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		return nil
	}
	fd, err := sys.Openat(-1, dir, syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err == nil {
		err = w.directory(fd, dir)
	}
	if err != nil {
		return fmt.Errorf("measure %s: %w", dir, err)
	}
	return nil
}

func (w *walk) count(st syscall.Stat_t) {
	if st.Nlink > 1 && st.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		id := inode{st.Dev, st.Ino}
		if w.seen[id] {
			return
		}
		w.seen[id] = true
	}
	w.usage.Inodes++
	switch {
	case !w.content:
		w.usage.Bytes += st.Blocks * 512
	case st.Mode&syscall.S_IFMT != syscall.S_IFDIR:
		w.usage.Bytes += st.Size
	}
}

// directory counts what is in fd and closes it. path is kept only while there is something to skip.
func (w *walk) directory(fd int, path string) error {
	d := os.NewFile(uintptr(fd), path)
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	if err := w.ctx.Err(); err != nil {
		return err
	}
	for _, name := range names {
		if err := w.entry(fd, path, name); err != nil && !errors.Is(err, syscall.ENOENT) {
			return err
		}
	}
	return nil
}

func (w *walk) entry(dirfd int, above, name string) error {
	path := name
	if w.skip != nil {
		if path = above + "/" + name; w.skip[path] {
			return nil
		}
	}
	st, err := sys.Fstatat(dirfd, name)
	if err != nil || st.Dev != w.dev {
		return err
	}
	w.count(st)
	if st.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		return nil
	}
	fd, err := sys.OpenBeneath(dirfd, name, syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	return w.directory(fd, path)
}
