package main

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"davit/ociruntime/step"
)

// runHook runs a hook in the container's namespaces with the state on its standard input, and fails
// when the hook does or takes longer than it may.
func runHook(s *step.Step) error {
	var in [2]int
	if err := unix.Pipe2(in[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	attr := &syscall.ProcAttr{Env: s.Env, Files: []uintptr{uintptr(in[0]), 1, 2}}
	pid, err := forkExecUnblocked(s.Path, s.List, attr)
	unix.Close(in[0])
	if err != nil {
		unix.Close(in[1])
		return err
	}
	unix.SetNonblock(in[1], true) // a state is smaller than a pipe; a hook need not read it
	unix.Write(in[1], s.Data)
	unix.Close(in[1])
	if err := waitAtMost(pid, int(s.Words[0])); err != nil {
		return err
	}
	var status unix.WaitStatus
	for {
		if _, err := unix.Wait4(pid, &status, 0, nil); err != unix.EINTR {
			break
		}
	}
	if status.Signaled() {
		return detail("signal "+decimal(int(status.Signal())), nil)
	}
	if status.ExitStatus() != 0 {
		return detail("exit status "+decimal(status.ExitStatus()), nil)
	}
	return nil
}

// forkExecUnblocked starts a program that gets its signals, unlike init itself.
func forkExecUnblocked(path string, args []string, attr *syscall.ProcAttr) (int, error) {
	none, all := uint64(0), ^uint64(0)
	setMask(&none)
	defer setMask(&all)
	return syscall.ForkExec(path, args, attr)
}

func setMask(mask *uint64) {
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(mask)), 0, 8, 0, 0)
}

// waitAtMost waits until the process has exited, and kills it when that takes longer than limit ms.
func waitAtMost(pid, limit int) error {
	if limit == 0 {
		return nil
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(pidfd)
	poll := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(poll, limit)
	for err == unix.EINTR {
		n, err = unix.Poll(poll, limit)
	}
	if err != nil || n > 0 {
		return err
	}
	unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
	unix.Wait4(pid, nil, 0, nil)
	return detail("timed out", unix.ETIMEDOUT)
}
