package sys

import (
	"context"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// OpenPid returns a descriptor of the process that has the id now. pidfd_open(2), Linux 5.3.
func OpenPid(pid int) (*os.File, error) {
	return file("pidfd")(retryFD(func() (int, error) { return unix.PidfdOpen(pid, 0) }))
}

// SignalPidFD sends a signal to the process. ESRCH says it is gone. pidfd_send_signal(2), Linux 5.1.
func SignalPidFD(pidfd *os.File, sig syscall.Signal) error {
	return retry(func() error { return unix.PidfdSendSignal(int(pidfd.Fd()), unix.Signal(sig), nil, 0) })
}

// Exit is how a process ended, as wait(2) tells it.
type Exit struct {
	Code   int // of exit(2), when Signal is 0
	Signal int
}

// Reap waits for the child that pidfd refers to and releases it. waitid(2) with P_PIDFD, Linux 5.4.
// ECHILD says that it is not the caller's child.
func Reap(pidfd *os.File) (Exit, error) {
	var info unix.Siginfo
	err := retry(func() error {
		return unix.Waitid(unix.P_PIDFD, int(pidfd.Fd()), &info, unix.WEXITED, nil)
	})
	if err != nil {
		return Exit{}, err
	}
	return exitOf(&info), nil
}

// ExitOf returns how a process ended that need not be the caller's child. PIDFD_GET_INFO with
// PIDFD_INFO_EXIT, Linux 6.15; pidfd must have been opened before the process was reaped. ok is
// false while it has not been.
func ExitOf(pidfd *os.File) (exit Exit, ok bool, err error) {
	const exitKnown = 1 << 3 // PIDFD_INFO_EXIT
	info := unix.PidfdInfo{Mask: exitKnown}
	if err := retry(func() error { return unix.IoctlPidfdInfo(int(pidfd.Fd()), &info) }); err != nil {
		return Exit{}, false, err
	}
	if info.Mask&exitKnown == 0 {
		return Exit{}, false, nil
	}
	status := syscall.WaitStatus(uint32(info.Exit_code))
	if status.Signaled() {
		return Exit{Signal: int(status.Signal())}, true, nil
	}
	return Exit{Code: status.ExitStatus()}, true, nil
}

// WaitGone waits until the process has exited, reaped or not. poll(2) on a pidfd, Linux 5.3.
func WaitGone(ctx context.Context, pidfd *os.File) error {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(wake)
	stop := context.AfterFunc(ctx, func() { unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) })
	defer stop()
	fds := []unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}, {Fd: int32(wake), Events: unix.POLLIN}}
	err = retry(func() error {
		_, err := unix.Poll(fds, -1)
		return err
	})
	if err != nil {
		return err
	}
	if fds[0].Revents != 0 {
		return nil
	}
	return ctx.Err()
}

// Gone reports whether the process has exited, reaped or not.
func Gone(pidfd *os.File) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

// exitOf reads the part of siginfo_t that package unix does not name: si_status follows si_pid and
// si_uid, 24 bytes in.
func exitOf(info *unix.Siginfo) Exit {
	const exited = 1 // CLD_EXITED
	status := *(*int32)(unsafe.Add(unsafe.Pointer(info), 24))
	if info.Code == exited {
		return Exit{Code: int(status)}
	}
	return Exit{Signal: int(status)}
}
