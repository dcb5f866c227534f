package monitor

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/monitor/relay"
	"davit/monitor/stdio"
	"davit/oci/errdefs"
	"davit/ociruntime"
	"davit/task"
)

// create makes a task. Its network namespace travels with the reply while its first process goes on
// preparing itself.
func (m *Monitor) create(ctx context.Context, r task.CreateRequest) (reply, error) {
	if err := check(&r); err != nil {
		return reply{}, err
	}
	if err := m.profiles.Assemble(&r); err != nil {
		return reply{}, err
	}
	c := &container{
		id:      r.ID,
		stdio:   r.Stdio,
		log:     r.Log,
		limited: hasMemoryLimit(r.Spec.Linux),
		shared:  !hasPidNamespace(r.Spec.Linux),
		ready:   make(chan struct{}),
		execs:   make(map[string]*execution),
		relays:  make(map[relayKey]*relay.Relay),
		state:   task.State{ID: r.ID, Status: task.StatusCreated},
	}
	if err := m.claim(c.id); err != nil {
		return reply{}, err
	}
	if err := m.clone(ctx, c, &r); err != nil {
		m.admitTask(c.id, nil)
		return reply{}, fmt.Errorf("create task %s: %w", r.ID, err)
	}
	c.turn.Lock() // until it is parked
	m.admitTask(c.id, c)
	m.record(c)
	m.stir()
	m.gate.again()
	go m.awaitReady(ctx, c)
	return reply{body: c.current(), files: takeNetNS(c.runtime)}, nil
}

// check refuses what cannot be a task, and settles terminal and its size where spec and stdio differ.
func check(r *task.CreateRequest) error {
	switch {
	case r.ID == "" || strings.ContainsAny(r.ID, "/\x00") || r.ID[0] == '.':
		return errdefs.Invalid("%q is no task id", r.ID)
	case r.Spec == nil || r.Spec.Process == nil:
		return errdefs.Invalid("task %s has no process", r.ID)
	}
	settleTerminal(r.Spec.Process, r.Stdio)
	return nil
}

func settleTerminal(p *specs.Process, s task.Stdio) {
	p.Terminal = s.Terminal
	if s.Terminal && s.Rows > 0 && s.Cols > 0 {
		p.ConsoleSize = &specs.Box{Height: uint(s.Rows), Width: uint(s.Cols)}
	}
}

func hasMemoryLimit(l *specs.Linux) bool {
	return l != nil && l.Resources != nil && l.Resources.Memory != nil &&
		l.Resources.Memory.Limit != nil && *l.Resources.Memory.Limit > 0
}

func hasPidNamespace(l *specs.Linux) bool {
	if l == nil {
		return false
	}
	for _, n := range l.Namespaces {
		if n.Type == specs.PIDNamespace && n.Path == "" {
			return true
		}
	}
	return false
}

// clone opens log and streams and starts the first process.
func (m *Monitor) clone(ctx context.Context, c *container, r *task.CreateRequest) error {
	log, err := m.openLog(r.Log)
	if err != nil {
		return err
	}
	config := m.streamConfig(r.Stdio, r.Spec, r.Spec.Process, log)
	config.Keep = true
	streams, ends, err := stdio.Open(config)
	if err != nil {
		return err
	}
	created, err := m.runtime.Create(ctx, r.ID, ociruntime.CreateOptions{
		Spec:   r.Spec,
		Rootfs: r.Rootfs,
		Stdio:  ociruntime.Stdio{Stdin: ends.Stdin, Stdout: ends.Stdout, Stderr: ends.Stderr},
	})
	ends.Close()
	if err != nil {
		streams.Finish()
		return err
	}
	c.runtime, c.streams, c.inodes = created, streams, streams.Inodes()
	c.state.Pid, c.state.Cgroup = created.Pid, created.Cgroup
	return nil
}

// takeNetNS takes the network namespace out of the container: it is for the client only.
func takeNetNS(c *ociruntime.Container) []*os.File {
	if c.NetNS == nil {
		return nil
	}
	file := c.NetNS
	c.NetNS = nil
	return []*os.File{file}
}

// awaitReady waits until the first process is parked. It leaves the gate and ends the task's turn
// that the caller began.
func (m *Monitor) awaitReady(ctx context.Context, c *container) {
	defer m.gate.leave()
	defer c.turn.Unlock()
	defer close(c.ready)
	if c.readyErr = c.runtime.Ready(ctx); c.readyErr != nil {
		return
	}
	if c.stdio.Terminal && c.runtime.Console != nil {
		c.readyErr = c.streams.SetTerminal(c.runtime.Console)
	}
}

// start lets a created task's program run.
func (m *Monitor) start(ctx context.Context, id string) (reply, error) {
	c, err := m.find(id)
	if err != nil {
		return reply{}, err
	}
	c.turn.Lock()
	defer c.turn.Unlock()
	if s := c.current(); s.Status != task.StatusCreated {
		return reply{}, errdefs.Conflict("task %s is %s", id, s.Status)
	}
	if err = c.readyErr; err == nil {
		err = c.runtime.Start(ctx)
	}
	if err != nil {
		m.startFailed(c, err)
		return reply{}, err // says by itself which step of the container's start went wrong
	}
	s := c.change(func(s *task.State) { s.Status, s.StartedAt = task.StatusRunning, time.Now() })
	m.watchMemory(c)
	return reply{body: s, after: func() {
		m.watchExit(c)
		m.recordRunning(c)
	}}, nil
}

// recordRunning records that a task was started, unless its end has been recorded by now. A successor that
// finds the record from before sees by the task itself that it runs.
func (m *Monitor) recordRunning(c *container) {
	c.turn.Lock()
	defer c.turn.Unlock()
	if c.current().Status != task.StatusStopped {
		m.record(c)
	}
}

// startFailed notes that a task's program never ran.
func (m *Monitor) startFailed(c *container, err error) {
	c.streams.Finish()
	c.change(func(s *task.State) {
		s.Status, s.Pid, s.StartError, s.ExitedAt = task.StatusStopped, 0, err.Error(), time.Now()
	})
	m.record(c)
}

// delete forgets a task. What remains in the kernel is removed after the reply.
func (m *Monitor) delete(ctx context.Context, id string) (reply, error) {
	c, err := m.find(id)
	if err != nil {
		return reply{}, err
	}
	c.turn.Lock()
	defer c.turn.Unlock()
	s := c.current()
	if s.Status == task.StatusRunning || s.Status == task.StatusPaused {
		return reply{}, errdefs.Conflict("task %s is %s", id, s.Status)
	}
	done := make(chan struct{})
	m.mu.Lock()
	if m.tasks[id] != c {
		m.mu.Unlock()
		return reply{}, errdefs.NotFound("no such task: %s", id)
	}
	delete(m.tasks, id)
	m.deleting[id] = done
	m.mu.Unlock()
	if err := os.Remove(m.recordPath(id)); err != nil {
		m.log.Warn("remove record", "task", id, "error", err)
	}
	m.gate.again()
	return reply{after: func() { go m.cleanUp(ctx, c, done) }}, nil
}

// cleanUp removes what is left of a task. It leaves the gate that the caller entered.
func (m *Monitor) cleanUp(ctx context.Context, c *container, done chan struct{}) {
	defer m.gate.leave()
	if err := c.runtime.Delete(ctx, true); err != nil {
		m.log.Error("clean up", "task", c.id, "error", err)
	}
	c.runtime.Close()
	c.streams.Finish()
	m.closeRelays(c)
	m.mu.Lock()
	delete(m.deleting, c.id)
	m.mu.Unlock()
	close(done)
	m.stir()
}
