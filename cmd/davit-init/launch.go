package main

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"davit/ociruntime/step"
)

// chdir enters the working directory: before the user is set, when root alone may, or after. Links of
// procfs are refused and the kernel must see the directory inside the root, so that a descriptor of
// the host that was left open cannot become the working directory.
func (p *process) chdir(path string, againLater bool) error {
	if p.inCwd {
		return nil
	}
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &how)
	switch err {
	case nil:
		defer unix.Close(fd)
		err = unix.Fchdir(fd)
	case unix.EPERM, unix.ENOSYS: // a seccomp filter older than openat2
		err = unix.Chdir(path)
	}
	if err == unix.EACCES && againLater {
		return nil
	}
	if err != nil {
		return err
	}
	var buffer [unix.PathMax]byte
	if n, err := unix.Getcwd(buffer[:]); err != nil || n < 1 || buffer[0] != '/' {
		return detail("working directory is outside of the container", err)
	}
	p.inCwd = true
	return nil
}

// find looks the program up as execvp(3) does, with the ids and capabilities of the user.
func (p *process) find(name string, env []string) error {
	for i := range len(name) {
		if name[i] == '/' {
			p.program = name
			if err := executable(name); err != nil {
				return detail("stat "+name, err)
			}
			return nil
		}
	}
	denied := false
	for _, dir := range searchPath(env) {
		if dir == "" {
			dir = "."
		}
		switch executable(dir + "/" + name) {
		case nil:
			p.program = dir + "/" + name
			return nil
		case unix.EACCES:
			denied = true
		}
	}
	if denied {
		return unix.EACCES
	}
	return detail("executable file not found in $PATH", unix.ENOENT)
}

func executable(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return unix.EISDIR
	}
	err := unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS)
	if err == unix.EPERM || err == unix.ENOSYS { // faccessat2 behind an old filter
		return nil
	}
	return err
}

func searchPath(env []string) []string {
	for _, e := range env {
		if len(e) < 5 || e[:5] != "PATH=" {
			continue
		}
		var dirs []string
		start := 5
		for i := start; i <= len(e); i++ {
			if i == len(e) || e[i] == ':' {
				dirs = append(dirs, e[start:i])
				start = i + 1
			}
		}
		return dirs
	}
	return []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}
}

// park says ready, lets the runtime go, and waits until somebody starts the container. From then on
// that connection is where failures are told; its end without one means the program runs.
func (p *process) park(listener int) error {
	p.control.send(step.Ready, nil, -1)
	unix.Close(p.control.fd)
	p.control.fd = -1
	var start [1]byte
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		if err == unix.EINTR || err == unix.ECONNABORTED {
			continue
		}
		if err != nil {
			return err
		}
		if _, err := read(fd, start[:]); err == nil {
			p.control.fd = fd
			return unix.Close(listener)
		}
		unix.Close(fd)
	}
}

// settle puts the extra descriptors in their places, marks all others close-on-exec, gives the program
// default signals, and prepares what execve takes.
func (p *process) settle(s *step.Step) (err error) {
	extra := int(s.Words[0])
	if p.control.fd, err = above(p.control.fd, 3+extra); err != nil {
		return err
	}
	for i := range p.files {
		if p.files[i], err = above(p.files[i], 3+extra); err != nil {
			return err
		}
	}
	for i := range extra {
		if err := unix.Dup3(p.files[s.File+i], 3+i, 0); err != nil {
			return err
		}
	}
	if err := unix.CloseRange(uint(3+extra), ^uint(0)>>33, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return detail("close_range", err)
	}
	if p.argv, err = syscall.SlicePtrFromStrings(s.List); err != nil {
		return err
	}
	p.env, err = syscall.SlicePtrFromStrings(s.Env)
	return err
}

// above moves a descriptor to a number that is at least least. -1 is one that is closed already.
func above(fd, least int) (int, error) {
	if fd < 0 || fd >= least {
		return fd, nil
	}
	moved, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, least)
	if err != nil {
		return fd, err
	}
	return moved, unix.Close(fd)
}

// resetSignals gives all signals their default action and lets them through.
//
//go:nosplit
func resetSignals() {
	var action [4]uint64 // struct sigaction of all zeros is SIG_DFL
	for signal := uintptr(1); signal <= 64; signal++ {
		unix.RawSyscall6(unix.SYS_RT_SIGACTION, signal, uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	}
	var none uint64
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&none)), 0, 8, 0, 0)
}

// run becomes the user's program.
func (p *process) run() error {
	path, err := syscall.BytePtrFromString(p.program)
	if err != nil {
		return err
	}
	resetSignals()
	err = raw(unix.SYS_EXECVE, uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(&p.argv[0])), uintptr(unsafe.Pointer(&p.env[0])))
	return detail(p.program, err)
}
