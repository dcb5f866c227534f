package sys

import (
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Flags of the calls below, so that callers need not know where Go keeps them.
const (
	AtSymlinkNofollow = unix.AT_SYMLINK_NOFOLLOW
	AtRemovedir       = unix.AT_REMOVEDIR
)

// uninterrupted repeats call while a signal interrupts it.
func uninterrupted(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// OpenBeneath opens path below the directory dirfd and refuses to leave it or to pass a symbolic link,
// at the end of path as well (openat2(2), Linux 5.6). The descriptor is close-on-exec.
func OpenBeneath(dirfd int, path string, flags int, mode uint32) (fd int, err error) {
	how := unix.OpenHow{
		Flags:   uint64(flags) | unix.O_CLOEXEC,
		Mode:    uint64(mode),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	for range 32 { // EAGAIN: a rename elsewhere raced with the kernel's check
		err = uninterrupted(func() (err error) { fd, err = unix.Openat2(dirfd, path, &how); return err })
		if err != unix.EAGAIN {
			break
		}
	}
	return fd, err
}

// Openat is openat(2) with O_CLOEXEC.
func Openat(dirfd int, path string, flags int, mode uint32) (fd int, err error) {
	err = uninterrupted(func() (err error) { fd, err = unix.Openat(dirfd, path, flags|unix.O_CLOEXEC, mode); return err })
	return fd, err
}

// Mkdirat is mkdirat(2).
func Mkdirat(dirfd int, path string, mode uint32) error { return unix.Mkdirat(dirfd, path, mode) }

// Mknodat is mknodat(2); mode holds the file type, device is as Stat_t.Rdev.
func Mknodat(dirfd int, path string, mode uint32, device uint64) error {
	return unix.Mknodat(dirfd, path, mode, int(device))
}

// Makedev makes a device number, Major and Minor take it apart (makedev(3)).
func Makedev(major, minor uint32) uint64 { return unix.Mkdev(major, minor) }

// Major returns a device's major number.
func Major(device uint64) uint32 { return unix.Major(device) }

// Minor returns a device's minor number.
func Minor(device uint64) uint32 { return unix.Minor(device) }

// Symlinkat is symlinkat(2).
func Symlinkat(target string, dirfd int, path string) error {
	return unix.Symlinkat(target, dirfd, path)
}

// Readlinkat is readlinkat(2) with a buffer that grows until the target fits.
func Readlinkat(dirfd int, path string) (string, error) {
	for size := 256; ; size *= 2 {
		buf := make([]byte, size)
		n, err := unix.Readlinkat(dirfd, path, buf)
		if err != nil {
			return "", err
		}
		if n < size {
			return string(buf[:n]), nil
		}
	}
}

// Linkat is linkat(2); a symbolic link at oldpath is linked itself, not followed.
func Linkat(olddirfd int, oldpath string, newdirfd int, newpath string) error {
	return unix.Linkat(olddirfd, oldpath, newdirfd, newpath, 0)
}

// Renameat is renameat(2).
func Renameat(olddirfd int, oldpath string, newdirfd int, newpath string) error {
	return unix.Renameat(olddirfd, oldpath, newdirfd, newpath)
}

// Unlinkat is unlinkat(2).
func Unlinkat(dirfd int, path string, flags int) error { return unix.Unlinkat(dirfd, path, flags) }

// Fchownat is fchownat(2) on path itself, not on what a symbolic link names.
func Fchownat(dirfd int, path string, uid, gid int) error {
	return unix.Fchownat(dirfd, path, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
}

// Fchmodat is fchmodat(2); the kernel follows a symbolic link at path, so path must not be one.
func Fchmodat(dirfd int, path string, mode uint32) error {
	return unix.Fchmodat(dirfd, path, mode, 0)
}

// Utimensat sets the access and modification time of path itself, not of what a symbolic link names
// (utimensat(2)). An empty path means dirfd's own file.
func Utimensat(dirfd int, path string, atime, mtime syscall.Timespec) error {
	times := [2]unix.Timespec{{Sec: atime.Sec, Nsec: atime.Nsec}, {Sec: mtime.Sec, Nsec: mtime.Nsec}}
	if path != "" {
		return unix.UtimesNanoAt(dirfd, path, times[:], unix.AT_SYMLINK_NOFOLLOW)
	}
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(dirfd), 0, uintptr(unsafe.Pointer(&times)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// Fstatat is fstatat(2) on path itself, not on what a symbolic link names.
func Fstatat(dirfd int, path string) (syscall.Stat_t, error) {
	var st unix.Stat_t
	err := uninterrupted(func() error { return unix.Fstatat(dirfd, path, &st, unix.AT_SYMLINK_NOFOLLOW) })
	return *(*syscall.Stat_t)(unsafe.Pointer(&st)), err
}

// Fsetxattr is fsetxattr(2).
func Fsetxattr(fd int, name string, value []byte) error { return unix.Fsetxattr(fd, name, value, 0) }

// Setxattrat sets an xattr of path itself below dirfd (lsetxattr(2) through /proc/self/fd, because
// setxattrat(2) needs Linux 6.13).
func Setxattrat(dirfd int, path, name string, value []byte) error {
	return unix.Lsetxattr(fdPath(dirfd, path), name, value, 0)
}

// Getxattrat returns an xattr of path itself below dirfd (lgetxattr(2)); ENODATA: there is none.
func Getxattrat(dirfd int, path, name string) ([]byte, error) {
	full := fdPath(dirfd, path)
	buf := make([]byte, 128)
	for {
		n, err := unix.Lgetxattr(full, name, buf)
		if err == nil {
			return buf[:n], nil
		}
		if err != unix.ERANGE {
			return nil, err
		}
		if n, err = unix.Lgetxattr(full, name, nil); err != nil {
			return nil, err
		}
		buf = make([]byte, n+64)
	}
}

// Listxattrat returns the names of the xattrs of path itself below dirfd (llistxattr(2)); a file system
// without xattrs has none.
func Listxattrat(dirfd int, path string) ([]string, error) {
	full := fdPath(dirfd, path)
	buf := make([]byte, 256)
	for {
		n, err := unix.Llistxattr(full, buf)
		switch err {
		case nil:
			return splitNames(buf[:n]), nil
		case unix.ENOTSUP:
			return nil, nil
		case unix.ERANGE:
			if n, err = unix.Llistxattr(full, nil); err != nil {
				return nil, err
			}
			buf = make([]byte, n+64)
		default:
			return nil, err
		}
	}
}

// splitNames takes the NUL-terminated names of listxattr(2) apart.
func splitNames(b []byte) []string {
	var names []string
	for len(b) > 0 {
		end := 0
		for end < len(b) && b[end] != 0 {
			end++
		}
		names = append(names, string(b[:end]))
		b = b[min(end+1, len(b)):]
	}
	return names
}

// fdPath names path below dirfd for calls that take no directory descriptor; an empty path is dirfd's file.
func fdPath(dirfd int, path string) string {
	prefix := "/proc/self/fd/" + strconv.Itoa(dirfd) + "/"
	if path == "" {
		return prefix + "."
	}
	return prefix + path
}

// Syncfs writes all of the file system that fd lies on to the disk (syncfs(2)); since Linux 5.8 it
// reports errors of that writing.
func Syncfs(fd int) error { return unix.Syncfs(fd) }

// StartWriteback asks the kernel to begin writing a range of fd's dirty pages and does not wait
// (sync_file_range(2)). It makes nothing durable; it leaves a later fsync less to do.
func StartWriteback(fd int, offset, length int64) error {
	return unix.SyncFileRange(fd, offset, length, unix.SYNC_FILE_RANGE_WRITE)
}

// Data and hole seeking for lseek(2).
const (
	SeekData = unix.SEEK_DATA
	SeekHole = unix.SEEK_HOLE
)

// OPath opens a file only to name it in other calls (open(2), O_PATH).
const OPath = unix.O_PATH
