package monitor

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"davit/kernel/sys"
	"davit/monitor/stdio"
	"davit/oci/errdefs"
	"davit/ociruntime"
	"davit/task"
	"davit/task/wire"
)

// HandoverVersion is the version of the state that one program leaves for the next. A program prints
// the one it understands on `monitor --handover-version`, and is not executed when it is another.
const HandoverVersion = 1

// patience with clients that do not take their replies, before their sessions are cut for an upgrade.
const replyPatience = 3 * time.Second

// handover is what survives an upgrade in place, in a file: plain data and numbers of descriptors that
// stay open. What the kernel keeps for the process (children, locks) needs no mention.
type handover struct {
	Version  int              `json:"version"`
	Listener int              `json:"listener"`
	Lock     int              `json:"lock"`
	Sessions []sessionState   `json:"sessions"`
	Tasks    []containerState `json:"tasks"`

	Asker int    `json:"asker"` // index of the session that asked, or -1
	Reply uint64 `json:"reply"` // the id it awaits a reply to
}

type sessionState struct {
	FD      int               `json:"fd"`
	Cursors map[uint64]uint64 `json:"cursors"`
}

type containerState struct {
	record
	Streams stdio.State      `json:"streams"`
	PidFD   int              `json:"pidfd"` // of the first process, which may be a zombie by now; below 0: none
	Kills   uint64           `json:"kills,omitempty"`
	Execs   []executionState `json:"execs,omitempty"`
	Relays  []relayState     `json:"relays,omitempty"`
}

type executionState struct {
	State   task.State   `json:"state"`
	Stdio   task.Stdio   `json:"stdio"`
	PidFD   int          `json:"pidfd"`
	Streams *stdio.State `json:"streams,omitempty"`
}

// upgrade replaces the program. The reply comes from the successor, or from here when it fails.
func (m *Monitor) upgrade(ctx context.Context, s *session, id uint64, binary string) (reply, error) {
	if err := understands(ctx, binary); err != nil {
		return reply{}, err
	}
	return reply{later: true, after: func() {
		go func() {
			err := m.replace(s, id, binary)
			m.log.Error("upgrade", "binary", binary, "error", err)
			s.send(m, wire.Message{ID: id, Kind: wire.KindError, Body: wire.EncodeError(err)})
		}()
	}}, nil
}

// understands says whether binary can take over from this program.
func understands(ctx context.Context, binary string) error {
	out, err := exec.CommandContext(ctx, binary, "monitor", "--handover-version").Output()
	if err != nil {
		return errdefs.New(errdefs.ErrInvalid, "upgrade to %s: %w", binary, err)
	}
	if version := strings.TrimSpace(string(out)); version != strconv.Itoa(HandoverVersion) {
		return errdefs.Conflict("upgrade to %s: it takes over from version %s, this is version %d", binary, version, HandoverVersion)
	}
	return nil
}

// replace stops all work, executes binary and does not return, or goes on and says why not.
func (m *Monitor) replace(asker *session, id uint64, binary string) error {
	cut := time.AfterFunc(replyPatience, m.cutSlowSessions)
	shut := m.gate.shut()
	cut.Stop()
	if !shut {
		return errdefs.Conflict("another upgrade is going on")
	}
	defer m.gate.open()
	for _, streams := range m.allStreams() {
		streams.Pause()
		defer streams.Continue()
	}
	for _, r := range m.allRelays() {
		r.Pause()
		defer r.Continue()
	}
	var h handover
	defer h.release()
	file, err := m.handOver(&h, asker, id)
	if err != nil {
		return err
	}
	defer file.Close()
	fd, err := sys.KeepOnExec(file, true)
	if err != nil {
		return err
	}
	args := []string{
		binary, "monitor", "--socket", m.options.Socket, "--dir", m.options.Dir,
		"--idle", m.options.Idle.String(), "--handover-fd", strconv.Itoa(fd),
	}
	args = append(args, m.options.Args...)
	if err := syscall.Exec(binary, args, os.Environ()); err != nil {
		return fmt.Errorf("execute %s: %w", binary, err)
	}
	return nil
}

// cutSlowSessions makes replies and events fail that a client does not take.
func (m *Monitor) cutSlowSessions() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for s := range m.sessions {
		s.conn.Unix().SetWriteDeadline(time.Now())
	}
}

// allStreams returns the streams of all tasks and execs.
func (m *Monitor) allStreams() []*stdio.Streams {
	var all []*stdio.Streams
	for _, c := range m.all() {
		c.mu.Lock()
		all = append(all, c.streams)
		for _, e := range c.execs {
			if e.streams != nil {
				all = append(all, e.streams)
			}
		}
		c.mu.Unlock()
	}
	return all
}

// handOver writes down everything in a file without a name. Descriptors named in h stay open on exec,
// also after an error, until h.release.
func (m *Monitor) handOver(h *handover, asker *session, id uint64) (*os.File, error) {
	h.Version, h.Asker, h.Reply = HandoverVersion, -1, id
	var err error
	if h.Listener, err = sys.KeepOnExec(m.listener, true); err != nil {
		return nil, fmt.Errorf("hand over listener: %w", err)
	}
	if h.Lock, err = sys.KeepOnExec(m.lock, true); err != nil {
		return nil, fmt.Errorf("hand over lock: %w", err)
	}
	if err := m.handOverSessions(h, asker); err != nil {
		return nil, err
	}
	for _, c := range m.all() {
		state, err := c.handOver()
		h.Tasks = append(h.Tasks, state)
		if err != nil {
			return nil, fmt.Errorf("hand over task %s: %w", c.id, err)
		}
	}
	file, err := os.CreateTemp(m.options.Dir, "handover-")
	if err != nil {
		return nil, fmt.Errorf("hand over: %w", err)
	}
	os.Remove(file.Name())
	if err := json.NewEncoder(file).Encode(h); err != nil {
		file.Close()
		return nil, fmt.Errorf("hand over: %w", err)
	}
	if _, err := file.Seek(0, 0); err != nil {
		file.Close()
		return nil, fmt.Errorf("hand over: %w", err)
	}
	return file, nil
}

func (m *Monitor) handOverSessions(h *handover, asker *session) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for s := range m.sessions {
		fd, err := sys.KeepOnExec(s.conn.Unix(), true)
		if err != nil {
			continue // it has just ended
		}
		if s == asker {
			h.Asker = len(h.Sessions)
		}
		h.Sessions = append(h.Sessions, sessionState{fd, s.cursors})
	}
	return nil
}

func (c *container) handOver() (state containerState, err error) {
	state.record = c.record()
	c.mu.Lock()
	defer c.mu.Unlock()
	state.Kills, state.PidFD = c.oom.seen, -1
	if c.runtime.PidFD != nil {
		if state.PidFD, err = sys.KeepOnExec(c.runtime.PidFD, true); err != nil {
			return state, err
		}
	}
	if state.Streams, err = c.streams.Pass(); err != nil {
		return state, err
	}
	if state.Relays, err = c.passRelays(); err != nil {
		return state, err
	}
	for _, e := range c.execs {
		next := executionState{State: e.state, Stdio: e.stdio}
		if next.PidFD, err = sys.KeepOnExec(e.process.PidFD, true); err != nil {
			return state, err
		}
		if e.streams != nil {
			streams, err := e.streams.Pass()
			next.Streams = &streams
			if err != nil {
				return state, err
			}
		}
		state.Execs = append(state.Execs, next)
	}
	return state, nil
}

// release makes the descriptors that h names close-on-exec again.
func (h *handover) release() {
	fds := []int{h.Listener, h.Lock}
	for _, s := range h.Sessions {
		fds = append(fds, s.FD)
	}
	for _, t := range h.Tasks {
		fds = append(append(fds, t.PidFD), t.Streams.FDs()...)
		for _, r := range t.Relays {
			fds = append(fds, r.FDs()...)
		}
		for _, e := range t.Execs {
			fds = append(fds, e.PidFD)
			if e.Streams != nil {
				fds = append(fds, e.Streams.FDs()...)
			}
		}
	}
	for _, fd := range fds {
		if fd > 0 {
			syscall.CloseOnExec(fd)
		}
	}
}

// takeOver goes on where the program before stopped.
func (m *Monitor) takeOver(ctx context.Context) error {
	file := os.NewFile(uintptr(m.options.HandoverFD), "handover")
	defer file.Close()
	var h handover
	if err := json.NewDecoder(file).Decode(&h); err != nil {
		return fmt.Errorf("take over: %w", err)
	}
	if h.Version != HandoverVersion {
		return fmt.Errorf("take over: version %d, not %d", h.Version, HandoverVersion)
	}
	h.release()
	m.lock = os.NewFile(uintptr(h.Lock), "lock")
	var err error
	if m.listener, err = listenerOf(h.Listener); err != nil {
		return fmt.Errorf("take over: %w", err)
	}
	for i := range h.Tasks {
		if err := m.takeTask(ctx, &h.Tasks[i]); err != nil {
			m.log.Error("take over", "task", h.Tasks[i].record.State.ID, "error", err)
		}
	}
	return m.takeSessions(&h)
}

func (m *Monitor) takeTask(ctx context.Context, state *containerState) error {
	c := state.restored()
	c.oom.seen = state.Kills
	loaded, err := m.runtime.Load(ctx, c.id)
	if err != nil {
		return err
	}
	c.runtime = loaded
	if state.PidFD >= 0 {
		if loaded.PidFD != nil {
			loaded.PidFD.Close()
		}
		loaded.PidFD = os.NewFile(uintptr(state.PidFD), "pidfd")
	}
	log, err := m.openLog(c.log)
	if err != nil {
		m.log.Error("open log", "task", c.id, "error", err)
	}
	config := m.streamConfig(c.stdio, nil, nil, log)
	if c.streams, err = stdio.Take(config, state.Streams); err != nil {
		return err
	}
	if err := c.takeRelays(state.Relays); err != nil {
		m.log.Error("take over relays", "task", c.id, "error", err)
	}
	m.mu.Lock()
	m.tasks[c.id] = c
	m.mu.Unlock()
	for _, e := range state.Execs {
		if err := m.takeExec(c, &e); err != nil {
			return err
		}
	}
	if c.state.Status == task.StatusRunning || c.state.Status == task.StatusPaused {
		m.watchMemory(c)
		m.watchExit(c)
	}
	return nil
}

func (m *Monitor) takeExec(c *container, state *executionState) error {
	e := &execution{stdio: state.Stdio, state: state.State}
	e.process = &ociruntime.Process{Pid: state.State.Pid, PidFD: os.NewFile(uintptr(state.PidFD), "pidfd")}
	if state.Streams != nil {
		var err error
		if e.streams, err = stdio.Take(m.streamConfig(e.stdio, nil, nil, nil), *state.Streams); err != nil {
			return err
		}
	}
	c.mu.Lock()
	c.execs[e.state.ExecID] = e
	c.mu.Unlock()
	m.watchExec(c, e)
	return nil
}

// takeSessions goes on with the clients, the one first that awaits the outcome.
func (m *Monitor) takeSessions(h *handover) error {
	for i, state := range h.Sessions {
		file := os.NewFile(uintptr(state.FD), "client")
		conn, err := net.FileConn(file)
		file.Close()
		if err != nil {
			return fmt.Errorf("take over client: %w", err)
		}
		s := &session{conn: wire.NewConn(conn.(*net.UnixConn)), cursors: state.Cursors, ended: make(chan struct{})}
		if i == h.Asker {
			s.send(m, wire.Message{ID: h.Reply, Kind: wire.KindReply})
		}
		m.begin(s)
		for id := range state.Cursors {
			go m.push(s, id)
		}
	}
	return nil
}
