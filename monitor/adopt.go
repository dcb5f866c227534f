package monitor

import (
	"context"
	"fmt"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/monitor/stdio"
	"davit/task"
)

// adoptAll takes over the tasks of a monitor that was killed, and removes what belongs to none: the
// remains of deletions it did not finish.
func (m *Monitor) adoptAll(ctx context.Context) error {
	records, err := m.records()
	if err != nil {
		return err
	}
	known := make(map[string]bool)
	for i := range records {
		c := records[i].restored()
		known[c.id] = true
		if err := m.adopt(ctx, c); err != nil {
			return err
		}
	}
	ids, err := m.runtime.List(ctx)
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	if err := m.runtime.Clear(ctx); err != nil {
		m.log.Error("clean up what was interrupted", "error", err)
	}
	for _, id := range ids {
		if known[id] {
			continue
		}
		m.log.Warn("remove what belongs to no task", "container", id)
		stray, err := m.runtime.Load(ctx, id)
		if err == nil {
			err = stray.Delete(ctx, true)
			stray.Close()
		}
		if err != nil {
			m.log.Error("clean up", "container", id, "error", err)
		}
	}
	return nil
}

// adopt takes over one task, which may have ended meanwhile.
func (m *Monitor) adopt(ctx context.Context, c *container) error {
	loaded, err := m.runtime.Load(ctx, c.id)
	if err != nil {
		return m.adoptLost(c, err)
	}
	c.runtime = loaded
	log, err := m.openLog(c.log)
	if err != nil {
		m.log.Error("open log", "task", c.id, "error", err)
	}
	config := m.streamConfig(c.stdio, nil, nil, log)
	var pids []int
	if c.state.Status != task.StatusStopped {
		if pids, err = loaded.Pids(ctx); err != nil {
			m.log.Warn("list processes", "task", c.id, "error", err)
		}
	}
	var lost error
	c.streams, lost = stdio.Adopt(config, c.inodes, pids)
	m.mu.Lock()
	m.tasks[c.id] = c
	m.mu.Unlock()
	if c.state.Status == task.StatusStopped {
		c.streams.Finish()
		return nil
	}
	c.noteStarted(ctx)
	c.noteLost(lost)
	m.log.Info("task adopted", "task", c.id, "status", c.state.Status, "lost", c.state.Lost)
	m.record(c)
	if c.state.Status != task.StatusCreated {
		m.watchMemory(c)
		m.watchExit(c)
	}
	return nil
}

// noteStarted corrects a record from before the start of its task, which is written a moment after it.
func (c *container) noteStarted(ctx context.Context) {
	if c.state.Status != task.StatusCreated {
		return
	}
	if s, err := c.runtime.State(ctx); err == nil && s.Status != specs.StateCreated {
		c.change(func(s *task.State) { s.Status, s.StartedAt = task.StatusRunning, time.Now() })
	}
}

// noteLost says in the state what died with the monitor.
func (c *container) noteLost(outputs error) {
	c.change(func(s *task.State) {
		s.Lost = nil
		switch {
		case c.stdio.Terminal:
			s.Lost = append(s.Lost, "terminal")
			return
		case c.stdio.Stdin:
			s.Lost = append(s.Lost, "stdin")
		}
		if outputs != nil {
			s.Lost = append(s.Lost, "output")
		}
	})
}

// adoptLost deals with a task of which the runtime knows nothing any more: it cannot be running.
func (m *Monitor) adoptLost(c *container, cause error) error {
	m.log.Warn("task is gone", "task", c.id, "error", cause)
	if c.state.Status == task.StatusRunning || c.state.Status == task.StatusPaused {
		m.publish(task.EventExit, c.change(func(s *task.State) {
			s.Status, s.Pid, s.ExitCode, s.ExitedAt = task.StatusStopped, 0, unknownExit, time.Now()
			s.Lost = append(s.Lost, "exit code")
		}))
	}
	return m.forgetRecord(c.id)
}
