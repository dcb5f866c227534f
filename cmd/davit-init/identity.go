package main

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"davit/ociruntime/step"
)

// setAttribute executes the steps that set one attribute of the thread. The raw calls are deliberate:
// the standard library's wrappers would change every thread, or refuse to.
func setAttribute(s *step.Step) error {
	switch s.Op {
	case step.Personality:
		return raw(unix.SYS_PERSONALITY, uintptr(s.Words[0]), 0, 0)
	case step.Scheduler:
		return setScheduler(s.Words)
	case step.IOPriority:
		const process = 1 // IOPRIO_WHO_PROCESS
		return raw(unix.SYS_IOPRIO_SET, process, 0, uintptr(s.Words[0]))
	case step.CPUAffinity:
		return raw(unix.SYS_SCHED_SETAFFINITY, 0, uintptr(len(s.Words)*8), uintptr(unsafe.Pointer(&s.Words[0])))
	case step.Bounding:
		return dropBounding(s.Words[0])
	case step.NoNewPrivs:
		return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	case step.User:
		return setUser(s.Words)
	case step.Capabilities:
		return setCapabilities(s.Words)
	case step.Umask:
		unix.Umask(int(s.Words[0]))
		return nil
	}
	return detail("unknown step", nil)
}

func raw(call, a, b, c uintptr) error {
	if _, _, errno := unix.RawSyscall(call, a, b, c); errno != 0 {
		return errno
	}
	return nil
}

// session starts one, whose terminal stream 0 becomes when there is one.
func session(terminal bool) error {
	if _, err := unix.Setsid(); err != nil && err != unix.EPERM {
		return err
	}
	if !terminal {
		return nil
	}
	if err := raw(unix.SYS_IOCTL, 0, unix.TIOCSCTTY, 0); err != nil {
		return detail("set controlling terminal", err)
	}
	return nil
}

// dropBounding drops every capability that is not in keep. The kernel's last one is where it says EINVAL.
func dropBounding(keep uint64) error {
	for c := range 64 {
		if keep&(1<<c) != 0 {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
		if err == unix.EINVAL {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// setUser changes the ids and keeps the permitted capabilities, which Capabilities then reduces.
func setUser(words []uint64) error {
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return err
	}
	uid, gid, groups := uintptr(words[0]), uintptr(words[1]), make([]uint32, len(words)-1) // one more than needed
	for i, g := range words[2:] {
		groups[i] = uint32(g)
	}
	if err := raw(unix.SYS_SETGROUPS, uintptr(len(groups)-1), uintptr(unsafe.Pointer(&groups[0])), 0); err != nil {
		return detail("set groups", err)
	}
	if err := raw(unix.SYS_SETRESGID, gid, gid, gid); err != nil {
		return detail("set group", err)
	}
	if err := raw(unix.SYS_SETRESUID, uid, uid, uid); err != nil {
		return err
	}
	return nil
}

// setCapabilities sets all five sets but the bounding one, which is set already.
func setCapabilities(words []uint64) error {
	effective, permitted, inheritable, ambient := words[0], words[1], words[2], words[3]
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{
		{Effective: uint32(effective), Permitted: uint32(permitted), Inheritable: uint32(inheritable)},
		{Effective: uint32(effective >> 32), Permitted: uint32(permitted >> 32), Inheritable: uint32(inheritable >> 32)},
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 0, 0, 0, 0); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return detail("clear ambient set", err)
	}
	for c := range 64 {
		if ambient&(1<<c) == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(c), 0, 0); err != nil {
			return detail("raise ambient capability "+decimal(c), err)
		}
	}
	return nil
}

// setScheduler sets policy, flags, nice value, priority and the three times of SCHED_DEADLINE.
func setScheduler(words []uint64) error {
	attr := unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: uint32(words[0]), Flags: words[1], Nice: int32(words[2]),
		Priority: uint32(words[3]), Runtime: words[4], Deadline: words[5], Period: words[6],
	}
	return unix.SchedSetAttr(0, &attr, 0)
}

// timeOffsets makes a time namespace for the program; execve enters it (Linux 6.3).
func timeOffsets(lines string) error {
	if err := unix.Unshare(unix.CLONE_NEWTIME); err != nil {
		return err
	}
	fd, err := unix.Open("/proc/self/timens_offsets", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(lines))
	return err
}

// label writes a label for the next execve into an attribute file of this thread.
func (p *process) label(attribute, value string) error {
	if err := p.needProc(); err != nil {
		return err
	}
	fd, err := openIn(p.proc, "thread-self/"+attribute, unix.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := mustBeOn(fd, unix.PROC_SUPER_MAGIC); err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte(value))
	return err
}

// seccomp loads a filter. With a listener the runtime gets the notification descriptor.
func (p *process) seccomp(s *step.Step) error {
	program := unix.SockFprog{Len: uint16(len(s.Data) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&s.Data[0]))}
	const setFilter, newListener = 1, 1 << 3
	flags := uintptr(s.Words[0])
	fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, setFilter, flags, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return errno
	}
	if flags&newListener == 0 {
		return nil
	}
	err := p.control.ask(step.Notify, int(fd))
	unix.Close(int(fd))
	return err
}
