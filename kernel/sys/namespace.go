package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// Kinds of namespace, as clone(2) and setns(2) take them. They may be combined.
const (
	NewCgroup = unix.CLONE_NEWCGROUP
	NewIPC    = unix.CLONE_NEWIPC
	NewNet    = unix.CLONE_NEWNET
	NewMount  = unix.CLONE_NEWNS
	NewPid    = unix.CLONE_NEWPID
	NewTime   = unix.CLONE_NEWTIME
	NewUser   = unix.CLONE_NEWUSER
	NewUTS    = unix.CLONE_NEWUTS
)

// SetNS moves the calling thread into the namespaces of fd: one namespace, or with a pidfd all of
// the given kinds (Linux 5.8). The caller holds the thread (runtime.LockOSThread). setns(2).
func SetNS(fd *os.File, kinds int) error {
	return retry(func() error { return unix.Setns(int(fd.Fd()), kinds) })
}

// Unshare gives the calling thread new namespaces of the given kinds; the mount namespace with its
// root and working directory, which threads otherwise share. The caller holds the thread and lets it
// die with its goroutine. unshare(2).
func Unshare(kinds int) error {
	if kinds&NewMount != 0 {
		kinds |= unix.CLONE_FS
	}
	return retry(func() error { return unix.Unshare(kinds) })
}

// NamespaceOwner returns the user namespace that owns the namespace ns. ioctl_ns(2), Linux 4.9.
func NamespaceOwner(ns *os.File) (*os.File, error) {
	return file("userns")(retryFD(func() (int, error) {
		return unix.IoctlRetInt(int(ns.Fd()), unix.NS_GET_USERNS)
	}))
}

// SameFile reports whether two descriptors refer to the same inode, which for namespaces means the
// same namespace. fstat(2).
func SameFile(a, b *os.File) (bool, error) {
	var x, y unix.Stat_t
	if err := unix.Fstat(int(a.Fd()), &x); err != nil {
		return false, err
	}
	if err := unix.Fstat(int(b.Fd()), &y); err != nil {
		return false, err
	}
	return x.Dev == y.Dev && x.Ino == y.Ino, nil
}
