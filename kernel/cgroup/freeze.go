package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"davit/kernel/sys"
	"davit/oci/errdefs"
)

// Freeze stops every process of the group, and returns when all of them have stopped. On an error,
// ctx's included, the group is thawed again.
func (g *Group) Freeze(ctx context.Context) error {
	err := g.freeze(ctx)
	if err != nil {
		return errors.Join(fmt.Errorf("freeze cgroup %s: %w", g.path, err), g.Thaw())
	}
	return nil
}

func (g *Group) freeze(ctx context.Context) error {
	if d, ok := g.unified(); ok {
		if err := d.write("cgroup.freeze", "1"); err != nil {
			return err
		}
		return d.await(ctx, "frozen", "1")
	}
	d, ok := g.v1("freezer")
	if !ok {
		return errdefs.New(errdefs.ErrUnsupported, "no freezer cgroup is mounted")
	}
	return poll(ctx, func() (bool, error) {
		// A process forked meanwhile leaves the group FREEZING until the state is written once more.
		if err := d.write("freezer.state", "FROZEN"); err != nil {
			return false, err
		}
		state, err := d.read("freezer.state")
		return state == "FROZEN", err
	})
}

// Thaw lets the group's processes run again. Thawing what is not frozen does nothing.
func (g *Group) Thaw() error {
	var err error
	if d, ok := g.unified(); ok {
		err = d.write("cgroup.freeze", "0")
	} else if d, ok := g.v1("freezer"); ok {
		err = d.write("freezer.state", "THAWED")
	}
	if err != nil {
		return fmt.Errorf("thaw cgroup %s: %w", g.path, err)
	}
	return nil
}

// Frozen reports whether the group has been frozen.
func (g *Group) Frozen() (bool, error) {
	if d, ok := g.unified(); ok {
		state, err := d.read("cgroup.freeze")
		return state == "1", err
	}
	if d, ok := g.v1("freezer"); ok {
		state, err := d.read("freezer.state")
		return state != "THAWED", err
	}
	return false, nil
}

// Kill kills every process of the group, groups below it included, frozen or not. It does not wait
// until they are gone: Delete does.
func (g *Group) Kill(ctx context.Context) error {
	if d, ok := g.unified(); ok {
		err := d.write("cgroup.kill", "1")
		if !absent(err) { // the file is there since Linux 5.14
			return err
		}
	}
	if err := g.Signal(ctx, syscall.SIGKILL); err != nil {
		return err
	}
	return g.Thaw()
}

// Signal sends a signal to every process of the group. It freezes the group while it does, if it can,
// so that no process forks past it and no pid is used anew; otherwise it goes round until no new
// process turns up.
func (g *Group) Signal(ctx context.Context, sig syscall.Signal) error {
	frozen, err := g.Frozen()
	if err != nil {
		return err
	}
	if !frozen && g.Freeze(ctx) == nil {
		defer g.Thaw()
	}
	seen := map[int]bool{}
	for range 100 {
		pids, err := g.Pids()
		if err != nil {
			return err
		}
		fresh := false
		for _, pid := range pids {
			if seen[pid] {
				continue
			}
			seen[pid], fresh = true, true
			if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("send %v to process %d: %w", sig, pid, err)
			}
		}
		if !fresh {
			return nil
		}
	}
	return errdefs.Unavailable("the processes of cgroup %s fork faster than they can be signalled", g.path)
}

// Pids returns the processes of the group and of groups below it, in the caller's pid namespace, without
// order. A process may be gone by then.
func (g *Group) Pids() ([]int, error) {
	d, ok := g.unified()
	if !ok {
		d = g.dirs[0]
	}
	var pids []int
	err := walk(d.path, func(path string) error {
		text, err := dir{d.h, path}.read("cgroup.procs")
		if absent(err) || hasErrno(err, syscall.ENODEV) {
			return nil // the group was removed meanwhile
		}
		for field := range strings.FieldsSeq(text) {
			var pid int
			if _, err := fmt.Sscan(field, &pid); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return err
	})
	return pids, err
}

// Delete removes the group and the empty groups that were made below it. It waits, as long as ctx
// allows, for processes that are about to be gone, and is an errdefs.ErrConflict when some stay; it
// kills none. Deleting a group that is gone is no error.
func (g *Group) Delete(ctx context.Context) error {
	defer g.close()
	if strings.HasSuffix(g.path, scopeSuffix) && exists(systemdRunning) {
		if err := stopScope(ctx, g.path); err != nil {
			return err
		}
	}
	for _, d := range g.everywhere() {
		if err := d.remove(ctx); err != nil {
			return fmt.Errorf("remove cgroup %s: %w", d.path, err)
		}
	}
	return nil
}

// remove deletes one directory. The first attempt nearly always works: a task has left its groups by the
// time its parent can reap it.
func (d dir) remove(ctx context.Context) error {
	err := removeTree(d.path)
	if err == nil || !hasErrno(err, syscall.EBUSY) {
		return err
	}
	if d.h.V2 {
		err = d.await(ctx, "populated", "0")
		if err == nil {
			err = removeTree(d.path)
		}
	} else {
		err = poll(ctx, func() (bool, error) {
			err := removeTree(d.path)
			if hasErrno(err, syscall.EBUSY) {
				return false, nil
			}
			return err == nil, err
		})
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return errdefs.New(errdefs.ErrConflict, "processes are still running in it: %w", err)
	}
	return err
}

// removeTree removes a group and those below it, deepest first. rmdir(2) itself refuses one with
// processes.
func removeTree(path string) error {
	err := syscall.Rmdir(path)
	if err == nil || errors.Is(err, syscall.ENOENT) {
		return nil
	}
	below, readErr := subgroups(path)
	if readErr != nil || len(below) == 0 {
		return &fs.PathError{Op: "rmdir", Path: path, Err: err}
	}
	for _, p := range below {
		if err := removeTree(p); err != nil {
			return err
		}
	}
	if err := syscall.Rmdir(path); err != nil && !errors.Is(err, syscall.ENOENT) {
		return &fs.PathError{Op: "rmdir", Path: path, Err: err}
	}
	return nil
}

// walk calls visit for a group and all groups below it.
func walk(path string, visit func(path string) error) error {
	if err := visit(path); err != nil {
		return err
	}
	below, err := subgroups(path)
	if err != nil {
		return err
	}
	for _, p := range below {
		if err := walk(p, visit); err != nil {
			return err
		}
	}
	return nil
}

// subgroups lists the directories in path; none when it is gone.
func subgroups(path string) ([]string, error) {
	// A group's link count is 2 plus its children's: the usual group is not read at all.
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil || st.Nlink == 2 {
		return nil, nil
	}
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, path+"/"+e.Name())
		}
	}
	return out, err
}

// await waits until a key of cgroup.events has the value. The kernel raises POLLPRI on every change.
func (d dir) await(ctx context.Context, key, value string) error {
	f, err := os.Open(d.path + "/cgroup.events")
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 256)
	for {
		n, err := f.ReadAt(buf, 0)
		if n == 0 && err != nil {
			return err
		}
		if strings.Contains("\n"+string(buf[:n]), "\n"+key+" "+value+"\n") {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		// The timeout only bounds how late a cancelled ctx is noticed.
		if err := sys.PollPriority(int(f.Fd()), 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// poll repeats try until it is done. v1 has no notification for what is awaited here (a group frozen,
// a group empty), so this asks again at growing distances, up to 10 ms.
func poll(ctx context.Context, try func() (done bool, err error)) error {
	pause := 50 * time.Microsecond
	for {
		done, err := try()
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
			pause = min(2*pause, 10*time.Millisecond)
		}
	}
}
