package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"davit/oci/errdefs"
	"davit/task"
	"davit/task/wire"
)

// session is one client's connection.
type session struct {
	conn *wire.Conn

	mu      sync.Mutex
	cursors map[uint64]uint64 // sequence sent last, by subscription id
	ended   chan struct{}
}

// accept takes clients in until the listener is closed.
func (m *Monitor) accept() {
	for {
		conn, err := m.listener.AcceptUnix()
		switch {
		case err == nil:
			m.gate.enter()
			m.welcome(conn)
			m.gate.leave()
		case errors.Is(err, net.ErrClosed):
			return
		default:
			m.log.Error("accept client", "error", err)
		}
	}
}

// welcome begins a session with a client that may speak to the monitor: root, or who runs it.
func (m *Monitor) welcome(conn *net.UnixConn) {
	uid, err := peer(conn)
	if err != nil || uid != 0 && uid != os.Geteuid() {
		m.log.Warn("client refused", "uid", uid, "error", err)
		conn.Close()
		return
	}
	m.begin(&session{conn: wire.NewConn(conn), cursors: make(map[uint64]uint64), ended: make(chan struct{})})
}

// peer returns the user at the other end. unix(7), SO_PEERCRED.
func peer(conn *net.UnixConn) (uid int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	var failure error
	err = raw.Control(func(fd uintptr) {
		var credentials *syscall.Ucred
		if credentials, failure = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); failure == nil {
			uid = int(credentials.Uid)
		}
	})
	return uid, errors.Join(err, failure)
}

func (m *Monitor) begin(s *session) {
	m.mu.Lock()
	m.sessions[s] = struct{}{}
	m.mu.Unlock()
	m.stir()
	go func() {
		err := m.serve(s)
		if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
			m.log.Warn("client lost", "error", err)
		}
		s.conn.Close()
		close(s.ended)
		m.mu.Lock()
		delete(m.sessions, s)
		m.mu.Unlock()
		m.stir()
	}()
}

// serve reads requests and answers each in a goroutine of its own, until an error ends it. A request is taken out of the socket
// inside the gate only: one that comes during an upgrade waits there for the successor.
func (m *Monitor) serve(s *session) error {
	raw, err := s.conn.Unix().SyscallConn()
	if err != nil {
		return err
	}
	for {
		if err := raw.Read(readable); err != nil {
			return err
		}
		m.gate.enter()
		message, err := s.conn.Receive()
		if err != nil {
			m.gate.leave()
			return err
		}
		go m.answer(s, message)
	}
}

// readable says whether a packet, or the end of the connection, is there.
func readable(fd uintptr) bool {
	var one [1]byte
	for {
		_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		if !errors.Is(err, syscall.EINTR) {
			return !errors.Is(err, syscall.EAGAIN)
		}
	}
}

// reply is what a handler returns: a body, files that are closed once sent, and what is to be done
// after the reply is on its way.
type reply struct {
	body  any
	files []*os.File
	after func()
	later bool // no reply now: after sees to it
}

// answer handles one request. It leaves the gate that the caller entered.
func (m *Monitor) answer(s *session, request wire.Message) {
	defer m.gate.leave()
	defer request.Close()
	r, err := m.handle(context.Background(), s, &request)
	if r.later {
		r.after()
		return
	}
	out := wire.Message{ID: request.ID, Kind: wire.KindReply, Files: r.files}
	if err == nil && r.body != nil {
		out.Body, err = json.Marshal(r.body)
	}
	if err != nil {
		out.Kind, out.Body = wire.KindError, wire.EncodeError(err)
	}
	s.send(m, out)
	out.Close()
	if r.after != nil {
		r.after()
	}
}

// send writes a reply. A session that cannot take it is over.
func (s *session) send(m *Monitor, reply wire.Message) {
	if err := s.conn.Send(reply); err != nil {
		m.log.Warn("reply is lost", "error", err)
		s.conn.Close()
	}
}

// handle decodes a request, calls what it asks for and says what to reply.
func (m *Monitor) handle(ctx context.Context, s *session, request *wire.Message) (reply, error) {
	switch request.Op {
	case wire.OpHello:
		return m.hello()
	case wire.OpCreate:
		return decoded(request, func(r task.CreateRequest) (reply, error) { return m.create(ctx, r) })
	case wire.OpStart:
		return decoded(request, func(t wire.Target) (reply, error) { return m.start(ctx, t.ID) })
	case wire.OpExec:
		return decoded(request, func(r task.ExecRequest) (reply, error) { return m.exec(ctx, r) })
	case wire.OpAttach:
		return decoded(request, m.attach)
	case wire.OpKill:
		return decoded(request, func(k wire.Kill) (reply, error) { return reply{}, m.kill(ctx, k) })
	case wire.OpPause, wire.OpResume:
		return decoded(request, func(t wire.Target) (reply, error) {
			return reply{}, m.freeze(ctx, t.ID, request.Op == wire.OpPause)
		})
	case wire.OpResize:
		return decoded(request, func(r wire.Resize) (reply, error) { return reply{}, m.resize(r) })
	case wire.OpCloseStdin:
		return decoded(request, func(t wire.Target) (reply, error) { return reply{}, m.closeStdin(t) })
	case wire.OpUpdate:
		return decoded(request, func(u wire.Update) (reply, error) { return reply{}, m.update(ctx, u) })
	case wire.OpState:
		return decoded(request, m.state)
	case wire.OpList:
		return m.list()
	case wire.OpDelete:
		return decoded(request, func(t wire.Target) (reply, error) { return m.delete(ctx, t.ID) })
	case wire.OpEvents:
		return decoded(request, func(q wire.Sequence) (reply, error) { return m.subscribe(s, request.ID, q.Sequence), nil })
	case wire.OpAcknowledge:
		return decoded(request, func(q wire.Sequence) (reply, error) { return reply{}, m.journal.Acknowledge(q.Sequence) })
	case wire.OpRelay:
		return decoded(request, func(r task.RelayRequest) (reply, error) { return reply{}, m.relay(r, request.Files) })
	case wire.OpUpgrade:
		return decoded(request, func(u wire.Upgrade) (reply, error) { return m.upgrade(ctx, s, request.ID, u.Binary) })
	}
	return reply{}, errdefs.NotImplemented("monitor does not know operation %d", request.Op)
}

// decoded calls a handler with the request's body.
func decoded[T any](request *wire.Message, call func(T) (reply, error)) (reply, error) {
	var body T
	if err := request.Decode(&body); err != nil {
		return reply{}, err
	}
	return call(body)
}

func (m *Monitor) hello() (reply, error) {
	binary, err := os.Executable()
	return reply{body: wire.Hello{Version: wire.Version, Pid: os.Getpid(), Started: m.started, Binary: binary}}, err
}

// subscribe sends events after the given one, now and as they happen.
func (m *Monitor) subscribe(s *session, id, after uint64) reply {
	s.mu.Lock()
	s.cursors[id] = after
	s.mu.Unlock()
	return reply{after: func() { go m.push(s, id) }}
}

// push sends a subscription's events until the session ends.
func (m *Monitor) push(s *session, id uint64) {
	for {
		changed, err := m.pushNew(s, id)
		if err != nil {
			s.conn.Close()
			return
		}
		select {
		case <-changed:
		case <-s.ended:
			return
		}
	}
}

// pushNew sends what is new, and returns a channel that is closed when there is more.
func (m *Monitor) pushNew(s *session, id uint64) (<-chan struct{}, error) {
	m.gate.enter()
	defer m.gate.leave()
	s.mu.Lock()
	after := s.cursors[id]
	s.mu.Unlock()
	events, changed := m.journal.After(after)
	for i := range events {
		body, err := json.Marshal(&events[i])
		if err == nil {
			err = s.conn.Send(wire.Message{ID: id, Kind: wire.KindEvent, Body: body})
		}
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		s.cursors[id] = events[i].Sequence
		s.mu.Unlock()
	}
	return changed, nil
}
