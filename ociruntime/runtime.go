package ociruntime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/kernel/cgroup"
	"davit/kernel/seccomp"
	"davit/kernel/sys"
	"davit/oci/errdefs"
	"davit/ociruntime/stage"
	"davit/ociruntime/state"
)

// Runtime makes and finds the containers of one state directory. It is safe for concurrent use.
type Runtime struct {
	init    *os.File
	store   *state.Store
	systemd bool
	log     *slog.Logger
	host    hostFacts
	null    *os.File
	filters seccomp.Cache
}

// New returns a runtime over o.StateRoot, which it makes if missing.
func New(o Options) (*Runtime, error) {
	store, err := state.Open(o.StateRoot)
	if err != nil {
		return nil, err
	}
	host, err := readHostFacts()
	if err != nil {
		return nil, err
	}
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open null device: %w", err)
	}
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Runtime{init: o.Init, store: store, systemd: o.SystemdCgroup, log: log, host: host, null: null}, nil
}

// inner is the part of a Container that its users do not see.
type inner struct {
	runtime *Runtime
	record  state.State
	group   *cgroup.Group

	mu    sync.Mutex
	init  *stage.Init // until Ready has returned
	ready error       // what Ready returned
	spec  *specs.Spec // nil until needed, after Load
	exit  *ExitStatus // once reaped
}

// Load returns a container by its id, or ErrNotFound.
func (r *Runtime) Load(ctx context.Context, id string) (*Container, error) {
	record, err := r.store.Load(id)
	if err != nil {
		return nil, err
	}
	c := &Container{ID: id, Pid: record.Pid, Cgroup: record.Cgroup}
	c.runtime, c.record = r, record
	if c.PidFD, err = openSame(record.Pid, record.StartTime); err != nil {
		return nil, err
	}
	if record.Cgroup == "" {
		return c, nil
	}
	c.group, err = cgroup.Load(record.Cgroup)
	if errors.Is(err, errdefs.ErrNotFound) {
		return c, nil
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("load container %q: %w", id, err)
	}
	return c, nil
}

// List returns the ids of all containers in the state directory, sorted.
func (r *Runtime) List(ctx context.Context) ([]string, error) { return r.store.List() }

// Clear removes what was left by each Create that was interrupted by the end of its program, before there
// was a container to Load. No other program may be creating containers meanwhile.
func (r *Runtime) Clear(ctx context.Context) error {
	ids, err := r.store.Unfinished()
	errs := []error{err}
	for _, id := range ids {
		errs = append(errs, r.clear(ctx, id))
	}
	return errors.Join(errs...)
}

func (r *Runtime) clear(ctx context.Context, id string) error {
	path, err := r.store.LoadGroup(id)
	if err != nil {
		return err
	}
	if path == "" {
		return r.store.Remove(id)
	}
	group, err := cgroup.Load(path)
	if errors.Is(err, errdefs.ErrNotFound) {
		return r.store.Remove(id)
	}
	if err != nil {
		return fmt.Errorf("clear container %q: %w", id, err)
	}
	defer group.Close()
	if err := group.Kill(ctx); err != nil {
		return fmt.Errorf("clear container %q: %w", id, err)
	}
	return errors.Join(group.Delete(ctx), r.store.Remove(id))
}

// openSame returns a pidfd of the process with this id and start time, or nil when that is gone.
func openSame(pid int, startTime uint64) (*os.File, error) {
	pidfd, err := sys.OpenPid(pid)
	if err != nil {
		return nil, nil // no such process
	}
	now, dead, err := startTimeOf(pid)
	if err != nil || dead || now != startTime {
		pidfd.Close()
		return nil, nil // gone since, or another process
	}
	return pidfd, nil
}

// Close releases the file descriptors that c holds, not those that the caller owns (Console).
func (c *Container) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range []*os.File{c.PidFD, c.NetNS} {
		if f != nil {
			f.Close()
		}
	}
	if c.init != nil {
		c.init.Close()
		c.init = nil
	}
	if c.group != nil {
		return c.group.Close()
	}
	return nil
}

// Trim gives back memory that a container can do without between operations: its spec is read again
// when one needs it.
func (c *Container) Trim() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.init == nil {
		c.spec = nil
	}
}

// config returns the container's spec.
func (c *Container) config() (*specs.Spec, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.spec != nil {
		return c.spec, nil
	}
	spec, err := c.runtime.store.LoadSpec(c.ID)
	if err == nil {
		c.spec = spec
	}
	return spec, err
}
