package monitor

import (
	"context"
	"errors"
	"os"
	"slices"
	"syscall"
	"time"

	"davit/kernel/cgroup"
	"davit/task"
)

// unknownExit is the exit code of a process that ended while nobody could see it; Docker's as well.
const unknownExit = 255

// watch waits for whatever m.watchOnce was asked for, until the monitor closes.
func (m *Monitor) watch() {
	var tokens []uint64
	for {
		var err error
		if tokens, err = m.epoll.Wait(tokens[:0]); err != nil {
			return
		}
		for _, token := range tokens {
			m.mu.Lock()
			act := m.watched[token]
			delete(m.watched, token)
			m.mu.Unlock()
			if act != nil {
				go m.inside(act)
			}
		}
	}
}

// inside does something inside the gate.
func (m *Monitor) inside(act func()) {
	m.gate.enter()
	defer m.gate.leave()
	act()
}

// watchOnce calls act once f is readable, in a goroutine of its own and inside the gate.
func (m *Monitor) watchOnce(f *os.File, act func()) error {
	m.mu.Lock()
	m.tokens++
	token := m.tokens
	m.watched[token] = act
	m.mu.Unlock()
	err := m.epoll.Add(f, token)
	if errors.Is(err, syscall.EEXIST) {
		err = m.epoll.Again(f, token)
	}
	if err != nil {
		m.mu.Lock()
		delete(m.watched, token)
		m.mu.Unlock()
	}
	return err
}

// watchExit sees to it that the end of a task's first process is noticed, be it past already.
func (m *Monitor) watchExit(c *container) {
	ctx := context.Background()
	if c.runtime.PidFD == nil { // gone before this monitor came
		m.gate.again()
		go func() {
			defer m.gate.leave()
			m.exited(ctx, c)
		}()
		return
	}
	if err := m.watchOnce(c.runtime.PidFD, func() { m.exited(ctx, c) }); err != nil {
		m.log.Error("watch task", "task", c.id, "error", err)
	}
}

// exited deals with the end of a task's first process: nothing is published before all output is with
// the log and the clients.
func (m *Monitor) exited(ctx context.Context, c *container) {
	code, lost := m.reap(ctx, c)
	at := time.Now()
	if c.shared {
		// Its other processes would go on, unseen. In a pid namespace of their own the kernel has killed them.
		if err := c.runtime.Kill(ctx, syscall.SIGKILL, true); err != nil {
			m.log.Debug("kill the rest of a task", "task", c.id, "error", err)
		}
	}
	m.checkMemory(c, code == 128+int(syscall.SIGKILL))
	c.closeOOM()
	c.streams.Finish()
	c.turn.Lock()
	defer c.turn.Unlock()
	s := c.change(func(s *task.State) {
		s.Status, s.Pid, s.ExitCode, s.ExitedAt = task.StatusStopped, 0, code, at
		if lost {
			s.Lost = append(slices.Clone(s.Lost), "exit code")
		}
	})
	m.closeRelays(c)
	m.record(c)
	m.publish(task.EventExit, s)
	m.stir()
}

// reap learns how a task's first process ended.
func (m *Monitor) reap(ctx context.Context, c *container) (code int, lost bool) {
	if c.runtime.PidFD == nil {
		return unknownExit, true
	}
	status, err := c.runtime.Wait(ctx)
	if err != nil {
		m.log.Warn("exit code is unknown", "task", c.id, "error", err)
		return unknownExit, true
	}
	return status.Code, false
}

// watchExec sees to it that the end of an exec is noticed.
func (m *Monitor) watchExec(c *container, e *execution) {
	if err := m.watchOnce(e.process.PidFD, func() { m.execExited(context.Background(), c, e) }); err != nil {
		m.log.Error("watch exec", "task", c.id, "exec", e.state.ExecID, "error", err)
	}
}

func (m *Monitor) execExited(ctx context.Context, c *container, e *execution) {
	code := unknownExit
	if status, err := e.process.Wait(ctx); err != nil {
		m.log.Warn("exit code is unknown", "task", c.id, "exec", e.state.ExecID, "error", err)
	} else {
		code = status.Code
	}
	at := time.Now()
	if e.streams != nil {
		e.streams.Finish()
	}
	c.mu.Lock()
	e.process.Close()
	delete(c.execs, e.state.ExecID)
	e.state.Status, e.state.Pid, e.state.ExitCode, e.state.ExitedAt = task.StatusStopped, 0, code, at
	s := e.state
	c.mu.Unlock()
	m.publish(task.EventExecExit, s)
	m.stir()
}

// oomWatch is what is known of a task's out-of-memory kills.
type oomWatch struct {
	events *os.File // readable when there may be a new one; nil: not watched
	seen   uint64
}

// watchMemory begins to watch a running task that has a memory limit for OOM kills.
func (m *Monitor) watchMemory(c *container) {
	if !c.limited || c.state.Cgroup == "" {
		return
	}
	group, err := cgroup.Load(c.state.Cgroup)
	if err != nil {
		m.log.Warn("watch memory", "task", c.id, "error", err)
		return
	}
	defer group.Close()
	events, err := group.OOMEvents()
	if err != nil {
		m.log.Warn("watch memory", "task", c.id, "error", err)
		return
	}
	c.mu.Lock()
	c.oom.events = events
	c.mu.Unlock()
	m.awaitOOM(c, events)
}

func (m *Monitor) awaitOOM(c *container, events *os.File) {
	err := m.watchOnce(events, func() {
		var buf [512]byte
		if _, err := events.Read(buf[:]); err != nil { // closed: the task has exited
			return
		}
		m.checkMemory(c, true)
		m.awaitOOM(c, events)
	})
	if err != nil && !errors.Is(err, os.ErrClosed) {
		m.log.Warn("watch memory", "task", c.id, "error", err)
	}
}

func (c *container) closeOOM() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.oom.events != nil {
		c.oom.events.Close()
		c.oom.events = nil
	}
}

// checkMemory publishes OOM kills that are new. It looks only where there may be one.
func (m *Monitor) checkMemory(c *container, suspicious bool) {
	if !c.limited && !suspicious || c.state.Cgroup == "" {
		return
	}
	group, err := cgroup.Load(c.state.Cgroup)
	if err != nil {
		return // the group is gone with the last process
	}
	defer group.Close()
	kills, err := group.OOMKills()
	if err != nil {
		m.log.Warn("read out-of-memory kills", "task", c.id, "error", err)
		return
	}
	c.mu.Lock()
	more := kills > c.oom.seen
	c.oom.seen = max(c.oom.seen, kills)
	c.mu.Unlock()
	if more {
		m.publish(task.EventOOM, c.change(func(s *task.State) { s.OOMKilled = true }))
	}
}
