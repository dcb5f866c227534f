package sys

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// HungUp says whether the peer of a socket has closed it, as opposed to having ended its writing only.
// poll(2), POLLHUP.
func HungUp(fd uintptr) bool {
	fds := []unix.PollFd{{Fd: int32(fd)}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1 && fds[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
}

// Pipe makes a pipe whose near end is non-blocking, to be used with the Go runtime's poller, and whose
// far end blocks, to be a program's standard stream. nearWrites says which end the near one is.
// pipe(2).
func Pipe(nearWrites bool) (near, far *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	if nearWrites {
		fds[0], fds[1] = fds[1], fds[0]
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fds[0]), "pipe"), os.NewFile(uintptr(fds[1]), "pipe"), nil
}

// KeepOnExec says whether the descriptor of f stays open in a program that this process executes, and
// returns its number. fcntl(2), FD_CLOEXEC.
func KeepOnExec(f syscall.Conn, keep bool) (number int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	flags := unix.FD_CLOEXEC
	if keep {
		flags = 0
	}
	var failure error
	err = raw.Control(func(fd uintptr) {
		number = int(fd)
		_, failure = unix.FcntlInt(fd, unix.F_SETFD, flags)
	})
	if err == nil {
		err = os.NewSyscallError("fcntl", failure)
	}
	return number, err
}

// Resize sets the size of a terminal in characters. ioctl_tty(2), TIOCSWINSZ.
func Resize(terminal *os.File, rows, cols uint16) error {
	err := control(terminal, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
	return os.NewSyscallError("ioctl TIOCSWINSZ", err)
}

// ReadNow reads what a non-blocking f has, without waiting; EAGAIN says that it is nothing. read(2).
func ReadNow(f *os.File, p []byte) (n int, err error) {
	err = control(f, func(fd int) (failure error) {
		for {
			if n, failure = unix.Read(fd, p); failure != unix.EINTR {
				return failure
			}
		}
	})
	return n, err
}

// Pollable returns a second, non-blocking descriptor of f for the Go runtime's poller. What f refers to
// becomes non-blocking for f too. fcntl(2), F_DUPFD_CLOEXEC.
func Pollable(f *os.File) (*os.File, error) {
	var copied int
	err := control(f, func(fd int) (err error) {
		if copied, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err == nil {
			err = unix.SetNonblock(copied, true)
		}
		return err
	})
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(copied), f.Name()), nil
}
