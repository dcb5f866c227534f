package monitor

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"davit/task"
)

// settle is how long after the last activity memory goes back to the kernel.
const settle = 2 * time.Second

// live waits for the end of the monitor's life.
func (m *Monitor) live(ctx context.Context) error {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(stop)
	quiet, idle := time.NewTimer(settle), time.NewTimer(m.options.Idle)
	defer quiet.Stop()
	defer idle.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.activity:
			quiet.Reset(settle)
			idle.Reset(m.patience())
		case <-stop:
			m.mu.Lock()
			m.draining = true
			m.mu.Unlock()
			idle.Reset(0)
		case <-quiet.C:
			for _, c := range m.all() {
				c.runtime.Trim()
			}
			debug.FreeOSMemory()
		case <-idle.C:
			if m.leave() {
				return nil
			}
		}
	}
}

// patience is how long to stay with nothing to do.
func (m *Monitor) patience() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.draining {
		return 0
	}
	return m.options.Idle
}

// stir says that something came or went.
func (m *Monitor) stir() {
	select {
	case m.activity <- struct{}{}:
	default:
	}
}

// leave removes the socket when nothing is left to do. A client that connects at this very moment loses
// its connection and finds another monitor by task.Connect.
func (m *Monitor) leave() bool {
	lock, err := task.LockSocket(m.options.Socket) // keeps task.Launch away
	if err != nil {
		return false
	}
	defer lock.Close()
	if m.busy() {
		return false
	}
	if err := os.Remove(m.options.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		m.log.Warn("remove socket", "error", err)
	}
	return true
}

// busy says whether there is a task, or a client when not draining.
func (m *Monitor) busy() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.tasks)+len(m.reserved) > 0 || len(m.deleting) > 0 || len(m.sessions) > 0 && !m.draining
}
