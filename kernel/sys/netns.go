package sys

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// InNetNS runs f on a thread that is inside the network namespace open as fd, and waits for it. What f
// opens (sockets, files below /proc/sys/net) belongs to that namespace. f must not start goroutines
// that expect to be there too. setns(2), Linux 3.0; needs CAP_SYS_ADMIN.
func InNetNS(fd uintptr, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("open own network namespace: %w", err)
			return
		}
		defer home.Close()
		if err := unix.Setns(int(fd), unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("enter network namespace: %w", err)
			return
		}
		err = f()
		// A thread that cannot come home stays locked, and so ends with this goroutine.
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// NewNetNS makes a network namespace that lives as long as the returned file or anything in it.
// unshare(2), Linux 2.6.24; needs CAP_SYS_ADMIN.
func NewNetNS() (file *os.File, err error) {
	err = OnDyingThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare network namespace: %w", err)
		}
		file, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	return file, err
}
