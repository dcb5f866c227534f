package ociruntime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/kernel/ns"
	"davit/kernel/sys"
	"davit/oci/errdefs"
	"davit/ociruntime/plan"
	"davit/ociruntime/stage"
)

// Exec starts one more process. It returns when the program runs, or with the reason why it does not.
func (c *Container) Exec(ctx context.Context, o ExecOptions) (_ *Process, err error) {
	switch status := c.status(); status {
	case specs.StateRunning, specs.StateCreated:
	case StatePaused:
		return nil, errdefs.Conflict("cannot exec in a paused container")
	default:
		return nil, errdefs.Conflict("cannot exec in a %s container", status)
	}
	spec, err := c.config()
	if err != nil {
		return nil, err
	}
	p, err := c.planExec(spec, o)
	if err != nil {
		return nil, err
	}
	init, err := c.enter(p, o)
	if err != nil {
		return nil, err
	}
	defer init.Close()
	if err = init.Send(p, o.ExtraFiles); err == nil {
		err = init.Follow(ctx)
	}
	if err != nil {
		sys.SignalPidFD(init.PidFD, syscall.SIGKILL)
		_, reap := sys.Reap(init.PidFD)
		return nil, errors.Join(err, reap, init.PidFD.Close())
	}
	process := &Process{Pid: init.Pid, PidFD: init.PidFD, Console: init.Console}
	init.Console = nil
	return process, nil
}

// planExec plans the process with the container's own profile and, unless it has some, capabilities.
func (c *Container) planExec(spec *specs.Spec, o ExecOptions) (*plan.Plan, error) {
	if o.Process == nil {
		return nil, errdefs.Invalid("no process given")
	}
	filter, err := c.runtime.compileFilter(spec.Linux.Seccomp)
	if err != nil {
		return nil, err
	}
	process := *o.Process
	if process.Capabilities == nil && spec.Process != nil {
		process.Capabilities = spec.Process.Capabilities
	}
	facts := c.runtime.facts(filter)
	facts.ExtraFiles = len(o.ExtraFiles)
	p, err := plan.BuildExec(spec, &process, facts)
	if err != nil {
		return nil, err
	}
	for _, w := range p.Warnings {
		c.runtime.log.Warn("container " + c.ID + ": " + w)
	}
	return p, nil
}

// enter starts init in the namespaces and cgroup of the container.
func (c *Container) enter(p *plan.Plan, o ExecOptions) (*stage.Init, error) {
	kinds, err := ns.Differing(c.Pid)
	if err != nil {
		return nil, err
	}
	l := stage.Launch{
		Init: c.runtime.init, Plan: p, Log: c.runtime.log, Stdio: c.runtime.stdio(o.Stdio, o.Process.Terminal),
	}
	if kinds != 0 {
		l.Join = []sys.Join{{FD: c.PidFD, Kinds: kinds}}
	}
	p.NeedsRoot = kinds&sys.NewUser != 0
	if c.group != nil {
		l.Cgroup = c.group.FD()
		if l.Tasks, err = openTasks(c.group); err != nil {
			return nil, err
		}
		defer closeAll(l.Tasks)
	}
	init, err := stage.Start(l)
	if err != nil {
		return nil, fmt.Errorf("enter container %q: %w", c.ID, err)
	}
	init.OnLimits = func() error { return applyLimits(init.Pid, p.Limits) }
	init.OnNotify = c.sendListener
	if p.OOMScore != nil {
		setOOMScore(c.runtime, init.Pid, *p.OOMScore)
	}
	return init, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
