package ociruntime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/kernel/sys"
	"davit/ociruntime/step"
)

// tellHooks gives the hooks that init runs the state that they read.
func (n *creation) tellHooks() error {
	hooks := n.options.Spec.Hooks
	if hooks == nil {
		return nil
	}
	st := specs.State{
		Version: specs.Version, ID: n.id, Status: specs.StateCreating, Pid: n.init.Pid,
		Bundle: n.options.Bundle, Annotations: n.options.Spec.Annotations,
	}
	for i := range n.plan.Steps {
		s := &n.plan.Steps[i]
		switch s.Op {
		case step.Park:
			st.Status = specs.StateCreated
		case step.Hook:
			text, err := json.Marshal(st)
			if err != nil {
				return fmt.Errorf("encode state for hooks: %w", err)
			}
			s.Data = text
		}
	}
	return nil
}

// runCreateHooks runs prestart and createRuntime hooks, while init waits.
func (c *Container) runCreateHooks() error {
	st := c.stateFor(specs.StateCreating)
	h := c.spec.Hooks
	//lint:ignore SA1019 old specs still say prestart
	if err := runHooks(context.Background(), "prestart", h.Prestart, st); err != nil {
		return err
	}
	return runHooks(context.Background(), "createRuntime", h.CreateRuntime, st)
}

// runPoststart runs the hooks after the program has started. One that fails stops the container, as
// runc does.
func (c *Container) runPoststart(ctx context.Context) error {
	spec, err := c.config()
	if err != nil || spec.Hooks == nil {
		return err
	}
	if err := runHooks(ctx, "poststart", spec.Hooks.Poststart, c.stateFor(specs.StateRunning)); err != nil {
		return errors.Join(err, c.Kill(ctx, syscall.SIGKILL, false))
	}
	return nil
}

// runPoststop runs the hooks after the container is gone. All of them run, whichever fail.
func (c *Container) runPoststop(ctx context.Context) error {
	spec, err := c.config()
	if err != nil || spec.Hooks == nil {
		return err
	}
	st := c.stateFor(specs.StateStopped)
	st.Pid = 0
	for _, h := range spec.Hooks.Poststop {
		if err := runHooks(ctx, "poststop", []specs.Hook{h}, st); err != nil {
			c.runtime.log.Warn("container "+c.ID, "error", err)
		}
	}
	return nil
}

func (c *Container) stateFor(status specs.ContainerState) specs.State {
	return specs.State{
		Version: specs.Version, ID: c.ID, Status: status, Pid: c.Pid, Bundle: c.record.Bundle, Annotations: c.record.Labels,
	}
}

// runHooks runs hooks one after the other with the state on their standard input, until one fails.
func runHooks(ctx context.Context, kind string, hooks []specs.Hook, st specs.State) error {
	text, err := json.Marshal(st)
	if err != nil {
		return fmt.Errorf("encode state for hooks: %w", err)
	}
	for i, h := range hooks {
		if err := runHook(ctx, h, text); err != nil {
			return fmt.Errorf("run %s hook %d: %s: %w", kind, i, h.Path, err)
		}
	}
	return nil
}

func runHook(ctx context.Context, h specs.Hook, state []byte) error {
	if h.Timeout != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(*h.Timeout)*time.Second)
		defer cancel()
	}
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, h.Path)
	cmd.Args, cmd.Env = h.Args, h.Env
	if len(h.Args) == 0 {
		cmd.Args = []string{h.Path}
	}
	if cmd.Env == nil {
		cmd.Env = []string{} // not the runtime's own
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(state), &output, &output
	cmd.WaitDelay = time.Second // a hook may leave a daemon holding its output
	err := cmd.Run()
	switch {
	case err == nil || errors.Is(err, exec.ErrWaitDelay):
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("timed out: %w", err)
	}
	if said := strings.TrimSpace(output.String()); said != "" {
		return fmt.Errorf("%w: %s", err, said)
	}
	return err
}

// sendListener hands the seccomp listener to the agent that the spec names, with the state as the
// specification wants it.
func (c *Container) sendListener(listener *os.File) error {
	seccomp := c.spec.Linux.Seccomp
	conn, err := net.Dial("unix", seccomp.ListenerPath)
	if err != nil {
		return fmt.Errorf("connect to agent: %w", err)
	}
	defer conn.Close()
	st := specs.ContainerProcessState{
		Version: specs.Version, Fds: []string{specs.SeccompFdName}, Pid: c.Pid,
		Metadata: seccomp.ListenerMetadata, State: c.stateFor(specs.StateCreating),
	}
	text, err := json.Marshal(st)
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	socket, err := conn.(*net.UnixConn).File()
	if err != nil {
		return err
	}
	defer socket.Close()
	return sys.SendWithFiles(socket, text, []int{int(listener.Fd())})
}
