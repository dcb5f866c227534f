package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// AsFileOwner runs do on the calling thread with file system user and group ids uid and gid, and
// with all its capabilities: overlayfs keeps the credentials of who mounts it, and a mount over
// layers mapped for a container must be made by that container's root. The caller holds the thread.
// setfsuid(2), capset(2).
func AsFileOwner(uid, gid int, do func() error) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var saved [2]unix.CapUserData
	if err := unix.Capget(&header, &saved[0]); err != nil {
		return err
	}
	oldGid, oldUid := setFsGid(gid), setFsUid(uid)
	defer func() {
		setFsUid(oldUid)
		setFsGid(oldGid)
		unix.Capset(&header, &saved[0])
	}()
	raised := saved
	for i := range raised {
		raised[i].Effective = raised[i].Permitted
	}
	if err := unix.Capset(&header, &raised[0]); err != nil {
		return err
	}
	return do()
}

func setFsUid(uid int) int {
	old, _ := unix.SetfsuidRetUid(uid)
	return old
}

func setFsGid(gid int) int {
	old, _ := unix.SetfsgidRetGid(gid)
	return old
}

// SetRlimit changes the limits of another process. EPERM says that the hard limit cannot be raised.
// prlimit(2).
func SetRlimit(pid, resource int, soft, hard uint64) error {
	limit := unix.Rlimit{Cur: soft, Max: hard}
	return retry(func() error { return unix.Prlimit(pid, resource, &limit, nil) })
}

// Rlimit returns the limits of a process (0: the caller). prlimit(2).
func Rlimit(pid, resource int) (soft, hard uint64, err error) {
	var limit unix.Rlimit
	err = retry(func() error { return unix.Prlimit(pid, resource, nil, &limit) })
	return limit.Cur, limit.Max, err
}

// SetSubreaper makes the calling process the parent of its orphaned descendants. prctl(2).
func SetSubreaper() error {
	return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
}

// Mknod makes a device, fifo or
// regular file below dir. mknodat(2).
func Mknod(dir *os.File, path string, mode uint32, major, minor uint32) error {
	return retry(func() error {
		return unix.Mknodat(at(dir), path, mode, int(unix.Mkdev(major, minor)))
	})
}
