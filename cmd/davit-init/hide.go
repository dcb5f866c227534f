package main

import (
	"golang.org/x/sys/unix"
)

// openHidden opens a path that is to be masked or made read-only. A path of procfs must lead to procfs:
// else somebody who shares the root could have exchanged it. ok is false when there is nothing there.
func (p *process) openHidden(path string) (fd int, ok bool, err error) {
	fd, err = p.open(path, unix.O_PATH, 0)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return -1, false, nil
	}
	if err != nil {
		return -1, false, err
	}
	if p.proc >= 0 && under(path, "/proc") {
		if err := mustBeOn(fd, unix.PROC_SUPER_MAGIC); err != nil {
			unix.Close(fd)
			return -1, false, detail("not on procfs", err)
		}
	}
	return fd, true, nil
}

func mustBeOn(fd int, magic int64) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return err
	}
	if int64(st.Type) != magic {
		return unix.EXDEV
	}
	return nil
}

// readOnly puts a read-only copy of the mounts at path on top of it.
func (p *process) readOnly(path string) error {
	target, ok, err := p.openHidden(path)
	if err != nil || !ok {
		return err
	}
	defer unix.Close(target)
	tree, err := cloneTree(target)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	if err := setAttr(tree, true, unix.MOUNT_ATTR_RDONLY, 0); err != nil {
		return err
	}
	return attach(tree, target)
}

// remountReadOnly makes a mount of the container read-only in place.
func (p *process) remountReadOnly(path string) error {
	fd, err := p.open(path, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return setAttr(fd, false, unix.MOUNT_ATTR_RDONLY, 0)
}

// mask covers a file with the host's null device and a directory with an empty one.
func (p *process) mask(path string) error {
	target, ok, err := p.openHidden(path)
	if err != nil || !ok {
		return err
	}
	defer unix.Close(target)
	dir, err := isDir(target)
	if err != nil {
		return err
	}
	if dir {
		return p.maskDir(target)
	}
	tree, err := cloneTree(p.hostNull)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	return attach(tree, target)
}

// maskDir makes the empty directory once; later ones are copies of its mount.
func (p *process) maskDir(target int) error {
	if p.empty < 0 {
		const attributes = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
		tree, err := newTree("tmpfs", "tmpfs", []string{"mode=0555", "nr_blocks=1", "nr_inodes=1"}, attributes)
		if err != nil {
			return err
		}
		p.empty = tree
		return attach(tree, target)
	}
	tree, err := cloneTree(p.empty)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	return attach(tree, target)
}

// sysctl writes below /proc/sys of a procfs that nothing of the container can have touched.
func (p *process) sysctl(path, value string) error {
	if err := p.needProc(); err != nil {
		return err
	}
	fd, err := openIn(p.proc, "sys/"+path, unix.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(value))
	return err
}

// needProc makes a procfs of init's own when the container has none.
func (p *process) needProc() error {
	if p.proc >= 0 {
		return nil
	}
	tree, err := newTree("proc", "proc", nil, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return detail("mount proc", err)
	}
	p.proc = tree
	return nil
}
