package monitor

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"

	"davit/kernel/sys"
	"davit/monitor/stdio"
	"davit/oci/errdefs"
	"davit/ociruntime"
	"davit/task"
	"davit/task/wire"
)

// exec starts one more process in a running task, with a client attached from the first byte.
func (m *Monitor) exec(ctx context.Context, r task.ExecRequest) (reply, error) {
	c, err := m.find(r.Task)
	if err != nil {
		return reply{}, err
	}
	if r.ExecID == "" || r.Process == nil {
		return reply{}, errdefs.Invalid("exec in task %s has no id or no process", r.Task)
	}
	e, err := c.claimExec(&r)
	if err != nil {
		return reply{}, err
	}
	out, err := m.spawn(ctx, c, e, &r)
	if err != nil {
		c.releaseExec(r.ExecID)
		return reply{}, err // says by itself which step of the process's start went wrong
	}
	m.stir()
	out.after = func() { m.watchExec(c, e) }
	return out, nil
}

// claimExec reserves an exec's id in a running task.
func (c *container) claimExec(r *task.ExecRequest) (*execution, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.Status != task.StatusRunning {
		return nil, errdefs.Conflict("task %s is %s", c.id, c.state.Status)
	}
	if c.execs[r.ExecID] != nil {
		return nil, errdefs.Conflict("exec %s exists", r.ExecID)
	}
	e := &execution{
		stdio: r.Stdio,
		state: task.State{ID: c.id, ExecID: r.ExecID, Status: task.StatusCreated},
	}
	c.execs[r.ExecID] = e
	return e, nil
}

func (c *container) releaseExec(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.execs, id)
}

// spawn opens an exec's streams and starts its process.
func (m *Monitor) spawn(ctx context.Context, c *container, e *execution, r *task.ExecRequest) (out reply, err error) {
	settleTerminal(r.Process, r.Stdio)
	var streams *stdio.Streams
	var ends stdio.Ends
	if !r.Detach || r.Stdio.Terminal {
		if streams, ends, err = stdio.Open(m.streamConfig(r.Stdio, nil, nil, nil)); err != nil {
			return out, err
		}
	}
	var near *os.File
	if r.Attach != nil && streams != nil {
		if near, err = streams.Attach(wantsOf(r.Attach)); err != nil {
			ends.Close()
			return out, err
		}
	}
	process, err := c.runtime.Exec(ctx, ociruntime.ExecOptions{
		Process: r.Process,
		Stdio:   ociruntime.Stdio{Stdin: ends.Stdin, Stdout: ends.Stdout, Stderr: ends.Stderr},
	})
	ends.Close()
	if err == nil && process.Console != nil {
		err = streams.SetTerminal(process.Console)
	}
	if err != nil {
		if streams != nil {
			streams.Finish()
		}
		if near != nil {
			near.Close()
		}
		return out, err
	}
	if near != nil {
		out.files = []*os.File{near}
	}
	out.body = c.execStarted(e, process, streams)
	return out, nil
}

func (c *container) execStarted(e *execution, p *ociruntime.Process, s *stdio.Streams) task.State {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.process, e.streams = p, s
	e.state.Status, e.state.Pid, e.state.StartedAt = task.StatusRunning, p.Pid, time.Now()
	return e.state
}

// kill sends a signal to a task or exec.
func (m *Monitor) kill(ctx context.Context, k wire.Kill) error {
	c, err := m.find(k.ID)
	if err != nil {
		return err
	}
	if k.ExecID != "" {
		return c.killExec(k.ExecID, syscall.Signal(k.Signal))
	}
	if s := c.current(); s.Status == task.StatusStopped {
		return errdefs.Conflict("task %s is stopped", k.ID)
	}
	if err := c.runtime.Kill(ctx, syscall.Signal(k.Signal), k.All); err != nil {
		return fmt.Errorf("kill task %s: %w", k.ID, err)
	}
	return nil
}

func (c *container) killExec(id string, sig syscall.Signal) error {
	e, err := c.findExec(id)
	if err != nil {
		return err
	}
	c.mu.Lock()
	process := e.process
	c.mu.Unlock()
	if process == nil {
		return errdefs.Conflict("exec %s has not started", id)
	}
	if err := sys.SignalPidFD(process.PidFD, sig); err != nil {
		return errdefs.New(errdefs.ErrConflict, "kill exec %s: %w", id, err)
	}
	return nil
}

// freeze pauses or resumes a task.
func (m *Monitor) freeze(ctx context.Context, id string, pause bool) error {
	c, err := m.find(id)
	if err != nil {
		return err
	}
	c.turn.Lock()
	defer c.turn.Unlock()
	from, to, act := task.StatusPaused, task.StatusRunning, c.runtime.Resume
	if pause {
		from, to, act = to, from, c.runtime.Pause
	}
	if s := c.current(); s.Status != from {
		return errdefs.Conflict("task %s is %s", id, s.Status)
	}
	if err := act(ctx); err != nil {
		return fmt.Errorf("make task %s %s: %w", id, to, err)
	}
	c.change(func(s *task.State) {
		if s.Status == from { // and not stopped meanwhile
			s.Status = to
		}
	})
	m.record(c)
	return nil
}

// update changes a task's limits.
func (m *Monitor) update(ctx context.Context, u wire.Update) error {
	c, err := m.find(u.ID)
	if err != nil {
		return err
	}
	if u.Resources == nil {
		return errdefs.Invalid("no resources to update for task %s", u.ID)
	}
	c.turn.Lock()
	defer c.turn.Unlock()
	if err := c.runtime.Update(ctx, u.Resources); err != nil {
		return fmt.Errorf("update task %s: %w", u.ID, err)
	}
	if memory := u.Resources.Memory; memory != nil && memory.Limit != nil && *memory.Limit > 0 && !c.limited {
		c.limited = true
		m.watchMemory(c)
	}
	m.record(c)
	return nil
}
