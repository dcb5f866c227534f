package cgroup

import (
	"fmt"
	"slices"
	"sync"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/oci/errdefs"
)

// joined are the directories that a group got after it was made, for a controller that only a later
// limit asked for.
type joined struct {
	mu   sync.Mutex
	dirs []dir
}

// everywhere returns all directories of the group.
func (g *Group) everywhere() []dir {
	g.later.mu.Lock()
	defer g.later.mu.Unlock()
	if len(g.later.dirs) == 0 {
		return g.dirs
	}
	return slices.Concat(g.dirs, g.later.dirs)
}

// join makes the group's directory in the v1 hierarchies that r needs and that it is not in yet, and moves
// its processes there: a container is put only into hierarchies where it is limited or counted.
func (g *Group) join(r *specs.LinuxResources) error {
	l, err := Host()
	if err != nil {
		return err
	}
	have := g.everywhere()
	for i := range l.Hierarchies {
		h := &l.Hierarchies[i]
		if !l.wanted(h, r) || slices.ContainsFunc(have, func(d dir) bool { return d.h.same(*h) }) {
			continue
		}
		d := dir{h, h.dir(g.path)}
		if _, err := d.make(); err != nil {
			return fmt.Errorf("create cgroup %s: %w", d.path, err)
		}
		g.later.mu.Lock()
		g.later.dirs = append(g.later.dirs, d)
		g.later.mu.Unlock()
		if err := g.moveInto(d); err != nil {
			return err
		}
	}
	return nil
}

// moveInto moves the group's processes into one more of its directories, until no fork has left one behind.
func (g *Group) moveInto(d dir) error {
	const rounds = 100
	moved := map[int]bool{}
	for range rounds {
		pids, err := g.Pids()
		if err != nil {
			return fmt.Errorf("list processes of cgroup %s: %w", g.path, err)
		}
		pids = slices.DeleteFunc(pids, func(pid int) bool { return moved[pid] })
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			moved[pid] = true
			if err := d.write("cgroup.procs", itoa(int64(pid))); err != nil && !hasErrno(err, syscall.ESRCH) {
				return fmt.Errorf("move process %d to cgroup %s: %w", pid, d.path, err)
			}
		}
	}
	return errdefs.Unavailable("the processes of cgroup %s fork faster than they can be moved", g.path)
}
