package sys

import "golang.org/x/sys/unix"

// fsTopDirFlag is FS_TOPDIR_FL of linux/fs.h.
const fsTopDirFlag = 0x00020000

// SpreadChildren tells an ext2/3/4 file system that the subdirectories of dirfd have nothing to do with
// each other, so that each begins in a block group of its own (ioctl_iflags(2), FS_TOPDIR_FL; chattr +T).
// Others refuse the flag.
func SpreadChildren(dirfd int) error {
	return uninterrupted(func() error {
		flags, err := unix.IoctlGetUint32(dirfd, unix.FS_IOC_GETFLAGS)
		if err != nil || flags&fsTopDirFlag != 0 {
			return err
		}
		return unix.IoctlSetPointerInt(dirfd, unix.FS_IOC_SETFLAGS, int(flags|fsTopDirFlag))
	})
}
