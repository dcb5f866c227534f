// Package monitor is the one process per host that is the parent of every container. It holds them by
// pidfd, owns their standard streams, writes their logs, learns their exit codes and keeps all that
// until an engine, its client by package task, has taken note. It keeps no other state than what it
// needs for this: what a container is, the engine knows.
//
//	<dir>/lock           held while a monitor lives
//	<dir>/journal        events that no engine has acknowledged
//	<dir>/tasks/<id>     one record per task, for a successor
//	<dir>/monitor.log    diagnostics
//
// The monitor may end in three ways:
//
//   - By itself, when it has had no task and no client for a while, or SIGTERM came. While there are
//     tasks SIGTERM is put off until the last is deleted: stopping containers is the engine's business.
//   - By Upgrade it executes another program in place. Process id, children, streams, clients and
//     connections stay (file handover.go).
//   - Killed, it leaves the containers running. Its successor adopts them from the records (file
//     adopt.go): output goes on where it stopped, because a container's output pipes do not depend on
//     their reader; input and terminals are lost, and State.Lost says so; exit codes are known from
//     Linux 6.15. Tying the containers' lives to the monitor's (PR_SET_PDEATHSIG) was considered: it
//     follows the thread that forked, and Go's come and go.
package monitor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"davit/kernel/sys"
	"davit/monitor/journal"
	"davit/monitor/stdio"
	"davit/ociruntime"
	"davit/store/logs"
	"davit/task"
)

// Options configure a Monitor.
type Options struct {
	Socket  string // where it listens, absolute
	Dir     string // its state, absolute; not shared with another monitor, not outliving a reboot
	Runtime *ociruntime.Runtime
	Idle    time.Duration // how long it stays with neither tasks nor clients; 0: one minute
	Logger  *slog.Logger  // required
	Args    []string      // further arguments of `monitor`, for the program of an upgrade

	ListenFD   int // a listening socket that task.Launch passed; 0: none
	HandoverFD int // what the monitor before an upgrade left; 0: none
}

// Monitor is the server. Run is its life.
type Monitor struct {
	options  Options
	log      *slog.Logger
	runtime  *ociruntime.Runtime
	started  time.Time
	listener *net.UnixListener
	lock     *os.File
	journal  *journal.Journal
	epoll    *sys.Epoll

	streamBuffers stdio.Buffers
	logBuffers    logs.Buffers
	profiles      task.Profiles

	gate *gate // whoever changes anything is inside; an upgrade shuts it

	mu       sync.Mutex
	tasks    map[string]*container
	reserved map[string]struct{}      // ids of tasks being created
	deleting map[string]chan struct{} // ids whose remains are being cleaned up
	sessions map[*session]struct{}
	watched  map[uint64]func() // by epoll token
	tokens   uint64
	draining bool
	activity chan struct{} // has room for one: something came or went
}

// Run serves until the monitor is idle or ctx ends, which leaves containers as a kill would.
func Run(ctx context.Context, o Options) error {
	if o.Idle == 0 {
		o.Idle = time.Minute
	}
	m := &Monitor{
		options:  o,
		log:      o.Logger,
		runtime:  o.Runtime,
		started:  time.Now(),
		gate:     newGate(),
		tasks:    make(map[string]*container),
		reserved: make(map[string]struct{}),
		deleting: make(map[string]chan struct{}),
		sessions: make(map[*session]struct{}),
		watched:  make(map[uint64]func()),
		activity: make(chan struct{}, 1),
	}
	if err := m.open(); err != nil {
		return err
	}
	defer m.close()
	if err := m.inherit(ctx); err != nil {
		return err
	}
	go m.accept()
	go m.watch()
	return m.live(ctx)
}

// open takes possession of the directory.
func (m *Monitor) open() (err error) {
	if err := os.MkdirAll(filepath.Join(m.options.Dir, "tasks"), 0o700); err != nil {
		return fmt.Errorf("open monitor: %w", err)
	}
	if m.journal, err = journal.Open(filepath.Join(m.options.Dir, "journal")); err != nil {
		return err
	}
	if m.epoll, err = sys.NewEpoll(); err != nil {
		return fmt.Errorf("open monitor: %w", err)
	}
	return nil
}

// inherit gets the listening socket and the tasks: from the program before an upgrade, or from task.Launch
// and the records of a monitor that died.
func (m *Monitor) inherit(ctx context.Context) error {
	if m.options.HandoverFD != 0 {
		return m.takeOver(ctx)
	}
	lock, err := os.OpenFile(filepath.Join(m.options.Dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("lock monitor directory: %w", err)
	}
	m.lock = lock
	if err := flock(lock); err != nil {
		return fmt.Errorf("lock monitor directory %s: another monitor uses it: %w", m.options.Dir, err)
	}
	if err := m.listen(); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return m.adoptAll(ctx)
}

// flock takes a lock without waiting. It belongs to the open file, and so survives an upgrade.
func flock(f *os.File) error {
	for {
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

func (m *Monitor) listen() (err error) {
	if m.options.ListenFD != 0 {
		m.listener, err = listenerOf(m.options.ListenFD)
		return err
	}
	lock, err := task.LockSocket(m.options.Socket)
	if err != nil {
		return err
	}
	defer lock.Close()
	if conn, err := net.Dial("unixpacket", m.options.Socket); err == nil {
		conn.Close()
		return fmt.Errorf("a monitor listens on %s already", m.options.Socket)
	}
	m.listener, err = task.Listen(m.options.Socket)
	return err
}

// listenerOf takes over an inherited listening socket.
func listenerOf(fd int) (*net.UnixListener, error) {
	syscall.CloseOnExec(fd)
	file := os.NewFile(uintptr(fd), "listener")
	defer file.Close()
	l, err := net.FileListener(file)
	if err != nil {
		return nil, err
	}
	unix, ok := l.(*net.UnixListener)
	if !ok {
		l.Close()
		return nil, fmt.Errorf("descriptor %d is not a unix socket", fd)
	}
	unix.SetUnlinkOnClose(false)
	return unix, nil
}

func (m *Monitor) close() {
	if m.listener != nil {
		m.listener.Close()
	}
	m.epoll.Close()
	m.journal.Close()
	m.mu.Lock()
	defer m.mu.Unlock()
	for s := range m.sessions {
		s.conn.Close()
	}
	if m.lock != nil {
		m.lock.Close()
	}
}

// Publish makes an event of what happened to a task or exec.
func (m *Monitor) publish(kind task.EventType, s task.State) {
	if err := m.journal.Publish(task.Event{Type: kind, Time: time.Now(), State: s}); err != nil {
		m.log.Error("event is not on disk", "type", kind, "task", s.ID, "error", err)
	}
}
