package task

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/oci/errdefs"
	"davit/task/wire"
)

// Client is a connection to the monitor. Its methods may be called concurrently. Once the connection
// is lost (Done) every call fails with errdefs.ErrUnavailable; dial again, nothing is lost.
//
// Errors carry the monitor's errdefs class and, where a system call failed, its syscall.Errno.
type Client struct {
	conn *wire.Conn
	done chan struct{}

	profiles profiles

	mu    sync.Mutex
	next  uint64
	calls map[uint64]chan wire.Message // replies awaited; each has room for its one reply
	subs  map[uint64]*subscription
	err   error // why the connection ended
}

// Dial connects to the monitor that listens on socket. It fails with errdefs.ErrUnavailable when none
// does, and when the monitor speaks another version of the protocol.
func Dial(ctx context.Context, socket string) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unixpacket", socket)
	if err != nil {
		return nil, errdefs.New(errdefs.ErrUnavailable, "connect to monitor: %w", err)
	}
	c := &Client{
		conn:  wire.NewConn(conn.(*net.UnixConn)),
		done:  make(chan struct{}),
		calls: make(map[uint64]chan wire.Message),
		subs:  make(map[uint64]*subscription),
	}
	go c.receive()
	hello, err := c.Hello(ctx)
	if err == nil && hello.Version != wire.Version {
		err = errdefs.Unavailable("monitor speaks protocol version %d, this client %d", hello.Version, wire.Version)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close ends the connection. Tasks and their attached streams live on.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.done
	return err
}

// Done is closed when the connection is lost or closed.
func (c *Client) Done() <-chan struct{} { return c.done }

// receive hands each message to whom it answers, until the connection ends.
func (c *Client) receive() {
	var err error
	for err == nil {
		var m wire.Message
		if m, err = c.conn.Receive(); err == nil {
			c.dispatch(m)
		}
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("connection closed")
	}
	c.conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = errdefs.New(errdefs.ErrUnavailable, "monitor: %w", err)
	for _, s := range c.subs {
		s.end()
	}
	close(c.done)
}

func (c *Client) dispatch(m wire.Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m.Kind == wire.KindEvent {
		if s := c.subs[m.ID]; s != nil {
			s.push(m)
		}
		return
	}
	reply, ok := c.calls[m.ID]
	if !ok {
		m.Close() // its caller gave up
		return
	}
	delete(c.calls, m.ID)
	reply <- m
}

// call sends a request and decodes its reply into out. The caller owns the files.
func (c *Client) call(ctx context.Context, op wire.Op, in, out any) ([]*os.File, error) {
	return c.callWith(ctx, op, in, nil, out)
}

// callWith is call with files beside the request, which stay the caller's.
func (c *Client) callWith(ctx context.Context, op wire.Op, in any, files []*os.File, out any) ([]*os.File, error) {
	id, reply, err := c.begin()
	if err != nil {
		return nil, err
	}
	return c.finish(ctx, id, reply, op, in, files, out)
}

// begin reserves an id and a place for its reply.
func (c *Client) begin() (uint64, chan wire.Message, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, nil, c.err
	}
	c.next++
	reply := make(chan wire.Message, 1)
	c.calls[c.next] = reply
	return c.next, reply, nil
}

func (c *Client) finish(ctx context.Context, id uint64, reply chan wire.Message, op wire.Op, in any, files []*os.File, out any) ([]*os.File, error) {
	body, err := json.Marshal(in)
	if err == nil {
		err = c.conn.Send(wire.Message{ID: id, Op: op, Body: body, Files: files})
	}
	if err != nil {
		c.forget(id)
		return nil, errdefs.As(errdefs.ErrUnavailable, err)
	}
	select {
	case m := <-reply:
		return decodeReply(m, out)
	case <-ctx.Done():
		c.forget(id)
		return nil, errdefs.As(errdefs.ErrCanceled, ctx.Err())
	case <-c.done:
	}
	select {
	case m := <-reply: // it came just before the end
		return decodeReply(m, out)
	default:
		return nil, c.err
	}
}

// forget gives up on a reply; one that comes yet, or has come, is closed.
func (c *Client) forget(id uint64) {
	c.mu.Lock()
	reply, waiting := c.calls[id]
	delete(c.calls, id)
	c.mu.Unlock()
	if waiting {
		return
	}
	select {
	case m := <-reply:
		m.Close()
	default:
	}
}

func decodeReply(m wire.Message, out any) ([]*os.File, error) {
	if m.Kind == wire.KindError {
		m.Close()
		return nil, wire.DecodeError(&m)
	}
	if err := m.Decode(out); err != nil {
		m.Close()
		return nil, err
	}
	return m.Files, nil
}

// Hello asks the monitor who it is.
func (c *Client) Hello(ctx context.Context) (wire.Hello, error) {
	var h wire.Hello
	_, err := c.call(ctx, wire.OpHello, struct{}{}, &h)
	return h, err
}

// Create makes a task, parked before its program's first instruction. netns is the task's network
// namespace, for the caller to configure while the task is prepared and to close; nil when the spec
// asks for no new one. An id in use is errdefs.ErrConflict.
func (c *Client) Create(ctx context.Context, r CreateRequest) (s State, netns *os.File, err error) {
	sent, err := c.profiles.detach(r)
	if err != nil {
		return s, nil, err
	}
	files, err := c.call(ctx, wire.OpCreate, sent, &s)
	if sent.ProfileKey != "" && sent.Profile == nil && errors.Is(err, errdefs.ErrNotFound) {
		c.profiles.learned(sent.ProfileKey, false)
		return c.Create(ctx, r) // it was forgotten: with its text this time
	}
	if err == nil {
		c.profiles.learned(sent.ProfileKey, true)
	}
	if len(files) > 0 {
		netns = files[0]
	}
	return s, netns, err
}

// Start lets a created task's program run. When the program cannot be executed, the error says why
// (errors.Is syscall.ENOENT, EACCES, ...), and the task is stopped, without an exit event.
func (c *Client) Start(ctx context.Context, id string) (State, error) {
	var s State
	_, err := c.call(ctx, wire.OpStart, wire.Target{ID: id}, &s)
	return s, err
}

// Kill sends a signal to the first process of a task (execID empty) or exec, or with all to every
// process of the task. A stopped one is errdefs.ErrConflict.
func (c *Client) Kill(ctx context.Context, id, execID string, sig syscall.Signal, all bool) error {
	_, err := c.call(ctx, wire.OpKill, wire.Kill{Target: wire.Target{ID: id, ExecID: execID}, Signal: int(sig), All: all}, nil)
	return err
}

// Pause freezes all processes of a running task.
func (c *Client) Pause(ctx context.Context, id string) error {
	_, err := c.call(ctx, wire.OpPause, wire.Target{ID: id}, nil)
	return err
}

// Resume thaws a paused task.
func (c *Client) Resume(ctx context.Context, id string) error {
	_, err := c.call(ctx, wire.OpResume, wire.Target{ID: id}, nil)
	return err
}

// Resize sets the terminal's size in characters. It works before Start too.
func (c *Client) Resize(ctx context.Context, id, execID string, rows, cols uint16) error {
	_, err := c.call(ctx, wire.OpResize, wire.Resize{Target: wire.Target{ID: id, ExecID: execID}, Rows: rows, Cols: cols}, nil)
	return err
}

// CloseStdin ends the standard input of a task or exec.
func (c *Client) CloseStdin(ctx context.Context, id, execID string) error {
	_, err := c.call(ctx, wire.OpCloseStdin, wire.Target{ID: id, ExecID: execID}, nil)
	return err
}

// Attach opens a stream to a task's or exec's standard streams; see AttachRequest for its form. A
// stopped one is errdefs.ErrConflict.
func (c *Client) Attach(ctx context.Context, r AttachRequest) (*net.UnixConn, error) {
	files, err := c.call(ctx, wire.OpAttach, r, nil)
	if err != nil {
		return nil, err
	}
	return streamOf(files)
}

// Exec starts one more process in a running task. With attach, the stream is connected before the
// process starts, so that no output is lost. When the program cannot be executed the error says why,
// as for Start, and there is neither exec nor event.
func (c *Client) Exec(ctx context.Context, r ExecRequest, attach *AttachRequest) (State, *net.UnixConn, error) {
	var s State
	r.Attach = attach
	files, err := c.call(ctx, wire.OpExec, r, &s)
	if err != nil || attach == nil {
		return s, nil, err
	}
	conn, err := streamOf(files)
	return s, conn, err
}

// streamOf turns the one file of a reply into a stream.
func streamOf(files []*os.File) (*net.UnixConn, error) {
	if len(files) != 1 {
		return nil, fmt.Errorf("attach: monitor sent %d files", len(files))
	}
	defer files[0].Close()
	conn, err := net.FileConn(files[0])
	if err != nil {
		return nil, fmt.Errorf("attach: %w", err)
	}
	return conn.(*net.UnixConn), nil
}

// Update changes the resource limits of a task.
func (c *Client) Update(ctx context.Context, id string, r *specs.LinuxResources) error {
	_, err := c.call(ctx, wire.OpUpdate, wire.Update{ID: id, Resources: r}, nil)
	return err
}

// State returns a task's state, or an exec's. An exec is forgotten once it has exited.
func (c *Client) State(ctx context.Context, id, execID string) (State, error) {
	var s State
	_, err := c.call(ctx, wire.OpState, wire.Target{ID: id, ExecID: execID}, &s)
	return s, err
}

// List returns the states of all tasks, without execs.
func (c *Client) List(ctx context.Context) ([]State, error) {
	var all []State
	_, err := c.call(ctx, wire.OpList, struct{}{}, &all)
	return all, err
}

// Relay makes a task's relays the given ones: those without a file it has already.
func (c *Client) Relay(ctx context.Context, id string, relays []Relay) error {
	all := slices.Clone(relays)
	for i := range all {
		all[i].Socket = all[i].File != nil
	}
	request := RelayRequest{Task: id}
	for fresh := withFile(all); len(all) > wire.MaxFiles && len(fresh) > 0; fresh = withFile(all) {
		request.Relays, request.Keep = nil, true
		for _, i := range fresh[:min(len(fresh), wire.MaxFiles)] {
			request.Relays = append(request.Relays, all[i])
			all[i].File, all[i].Socket = nil, false
		}
		if err := c.relay(ctx, request); err != nil {
			return err
		}
	}
	request.Relays, request.Keep = all, false
	return c.relay(ctx, request)
}

// withFile are the indexes of relays that come with a socket.
func withFile(relays []Relay) []int {
	var found []int
	for i, r := range relays {
		if r.File != nil {
			found = append(found, i)
		}
	}
	return found
}

func (c *Client) relay(ctx context.Context, r RelayRequest) error {
	var files []*os.File
	for _, i := range withFile(r.Relays) {
		files = append(files, r.Relays[i].File)
	}
	_, err := c.callWith(ctx, wire.OpRelay, r, files, nil)
	return err
}

// Delete forgets a stopped or created task; a running one is errdefs.ErrConflict. What remains to be
// cleaned up in the kernel is done behind its back, but before the id can be used again.
func (c *Client) Delete(ctx context.Context, id string) error {
	_, err := c.call(ctx, wire.OpDelete, wire.Target{ID: id}, nil)
	return err
}

// Acknowledge says that all events up to and including sequence are recorded; the monitor forgets them.
func (c *Client) Acknowledge(ctx context.Context, sequence uint64) error {
	_, err := c.call(ctx, wire.OpAcknowledge, wire.Sequence{Sequence: sequence}, nil)
	return err
}

// Upgrade replaces the monitor's program by binary, in place: its process, the tasks, their streams and
// this connection stay. It returns when the new program has taken over, or with an error when the old
// one goes on.
func (c *Client) Upgrade(ctx context.Context, binary string) error {
	_, err := c.call(ctx, wire.OpUpgrade, wire.Upgrade{Binary: binary}, nil)
	return err
}
