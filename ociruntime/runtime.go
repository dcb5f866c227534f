package ociruntime

import (
	"context"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/oci/errdefs"
)

// Runtime makes and finds the containers of one state directory. It is safe for concurrent use.
type Runtime struct {
	options Options
}

type inner struct{}

// New returns a runtime over o.StateRoot, which it makes if missing.
func New(o Options) (*Runtime, error) { return &Runtime{o}, nil }

// Create clones the first process of a new container and hands it what it needs. On return the
// namespaces exist and the process is in its cgroup; mounting goes on. Call Ready or Start for its
// outcome. It fails with ErrConflict when the id is taken and ErrInvalid when the spec is wrong.
func (r *Runtime) Create(ctx context.Context, id string, o CreateOptions) (*Container, error) {
	return nil, errdefs.NotImplemented("create")
}

// Load returns a container by its id, or ErrNotFound.
func (r *Runtime) Load(ctx context.Context, id string) (*Container, error) {
	return nil, errdefs.NotImplemented("load")
}

// List returns the ids of all containers in the state directory, sorted.
func (r *Runtime) List(ctx context.Context) ([]string, error) {
	return nil, errdefs.NotImplemented("list")
}

// Ready waits until the first process is parked before the user's program. When something on the
// way failed it returns that error; the process is gone then and Delete is all that is left to do.
func (c *Container) Ready(ctx context.Context) error { return errdefs.NotImplemented("ready") }

// Start executes the user's program and returns when it runs, or with the reason why it does not.
// It calls Ready when the caller has not.
func (c *Container) Start(ctx context.Context) error { return errdefs.NotImplemented("start") }

// Wait waits for the first process and reaps it when it is the caller's child. For a container that
// another process made, it needs Linux 6.15 to learn the status.
func (c *Container) Wait(ctx context.Context) (ExitStatus, error) {
	return ExitStatus{}, errdefs.NotImplemented("wait")
}

// Kill sends a signal to the first process, or to every process of the container when all is set.
// It fails with ErrConflict when the container has stopped.
func (c *Container) Kill(ctx context.Context, sig syscall.Signal, all bool) error {
	return errdefs.NotImplemented("kill")
}

// Exec starts one more process. It returns when the program runs, or with the reason why it does not.
func (c *Container) Exec(ctx context.Context, o ExecOptions) (*Process, error) {
	return nil, errdefs.NotImplemented("exec")
}

// State returns the container's state in the form of the runtime specification.
func (c *Container) State(ctx context.Context) (specs.State, error) {
	return specs.State{}, errdefs.NotImplemented("state")
}

// Delete removes a stopped container: its processes, cgroup and state, and runs its poststop hooks.
// A container that still runs is killed first when force is set, else it is ErrConflict.
func (c *Container) Delete(ctx context.Context, force bool) error {
	return errdefs.NotImplemented("delete")
}

// Pause freezes every process of the container.
func (c *Container) Pause(ctx context.Context) error { return errdefs.NotImplemented("pause") }

// Resume thaws the container.
func (c *Container) Resume(ctx context.Context) error { return errdefs.NotImplemented("resume") }

// Update changes the container's limits; nil fields stay as they are.
func (c *Container) Update(ctx context.Context, r *specs.LinuxResources) error {
	return errdefs.NotImplemented("update")
}

// Pids returns the process ids of the container, in the caller's pid namespace.
func (c *Container) Pids(ctx context.Context) ([]int, error) {
	return nil, errdefs.NotImplemented("pids")
}

// Close releases the file descriptors that c holds, not those that the caller owns (Console).
func (c *Container) Close() error { return nil }

// Wait waits for the process and reaps it.
func (p *Process) Wait(ctx context.Context) (ExitStatus, error) {
	return ExitStatus{}, errdefs.NotImplemented("wait")
}

// Close releases the file descriptors of p.
func (p *Process) Close() error { return nil }
