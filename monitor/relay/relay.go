// Package relay carries what the kernel cannot translate: connections that come over IPv6 for a published
// port whose container has no IPv6 address, and those to ::1, whose packets the kernel routes nowhere. A
// relay accepts on a socket that the engine has bound, and passes bytes on to the container.
//
// Relays belong to a task: its monitor serves all of them, in one process, and ends them with it.
package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Relay is one socket of the host and where it leads.
type Relay struct {
	to     atomic.Pointer[destination]
	socket socket
	ctx    context.Context // ends when no more connections are taken, for good or for a pause
	stop   context.CancelFunc
	work   sync.WaitGroup // of who accepts and who carries connections

	mu     sync.Mutex
	paused bool
	closed bool
	pairs  map[*pair]struct{}
	others map[*net.UDPConn]struct{}
}

// destination is where new connections go, until they go elsewhere.
type destination struct {
	address netip.AddrPort
	current context.Context // ends with a redirection
	leave   context.CancelFunc
}

func newDestination(address netip.AddrPort) *destination {
	current, leave := context.WithCancel(context.Background())
	return &destination{address, current, leave}
}

// socket is a *net.TCPListener or a *net.UDPConn.
type socket interface {
	syscall.Conn
	Close() error
	SetDeadline(time.Time) error
}

// Serve begins to accept on a socket that is bound, of which it takes a copy.
func Serve(file *os.File, to netip.AddrPort) (*Relay, error) {
	r := &Relay{pairs: map[*pair]struct{}{}, others: map[*net.UDPConn]struct{}{}}
	r.to.Store(newDestination(to))
	kind, err := prepare(file)
	if err == nil && kind == syscall.SOCK_DGRAM {
		r.socket, err = packetSocket(file)
	} else if err == nil {
		r.socket, err = listeningSocket(file)
	}
	if err != nil {
		return nil, fmt.Errorf("relay to %s: %w", to, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begin()
	return r, nil
}

func packetSocket(file *os.File) (socket, error) {
	packets, err := net.FilePacketConn(file)
	if err != nil {
		return nil, err
	}
	return packets.(*net.UDPConn), nil
}

func listeningSocket(file *os.File) (socket, error) {
	listener, err := net.FileListener(file)
	if err != nil {
		return nil, err
	}
	return listener.(*net.TCPListener), nil
}

// begin takes connections in, and goes on with those that there are. It is called with the mutex held.
func (r *Relay) begin() {
	r.ctx, r.stop = context.WithCancel(context.Background())
	switch s := r.socket.(type) {
	case *net.UDPConn:
		r.work.Go(func() { r.datagrams(s) })
	case *net.TCPListener:
		r.work.Go(func() { r.accept(s) })
	}
	for p := range r.pairs {
		p.busy = true
		r.work.Go(func() { r.carry(p) })
	}
}

// backlog is how many connections wait to be accepted; the kernel has a limit of its own, net.core.somaxconn.
const backlog = 4096

// prepare makes a bound socket one that can be used, and returns its type. Connections that linger shall
// not keep the next container from the port: SO_REUSEADDR of a listening socket lets no other listen.
func prepare(file *os.File) (kind int, err error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failure error
	err = raw.Control(func(fd uintptr) {
		if kind, failure = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_TYPE); failure != nil {
			return
		}
		if kind == syscall.SOCK_DGRAM {
			const buffer = 1 << 18
			failure = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, buffer)
			return
		}
		failure = errors.Join(syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1), syscall.Listen(int(fd), backlog))
	})
	return kind, errors.Join(err, failure)
}

// Redirect lets new connections go elsewhere, and with them those that nobody has answered yet: who is
// about to end may never do it. So do datagrams of clients that have sent some before.
func (r *Relay) Redirect(to netip.AddrPort) {
	if r.to.Load().address == to {
		return
	}
	r.to.Swap(newDestination(to)).leave()
	r.mu.Lock()
	defer r.mu.Unlock()
	for conn := range r.others {
		conn.Close()
	}
}

// linger is how long connections may go on when their container has ended: for what is on its way.
const linger = time.Second

// Close takes no more connections. Those that exist have a second to end.
func (r *Relay) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.stop()
	err := r.socket.Close()
	for p := range r.pairs {
		p.deadline(time.Now().Add(linger))
	}
	for conn := range r.others {
		conn.Close()
	}
	return err
}

// accept takes connections in until the relay is closed or paused.
func (r *Relay) accept(l *net.TCPListener) {
	for {
		conn, err := l.AcceptTCP()
		switch {
		case err == nil:
			r.work.Go(func() { r.connect(conn) })
		case errors.Is(err, net.ErrClosed) || r.ctx.Err() != nil:
			return
		default: // out of descriptors, most likely: until some are free
			select {
			case <-r.ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
}

// connect finds a connection its other end.
func (r *Relay) connect(client *net.TCPConn) {
	server, err := r.dial()
	if err != nil {
		client.SetLinger(0) // the client is told as by a closed port
		client.Close()
		return
	}
	p := &pair{client: client, server: server, busy: true}
	r.mu.Lock()
	r.pairs[p] = struct{}{}
	switch {
	case r.closed:
		p.deadline(time.Now().Add(linger))
	case r.paused:
		p.interrupt()
	}
	r.mu.Unlock()
	r.carry(p)
}

// dial connects to where the relay leads by the time that somebody answers.
func (r *Relay) dial() (*net.TCPConn, error) {
	for {
		to := r.to.Load()
		ctx, cancel := context.WithCancel(r.ctx)
		unhook := context.AfterFunc(to.current, cancel)
		server, err := new(net.Dialer).DialContext(ctx, "tcp", to.address.String())
		unhook()
		cancel()
		switch {
		case err == nil:
			return server.(*net.TCPConn), nil
		case to.current.Err() == nil || r.ctx.Err() != nil:
			return nil, err
		}
	}
}

// carry passes bytes both ways until both have ended, or the relay is paused.
func (r *Relay) carry(p *pair) {
	p.stream()
	r.mu.Lock()
	defer r.mu.Unlock()
	p.busy = false
	if r.paused && !p.ended() && !p.cut {
		return
	}
	delete(r.pairs, p)
	p.close()
}
