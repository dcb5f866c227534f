package main

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// runAsChild executes the program in a child and stays: as process 1 it reaps what is orphaned, passes
// signals on, and ends as the program ends. Signals are blocked in every thread, so they wait here to be
// fetched: the Go runtime has unblocked some in its own.
func (p *process) runAsChild() error {
	all := ^uint64(0)
	_, _, errno := syscall.AllThreadsSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), 0, 8, 0, 0)
	if errno != 0 {
		return detail("block signals", errno)
	}
	child, err := p.fork()
	if err != nil {
		return err
	}
	// The end of the start connection tells that the program runs; its streams and files are its own.
	if err := unix.CloseRange(0, ^uint(0)>>33, 0); err != nil {
		return err
	}
	for {
		signal, err := nextSignal()
		switch {
		case err != nil:
		case signal == unix.SIGCHLD:
			reap(child)
		case signal != unix.SIGURG: // the Go runtime's own
			unix.Kill(child, signal)
		}
	}
}

// fork starts the program in a process group of its own, in front when there is a terminal. The child
// shares nothing with the Go runtime: it only makes system calls with what settle prepared.
func (p *process) fork() (int, error) {
	var outcome [2]int
	if err := unix.Pipe2(outcome[:], unix.O_CLOEXEC); err != nil {
		return 0, err
	}
	path, err := syscall.BytePtrFromString(p.program)
	if err != nil {
		return 0, err
	}
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	if pid == 0 {
		p.executeAsChild(path, uintptr(outcome[1]))
	}
	unix.Close(outcome[1])
	defer unix.Close(outcome[0])
	var failure [4]byte
	if n, _ := unix.Read(outcome[0], failure[:]); n == len(failure) {
		return 0, syscall.Errno(*(*uint32)(unsafe.Pointer(&failure[0])))
	}
	return int(pid), nil
}

//go:nosplit
func (p *process) executeAsChild(path *byte, outcome uintptr) {
	unix.RawSyscall(unix.SYS_SETPGID, 0, 0, 0)
	var self int32
	pid, _, _ := unix.RawSyscall(unix.SYS_GETPID, 0, 0, 0)
	self = int32(pid)
	unix.RawSyscall(unix.SYS_IOCTL, 0, unix.TIOCSPGRP, uintptr(unsafe.Pointer(&self)))
	resetSignals()
	_, _, errno := unix.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(path)),
		uintptr(unsafe.Pointer(&p.argv[0])), uintptr(unsafe.Pointer(&p.env[0])))
	code := uint32(errno)
	unix.RawSyscall(unix.SYS_WRITE, outcome, uintptr(unsafe.Pointer(&code)), 4)
	for {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, 127, 0, 0)
	}
}

// nextSignal waits for any signal.
func nextSignal() (syscall.Signal, error) {
	all := ^uint64(0)
	signal, _, errno := unix.Syscall6(unix.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&all)), 0, 0, 8, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return syscall.Signal(signal), nil
}

// reap collects every process that has ended and ends with the program's status when it is among them.
func reap(child int) {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if pid != child {
			continue
		}
		if status.Signaled() {
			unix.Exit(128 + int(status.Signal()))
		}
		unix.Exit(status.ExitStatus())
	}
}
