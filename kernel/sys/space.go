package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// Space says what a file system has. One that makes inodes as they are needed has 0 Inodes.
type Space struct {
	Type       int64 // magic number, linux/magic.h
	Size       int64 // bytes
	Free       int64 // bytes that everybody may use
	Inodes     int64
	InodesFree int64
}

// nearlyNothing is so little that a file system may refuse it: it needs some for its own structures.
const nearlyNothing = 1 << 20

// Full says that next to nothing can be added.
func (s Space) Full() bool {
	return s.Size > 0 && s.Free < nearlyNothing || s.Inodes > 0 && s.InodesFree == 0
}

// SpaceOf returns what the file system of path has. statfs(2).
func SpaceOf(path string) (Space, error) {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Statfs(path, &st) }); err != nil {
		return Space{}, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	unit := st.Frsize
	if unit == 0 {
		unit = st.Bsize
	}
	return Space{
		Type: int64(st.Type), Size: int64(st.Blocks) * unit, Free: int64(st.Bavail) * unit,
		Inodes: int64(st.Files), InodesFree: int64(st.Ffree),
	}, nil
}

// Preallocate gives the first n bytes of a file their place on the disk, without changing its size: writes
// there do not fail for want of space. Some file systems answer EOPNOTSUPP. fallocate(2), Linux 2.6.38.
func Preallocate(f *os.File, n int64) error {
	err := retry(func() error { return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, n) })
	if err != nil {
		return &os.PathError{Op: "preallocate", Path: f.Name(), Err: err}
	}
	return nil
}

// ReadOnly says whether the mount that f lies in, or its whole file system, is read-only. fstatfs(2).
func ReadOnly(f *os.File) (bool, error) {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(int(f.Fd()), &st) }); err != nil {
		return false, &os.PathError{Op: "statfs", Path: f.Name(), Err: err}
	}
	return st.Flags&unix.ST_RDONLY != 0, nil
}
