package sys

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Eventfd makes a close-on-exec, non-blocking eventfd with count 0. eventfd(2), Linux 2.6.27.
func Eventfd() (*os.File, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	return os.NewFile(uintptr(fd), "eventfd"), nil
}

// PollPriority waits until fd has an exceptional condition (POLLPRI), such as a changed cgroup.events,
// or the timeout is over; the two cannot be told apart, so look again. poll(2).
func PollPriority(fd int, timeout time.Duration) error {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}
	_, err := unix.Poll(fds, int(timeout.Milliseconds()))
	if err == unix.EINTR {
		return nil
	}
	return os.NewSyscallError("poll", err)
}
