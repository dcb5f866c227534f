package monitor

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"davit/monitor/relay"
	"davit/monitor/stdio"
	"davit/task"
)

// record is what a successor has to know of a task.
type record struct {
	State   task.State     `json:"state"`
	Stdio   task.Stdio     `json:"stdio"`
	Log     task.LogConfig `json:"log"`
	Inodes  stdio.Inodes   `json:"inodes"`
	Limited bool           `json:"limited,omitempty"`
	Shared  bool           `json:"shared,omitempty"`
}

func (c *container) record() record {
	return record{c.current(), c.stdio, c.log, c.inodes, c.limited, c.shared}
}

// restored returns the container of a record, without what is alive.
func (r *record) restored() *container {
	c := &container{
		id: r.State.ID, stdio: r.Stdio, log: r.Log, inodes: r.Inodes, limited: r.Limited, shared: r.Shared,
		ready: make(chan struct{}), execs: make(map[string]*execution), relays: make(map[relayKey]*relay.Relay), state: r.State,
	}
	c.state.Execs = nil
	close(c.ready)
	return c
}

func (m *Monitor) recordPath(id string) string { return filepath.Join(m.options.Dir, "tasks", id) }

// record writes a task's record. A failure is logged: it matters only if this monitor is killed.
func (m *Monitor) record(c *container) {
	text, err := json.Marshal(c.record())
	path := m.recordPath(c.id)
	temporary := filepath.Join(m.options.Dir, "new-"+c.id)
	if err == nil {
		err = os.WriteFile(temporary, text, 0o600)
	}
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		m.log.Error("write record", "task", c.id, "error", err)
	}
}

// records reads what the monitor before left.
func (m *Monitor) records() ([]record, error) {
	dir := filepath.Join(m.options.Dir, "tasks")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read records: %w", err)
	}
	var all []record
	for _, entry := range entries {
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return nil, fmt.Errorf("read record: %w", err)
		}
		var r record
		if err := json.Unmarshal(text, &r); err != nil {
			return nil, fmt.Errorf("read record %s: %w", entry.Name(), err)
		}
		all = append(all, r)
	}
	return all, nil
}

func (m *Monitor) forgetRecord(id string) error {
	if err := os.Remove(m.recordPath(id)); err != nil {
		return fmt.Errorf("remove record: %w", err)
	}
	return nil
}
