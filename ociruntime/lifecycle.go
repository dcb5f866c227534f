package ociruntime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/kernel/cgroup"
	"davit/kernel/sys"
	"davit/oci/errdefs"
	"davit/ociruntime/stage"
)

// Ready waits until the first process is parked before the user's program. When something on the
// way failed it returns that error; the process is gone then and Delete is all that is left to do.
func (c *Container) Ready(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.init == nil {
		return c.ready
	}
	c.ready = c.init.Follow(ctx)
	c.Console, c.init.Console = c.init.Console, nil
	c.init.Close()
	c.init = nil
	return c.ready
}

// Start executes the user's program and returns when it runs, or with the reason why it does not.
// It calls Ready when the caller has not.
func (c *Container) Start(ctx context.Context) error {
	if err := c.Ready(ctx); err != nil {
		return err
	}
	status := c.status()
	if status != specs.StateCreated {
		return errdefs.Conflict("cannot start container %q: it is %s", c.ID, status)
	}
	socket, err := dialStart(c.runtime.store.Dir(c.ID))
	if err != nil {
		return fmt.Errorf("start container %q: %w", c.ID, err)
	}
	defer socket.Close()
	stop := context.AfterFunc(ctx, func() { sys.SignalPidFD(c.PidFD, syscall.SIGKILL) })
	defer stop()
	if err := os.Remove(c.runtime.store.StartSocket(c.ID)); err != nil {
		return fmt.Errorf("start container %q: %w", c.ID, err)
	}
	if err := stage.Unpark(socket); err != nil {
		sys.SignalPidFD(c.PidFD, syscall.SIGKILL)
		return err
	}
	return c.runPoststart(ctx)
}

// dialStart connects to the parked init of the container whose state is in dir.
func dialStart(dir string) (*os.File, error) {
	d, err := sys.OpenPath(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return sys.DialStream(fmt.Sprintf("/proc/self/fd/%d/start.sock", d.Fd()))
}

// status is the container's state by the words of the runtime specification, and "paused".
func (c *Container) status() specs.ContainerState {
	if c.PidFD == nil || sys.Gone(c.PidFD) {
		return specs.StateStopped
	}
	if _, err := os.Stat(c.runtime.store.StartSocket(c.ID)); err == nil {
		return specs.StateCreated
	}
	if c.group != nil {
		if frozen, err := c.group.Frozen(); err == nil && frozen {
			return StatePaused
		}
	}
	return specs.StateRunning
}

// StatePaused is the state of a container whose processes are frozen. The specification leaves such
// states to runtimes; this is the word that all use.
const StatePaused specs.ContainerState = "paused"

// State returns the container's state in the form of the runtime specification.
func (c *Container) State(ctx context.Context) (specs.State, error) {
	st := specs.State{
		Version: specs.Version, ID: c.ID, Status: c.status(), Bundle: c.record.Bundle, Annotations: c.record.Labels,
	}
	if st.Status != specs.StateStopped {
		st.Pid = c.Pid
	}
	return st, nil
}

// Details are what the command line tells of a container beyond its State.
type Details struct {
	Created time.Time
	Rootfs  string // Spec.Root.Path, absolute
	Owner   int    // user id of the creator
}

// Details returns what was recorded when the container was made.
func (c *Container) Details() Details {
	return Details{Created: c.record.Created, Rootfs: c.record.Rootfs, Owner: c.record.Owner}
}

// Wait waits for the first process and reaps it when it is the caller's child. For a container that
// another process made, it needs Linux 6.15 to learn the status.
func (c *Container) Wait(ctx context.Context) (ExitStatus, error) {
	c.mu.Lock()
	known := c.exit
	c.mu.Unlock()
	if known != nil {
		return *known, nil
	}
	if c.PidFD == nil {
		return ExitStatus{}, errdefs.NotFound("the exit status of container %q is not known any more", c.ID)
	}
	status, err := wait(ctx, c.PidFD)
	if err != nil {
		return ExitStatus{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.exit = &status
	return status, nil
}

// reapPatience is how long a process's parent may take to reap it before its exit status is given up.
const reapPatience = 5 * time.Second

func wait(ctx context.Context, pidfd *os.File) (ExitStatus, error) {
	if err := sys.WaitGone(ctx, pidfd); err != nil {
		return ExitStatus{}, fmt.Errorf("wait for process: %w", err)
	}
	now := time.Now()
	exit, err := sys.Reap(pidfd)
	if errors.Is(err, syscall.ECHILD) {
		if err := sys.AwaitReaped(pidfd, reapPatience); err != nil {
			return ExitStatus{}, fmt.Errorf("wait for process: %w", err)
		}
		var known bool
		if exit, known, err = sys.ExitOf(pidfd); err == nil && !known {
			err = errdefs.NotFound("the exit status is known to the process's parent only")
		}
	}
	if err != nil {
		return ExitStatus{}, fmt.Errorf("wait for process: %w", err)
	}
	status := ExitStatus{Code: exit.Code, Signal: exit.Signal, Time: now}
	if exit.Signal != 0 {
		status.Code = 128 + exit.Signal
	}
	return status, nil
}

// Kill sends a signal to the first process, or to every process of the container when all is set.
// It fails with ErrConflict when the container has stopped.
func (c *Container) Kill(ctx context.Context, sig syscall.Signal, all bool) error {
	if all && c.group != nil {
		if err := c.group.Signal(ctx, sig); err != nil {
			return fmt.Errorf("signal container %q: %w", c.ID, err)
		}
		return nil
	}
	if c.status() == specs.StateStopped {
		return errdefs.Conflict("container not running")
	}
	err := sys.SignalPidFD(c.PidFD, sig)
	if errors.Is(err, syscall.ESRCH) {
		return errdefs.Conflict("container not running")
	}
	if err != nil {
		return fmt.Errorf("signal container %q: %w", c.ID, err)
	}
	if sig == syscall.SIGKILL {
		return c.thaw()
	}
	return nil
}

// thaw lets a frozen container die of its SIGKILL, which a v1 freezer holds back.
func (c *Container) thaw() error {
	if c.group == nil {
		return nil
	}
	frozen, err := c.group.Frozen()
	if err != nil || !frozen {
		return nil // a group that is gone holds nothing back
	}
	return c.group.Thaw()
}

// Delete removes a stopped container: its processes, cgroup and state, and runs its poststop hooks.
// A container that still runs is killed first when force is set, else it is ErrConflict.
func (c *Container) Delete(ctx context.Context, force bool) error {
	status := c.status()
	if status != specs.StateStopped && !force && c.readyError() == nil {
		return errdefs.Conflict("cannot delete container %q that is not stopped: it is %s", c.ID, status)
	}
	if c.PidFD != nil {
		if err := c.end(ctx); err != nil {
			return err
		}
	}
	if c.group != nil {
		if err := c.group.Kill(ctx); err != nil {
			return fmt.Errorf("kill processes of container %q: %w", c.ID, err)
		}
		if err := c.group.Delete(ctx); err != nil {
			return fmt.Errorf("delete cgroup of container %q: %w", c.ID, err)
		}
	}
	hooks := c.runPoststop(ctx)
	return errors.Join(hooks, c.runtime.store.Remove(c.ID), c.Close())
}

func (c *Container) readyError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ready
}

// end kills what is left of the first process and reaps it when it is the caller's.
func (c *Container) end(ctx context.Context) error {
	err := sys.SignalPidFD(c.PidFD, syscall.SIGKILL)
	if err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill container %q: %w", c.ID, err)
	}
	if err := c.thaw(); err != nil {
		return err
	}
	if err := sys.WaitGone(ctx, c.PidFD); err != nil {
		return fmt.Errorf("wait for container %q: %w", c.ID, err)
	}
	if _, err := c.Wait(ctx); err != nil && !errors.Is(err, errdefs.ErrNotFound) && !errors.Is(err, syscall.ECHILD) {
		return err
	}
	return nil
}

// Pause freezes every process of the container.
func (c *Container) Pause(ctx context.Context) error {
	if s := c.status(); s != specs.StateRunning && s != specs.StateCreated {
		return errdefs.Conflict("cannot pause container %q: it is %s", c.ID, s)
	}
	return c.group.Freeze(ctx)
}

// Resume thaws the container.
func (c *Container) Resume(ctx context.Context) error {
	if s := c.status(); s != StatePaused {
		return errdefs.Conflict("cannot resume container %q: it is %s", c.ID, s)
	}
	return c.group.Thaw()
}

// Update changes the container's limits; nil fields stay as they are.
func (c *Container) Update(ctx context.Context, r *specs.LinuxResources) error {
	if c.group == nil || c.status() == specs.StateStopped {
		return errdefs.Conflict("cannot update container %q: it is stopped", c.ID)
	}
	if err := c.group.Set(r); err != nil {
		return fmt.Errorf("update container %q: %w", c.ID, err)
	}
	return nil
}

// Pids returns the process ids of the container, in the caller's pid namespace.
func (c *Container) Pids(ctx context.Context) ([]int, error) {
	if c.group == nil {
		return nil, nil
	}
	pids, err := c.group.Pids()
	slices.Sort(pids)
	return pids, err
}

// Wait waits for the process and reaps it.
func (p *Process) Wait(ctx context.Context) (ExitStatus, error) { return wait(ctx, p.PidFD) }

// Close releases the file descriptors of p.
func (p *Process) Close() error {
	if p.Console != nil {
		p.Console.Close()
	}
	return p.PidFD.Close()
}

// Stats reads the container's counters.
func (c *Container) Stats() (cgroup.Stats, error) {
	if c.group == nil {
		return cgroup.Stats{}, errdefs.Conflict("container %q has no cgroup any more", c.ID)
	}
	return c.group.Stats()
}

// OOMKills returns how many processes of the container the kernel has killed for its memory limit.
func (c *Container) OOMKills() (uint64, error) {
	if c.group == nil {
		return 0, errdefs.Conflict("container %q has no cgroup any more", c.ID)
	}
	return c.group.OOMKills()
}

// Spec returns the spec that the container was made from; it must not be changed.
func (c *Container) Spec() (*specs.Spec, error) { return c.config() }
