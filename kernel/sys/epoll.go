package sys

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Epoll watches many descriptors at the cost of one goroutine and no thread: it is itself watched by
// the Go runtime's poller. epoll(7), Linux 2.6.9.
type Epoll struct {
	file *os.File
	fd   int
}

// NewEpoll makes an epoll instance that watches nothing.
func NewEpoll() (*Epoll, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	return &Epoll{os.NewFile(uintptr(fd), "epoll"), fd}, nil
}

// Add watches f for being readable, once: until it is reported, or until it is closed. token is what
// Wait reports; it is not 0.
func (e *Epoll) Add(f *os.File, token uint64) error { return e.control(unix.EPOLL_CTL_ADD, f, token) }

// Again watches f, which was reported, once more.
func (e *Epoll) Again(f *os.File, token uint64) error { return e.control(unix.EPOLL_CTL_MOD, f, token) }

func (e *Epoll) control(op int, f *os.File, token uint64) error {
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(uint32(token)), Pad: int32(token >> 32)}
	err := control(f, func(fd int) error { return unix.EpollCtl(e.fd, op, fd, &event) })
	return os.NewSyscallError("epoll_ctl", err)
}

// Wait waits until something watched is readable and adds the tokens to into. It fails with
// os.ErrClosed after Close.
func (e *Epoll) Wait(into []uint64) ([]uint64, error) {
	raw, err := e.file.SyscallConn()
	if err != nil {
		return into, err
	}
	var events [64]unix.EpollEvent
	var n int
	var failure error
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, failure = unix.EpollWait(int(fd), events[:], 0)
			if failure != unix.EINTR {
				return n != 0
			}
		}
	})
	if err == nil {
		err = failure
	}
	if err != nil {
		return into, err
	}
	for _, event := range events[:n] {
		into = append(into, uint64(uint32(event.Fd))|uint64(uint32(event.Pad))<<32)
	}
	return into, nil
}

// Close ends Wait.
func (e *Epoll) Close() error { return e.file.Close() }

// control calls with f's descriptor and leaves its blocking mode alone, unlike File.Fd.
func control(f *os.File, call func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failure error
	if err := raw.Control(func(fd uintptr) { failure = call(int(fd)) }); err != nil {
		return err
	}
	return failure
}

// AwaitReaped waits until the parent of an exited process has reaped it, and no longer than timeout.
// poll(2), POLLHUP on a pidfd, Linux 6.9.
func AwaitReaped(pidfd *os.File, timeout time.Duration) error {
	return control(pidfd, func(fd int) error {
		deadline := time.Now().Add(timeout)
		for {
			fds := []unix.PollFd{{Fd: int32(fd)}}
			_, err := unix.Poll(fds, int(max(time.Until(deadline).Milliseconds(), 0)))
			if err != unix.EINTR {
				return err
			}
		}
	})
}
