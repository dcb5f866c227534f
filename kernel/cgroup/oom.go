package cgroup

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"davit/kernel/sys"
	"davit/oci/errdefs"
)

// OOMKills returns how many processes of the group the kernel has killed for its memory limit.
func (g *Group) OOMKills() (uint64, error) {
	d, file := g.oomFile()
	if file == "" {
		return 0, nil
	}
	m, err := d.keyed(file)
	return m["oom_kill"], err
}

func (g *Group) oomFile() (dir, string) {
	if d, ok := g.v1("memory"); ok {
		return d, "memory.oom_control"
	}
	if d, ok := g.unified(); ok && exists(d.path+"/memory.events") {
		return d, "memory.events"
	}
	return dir{}, ""
}

// OOMEvents returns a non-blocking descriptor that becomes readable when the kernel has run out of
// memory for the group, and when the group is removed. What is read from it has no meaning: drain it,
// then compare OOMKills. It is an errdefs.ErrUnsupported where memory is not limited by cgroups.
//
// On v1 this is an eventfd (cgroup-v1/memory.rst, section 10), on v2 an inotify watch of memory.events.
func (g *Group) OOMEvents() (*os.File, error) {
	d, file := g.oomFile()
	switch file {
	case "memory.oom_control":
		return d.oomEventfd()
	case "memory.events":
		return d.oomInotify()
	}
	return nil, errdefs.New(errdefs.ErrUnsupported, "no memory cgroup to watch")
}

func (d dir) oomEventfd() (*os.File, error) {
	control, err := os.Open(d.path + "/memory.oom_control")
	if err != nil {
		return nil, fmt.Errorf("watch for out of memory: %w", err)
	}
	defer control.Close()
	event, err := sys.Eventfd()
	if err != nil {
		return nil, fmt.Errorf("watch for out of memory: %w", err)
	}
	line := itoa(int64(event.Fd())) + " " + itoa(int64(control.Fd()))
	if err := syscall.SetNonblock(int(event.Fd()), true); err != nil {
		return nil, errors.Join(err, event.Close())
	}
	if err := d.write("cgroup.event_control", line); err != nil {
		return nil, errors.Join(fmt.Errorf("watch for out of memory: %w", err), event.Close())
	}
	return event, nil
}

func (d dir) oomInotify() (*os.File, error) {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch for out of memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	if _, err := syscall.InotifyAddWatch(fd, d.path+"/memory.events", syscall.IN_MODIFY); err != nil {
		return nil, errors.Join(fmt.Errorf("watch %s for out of memory: %w", d.path, err), f.Close())
	}
	return f, nil
}
