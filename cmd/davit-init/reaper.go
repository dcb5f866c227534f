package main

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The Go runtime's side of package os/signal, which itself would bring package os along.

//go:linkname signalEnable os/signal.signal_enable
func signalEnable(signal uint32)

//go:linkname signalReceive os/signal.signal_recv
func signalReceive() uint32

// runAsChild executes the program in a child and stays: as process 1 it reaps what is orphaned, passes
// signals on, and ends as the program ends.
func (p *process) runAsChild() error {
	signals := make(chan syscall.Signal, 64)
	go fetchSignals(signals)
	<-signals // they are fetched from here on
	child, err := p.fork()
	if err != nil {
		return err
	}
	// The end of the start connection tells that the program runs; its streams and files are its own.
	if err := unix.CloseRange(0, ^uint(0)>>33, 0); err != nil {
		return err
	}
	reap(child) // it may have ended already
	for signal := range signals {
		if signal == unix.SIGCHLD {
			reap(child)
		} else {
			unix.Kill(child, signal)
		}
	}
	return nil
}

// fetchSignals sends every signal that can be caught, after a first 0 that says that it has begun.
// SIGURG is the Go runtime's own.
func fetchSignals(to chan<- syscall.Signal) {
	for signal := uint32(1); signal <= 64; signal++ {
		if syscall.Signal(signal) != unix.SIGURG {
			signalEnable(signal)
		}
	}
	to <- 0
	for {
		to <- syscall.Signal(signalReceive())
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
