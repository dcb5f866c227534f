package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// Ways for OpenIn to resolve a path.
const (
	ResolveInRoot       = unix.RESOLVE_IN_ROOT       // dir is "/" for absolute paths, links and ".."
	ResolveNoMagicLinks = unix.RESOLVE_NO_MAGICLINKS // refuse links like /proc/self/fd/3
	ResolveNoSymlinks   = unix.RESOLVE_NO_SYMLINKS
	ResolveNoXDev       = unix.RESOLVE_NO_XDEV
	ResolveBeneath      = unix.RESOLVE_BENEATH
)

// OpenIn opens path below dir without ever leaving it. flags are open(2)'s. openat2(2), Linux 5.6.
func OpenIn(dir *os.File, path string, flags int, mode os.FileMode, resolve uint64) (*os.File, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: resolve}
	if flags&(unix.O_CREAT|unix.O_TMPFILE) != 0 {
		how.Mode = uint64(mode.Perm())
	}
	for {
		fd, err := unix.Openat2(at(dir), path, &how)
		if err == unix.EINTR || err == unix.EAGAIN {
			continue
		}
		return file(path)(fd, err)
	}
}

// OpenPath opens path only to refer to it (O_PATH); it follows links. open(2).
func OpenPath(path string) (*os.File, error) {
	return file(path)(retryFD(func() (int, error) {
		return unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	}))
}

// FileSystemType returns the magic number of the file system that f is on. fstatfs(2).
func FileSystemType(f *os.File) (int64, error) {
	var st unix.Statfs_t
	err := retry(func() error { return unix.Fstatfs(int(f.Fd()), &st) })
	return int64(st.Type), err
}
