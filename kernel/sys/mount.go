package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// Mount attributes for FsMount and MountSetattr: the kernel's own values.
const (
	AttrReadOnly    = unix.MOUNT_ATTR_RDONLY
	AttrNoSuid      = unix.MOUNT_ATTR_NOSUID
	AttrNoDev       = unix.MOUNT_ATTR_NODEV
	AttrNoExec      = unix.MOUNT_ATTR_NOEXEC
	AttrAtimeMask   = unix.MOUNT_ATTR__ATIME
	AttrNoAtime     = unix.MOUNT_ATTR_NOATIME
	AttrStrictAtime = unix.MOUNT_ATTR_STRICTATIME
	AttrNoDirAtime  = unix.MOUNT_ATTR_NODIRATIME
	AttrNoSymFollow = unix.MOUNT_ATTR_NOSYMFOLLOW
	AttrIDMap       = unix.MOUNT_ATTR_IDMAP
)

// FsOpen opens a configuration context for a new file system. fsopen(2), Linux 5.2.
func FsOpen(fsType string) (*os.File, error) {
	return file(fsType)(unix.Fsopen(fsType, unix.FSOPEN_CLOEXEC))
}

// FsConfigString sets an option with a value, of at most 255 bytes. fsconfig(2), Linux 5.2.
func FsConfigString(fs *os.File, key, value string) error {
	return retry(func() error { return unix.FsconfigSetString(int(fs.Fd()), key, value) })
}

// FsConfigFlag sets an option without a value. fsconfig(2), Linux 5.2.
func FsConfigFlag(fs *os.File, key string) error {
	return retry(func() error { return unix.FsconfigSetFlag(int(fs.Fd()), key) })
}

// FsConfigFD sets an option whose value is a descriptor. fsconfig(2), Linux 5.2; overlayfs takes its
// layers so from 6.13.
func FsConfigFD(fs *os.File, key string, fd *os.File) error {
	return retry(func() error { return unix.FsconfigSetFd(int(fs.Fd()), key, int(fd.Fd())) })
}

// FsCreate makes the configured file system. fsconfig(2), Linux 5.2.
func FsCreate(fs *os.File) error {
	return retry(func() error { return unix.FsconfigCreate(int(fs.Fd())) })
}

// FsMount returns a detached mount of the created file system. fsmount(2), Linux 5.2.
func FsMount(fs *os.File, attributes int) (*os.File, error) {
	return file(fs.Name())(unix.Fsmount(int(fs.Fd()), unix.FSMOUNT_CLOEXEC, attributes))
}

// FsMessages returns what the kernel said about the context, a line each. fsopen(2), Linux 5.2.
func FsMessages(fs *os.File) []string {
	var messages []string
	buffer := make([]byte, 4096)
	for {
		n, err := unix.Read(int(fs.Fd()), buffer)
		if err != nil || n <= 0 {
			return messages
		}
		messages = append(messages, string(buffer[:n]))
	}
}

// CloneTree returns a detached copy of the mount at path (relative to dir, unless nil), with all
// mounts below it when recursive. An empty path means dir itself. open_tree(2), Linux 5.2.
func CloneTree(dir *os.File, path string, recursive bool) (*os.File, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	if path == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	return file(path)(retryFD(func() (int, error) { return unix.OpenTree(at(dir), path, flags) }))
}

// MountSetattr changes the attributes of the mount whose root is tree, and of those below it when
// recursive; userns is the namespace of an AttrIDMap, else nil. mount_setattr(2), Linux 5.12.
func MountSetattr(tree *os.File, recursive bool, set, clear, propagation uint64, userns *os.File) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	attr := unix.MountAttr{Attr_set: set, Attr_clr: clear, Propagation: propagation}
	if userns != nil {
		attr.Userns_fd = uint64(userns.Fd())
	}
	return retry(func() error { return unix.MountSetattr(int(tree.Fd()), "", flags, &attr) })
}

// MoveMount attaches the mount whose root is tree at path, relative to dir unless that is nil; an
// empty path means dir itself. move_mount(2), Linux 5.2.
func MoveMount(tree, dir *os.File, path string) error {
	flags := unix.MOVE_MOUNT_F_EMPTY_PATH
	if path == "" {
		flags |= unix.MOVE_MOUNT_T_EMPTY_PATH
	}
	return retry(func() error { return unix.MoveMount(int(tree.Fd()), "", at(dir), path, flags) })
}

// Mount is the classic mount(2).
func Mount(source, target, fsType string, flags uintptr, data string) error {
	return retry(func() error { return unix.Mount(source, target, fsType, flags, data) })
}

// UnmountDetach takes the mount at path out of the tree at once and lets it die when unused.
// umount2(2).
func UnmountDetach(path string) error {
	return retry(func() error { return unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) })
}

func at(dir *os.File) int {
	if dir == nil {
		return unix.AT_FDCWD
	}
	return int(dir.Fd())
}

// file turns a descriptor into an *os.File with a name for messages.
func file(name string) func(int, error) (*os.File, error) {
	return func(fd int, err error) (*os.File, error) {
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(fd), name), nil
	}
}
