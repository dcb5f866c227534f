package main

import (
	"golang.org/x/sys/unix"

	"davit/ociruntime/step"
)

// makeLink makes a symbolic link; one that exists is left as it is.
func (p *process) makeLink(path, says string) error {
	dir, name, err := p.openParent(path)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if err := unix.Symlinkat(says, dir, name); err != nil && err != unix.EEXIST {
		return err
	}
	return nil
}

// makeDevice makes a device node or fifo with mknod. A node that exists already must be the same one.
func (p *process) makeDevice(s *step.Step) error {
	kinds := map[string]uint32{"c": unix.S_IFCHR, "b": unix.S_IFBLK, "p": unix.S_IFIFO}
	kind, mode, dev := kinds[s.Type], uint32(s.Words[0]), int(unix.Mkdev(uint32(s.Words[1]), uint32(s.Words[2])))
	dir, name, err := p.openParent(s.Path)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	err = unix.Mknodat(dir, name, kind|mode, dev)
	if err == unix.EEXIST {
		return sameDevice(dir, name, kind, uint64(dev))
	}
	if err != nil {
		return err
	}
	if err := unix.Fchmodat(dir, name, mode, 0); err != nil {
		return detail("set mode", err)
	}
	if err := unix.Fchownat(dir, name, int(s.Words[3]), int(s.Words[4]), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return detail("set owner", err)
	}
	return nil
}

func sameDevice(dir int, name string, kind uint32, dev uint64) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != kind || kind != unix.S_IFIFO && st.Rdev != dev {
		return detail("something else is there", unix.EEXIST)
	}
	return nil
}

// console makes a pseudo-terminal in the container's own devpts. Its other side is opened from the
// master itself, not by a path, so nobody can put something else in its place; it becomes the streams
// and, bound, the console. The master goes to the runtime.
func (p *process) console(s *step.Step) error {
	if p.root < 0 {
		root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(root)
		p.root = root
		defer func() { p.root = -1 }()
	}
	master, slave, err := p.openTerminal()
	if err != nil {
		return err
	}
	if err := configureTerminal(slave, s.Words); err != nil {
		return err
	}
	if s.Path != "" {
		if err := p.bindConsole(slave, s.Path); err != nil {
			return detail("bind "+s.Path, err)
		}
	}
	p.control.send(step.Master, nil, master)
	unix.Close(master)
	for fd := range 3 {
		if err := unix.Dup3(slave, fd, 0); err != nil {
			return err
		}
	}
	return unix.Close(slave)
}

func (p *process) openTerminal() (master, slave int, err error) {
	master, err = p.open("/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return -1, -1, detail("open /dev/pts/ptmx", err)
	}
	if err := mustBeOn(master, unix.DEVPTS_SUPER_MAGIC); err != nil {
		return -1, -1, detail("/dev/pts/ptmx is not on devpts", err)
	}
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return -1, -1, detail("unlock terminal", err)
	}
	slave, err = peer(master, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if err != nil {
		return -1, -1, detail("open terminal", err)
	}
	return master, slave, nil
}

func configureTerminal(slave int, words []uint64) error {
	if words[0] != 0 || words[1] != 0 {
		size := unix.Winsize{Row: uint16(words[0]), Col: uint16(words[1])}
		if err := unix.IoctlSetWinsize(slave, unix.TIOCSWINSZ, &size); err != nil {
			return detail("set size", err)
		}
	}
	if err := unix.Fchown(slave, int(words[2]), -1); err != nil {
		return detail("set owner", err)
	}
	return nil
}

// bindConsole binds the terminal over a file of the container, which it makes if missing.
func (p *process) bindConsole(slave int, path string) error {
	target, err := p.openTarget(path, false)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	tree, err := cloneTree(slave)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	return attach(tree, target)
}

// peer opens the other side of a pseudo-terminal. TIOCGPTPEER, Linux 4.13.
func peer(master, flags int) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, uintptr(flags))
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}
