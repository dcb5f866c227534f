// Package relay carries what the kernel cannot translate: connections that come over IPv6 for a published
// port whose container has no IPv6 address, and those to ::1, whose packets the kernel routes nowhere. A
// relay accepts on a socket that the engine has bound, and passes bytes on to the container.
//
// Relays belong to a task: its monitor serves all of them, in one process, and ends them with it.
package relay

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"davit/kernel/sys"
)

// Relay is one socket of the host and where it leads.
type Relay struct {
	to     atomic.Pointer[netip.AddrPort]
	socket socket
	done   chan struct{} // closed when no more connections are taken

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

// socket is a *net.TCPListener or a *net.UDPConn.
type socket interface {
	syscall.Conn
	Close() error
}

// State is a relay on its way to the program of an upgrade.
type State struct {
	FD int            `json:"fd"`
	To netip.AddrPort `json:"to"`
}

// Serve begins to accept on a socket that is bound, of which it takes a copy.
func Serve(file *os.File, to netip.AddrPort) (*Relay, error) {
	r := &Relay{done: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	r.to.Store(&to)
	kind, err := prepare(file)
	if err != nil {
		return nil, fmt.Errorf("relay to %s: %w", to, err)
	}
	if kind == syscall.SOCK_DGRAM {
		packets, err := net.FilePacketConn(file)
		if err != nil {
			return nil, fmt.Errorf("relay to %s: %w", to, err)
		}
		udp := packets.(*net.UDPConn)
		r.socket = udp
		go r.datagrams(udp)
		return r, nil
	}
	listener, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("relay to %s: %w", to, err)
	}
	tcp := listener.(*net.TCPListener)
	r.socket = tcp
	go r.accept(tcp)
	return r, nil
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

// Redirect lets new connections go elsewhere.
func (r *Relay) Redirect(to netip.AddrPort) { r.to.Store(&to) }

// Pass keeps the socket open for a program that this process executes; connections end with this one.
func (r *Relay) Pass() (State, error) {
	fd, err := sys.KeepOnExec(r.socket, true)
	return State{fd, *r.to.Load()}, err
}

// Take goes on with what Pass left.
func Take(s State) (*Relay, error) {
	file := os.NewFile(uintptr(s.FD), "relay")
	defer file.Close()
	return Serve(file, s.To)
}

// linger is how long connections may go on when their container has ended: for what is on its way.
const linger = time.Second

// Close takes no more connections. Those that exist have a second to end.
func (r *Relay) Close() error {
	close(r.done)
	err := r.socket.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	for conn := range r.conns {
		conn.SetDeadline(time.Now().Add(linger))
	}
	return err
}

// keep notes a connection, until forget.
func (r *Relay) keep(conn net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns[conn] = struct{}{}
	select {
	case <-r.done:
		conn.SetDeadline(time.Now().Add(linger))
	default:
	}
}

func (r *Relay) forget(conn net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, conn)
	conn.Close()
}

// accept takes connections in until the relay is closed.
func (r *Relay) accept(l *net.TCPListener) {
	for {
		conn, err := l.AcceptTCP()
		switch {
		case err == nil:
			go r.carry(conn)
		case errors.Is(err, net.ErrClosed):
			return
		default: // out of descriptors, most likely: until some are free
			select {
			case <-r.done:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
}

// carry passes bytes both ways until both have ended. The kernel moves them (splice(2)).
func (r *Relay) carry(client *net.TCPConn) {
	r.keep(client)
	defer r.forget(client)
	server, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(*r.to.Load()))
	if err != nil {
		client.SetLinger(0) // the client is told as by a closed port
		return
	}
	r.keep(server)
	defer r.forget(server)
	var back sync.WaitGroup
	back.Go(func() { stream(client, server) })
	stream(server, client)
	back.Wait()
}

// stream copies one way, and passes the end on. After a failure nothing more can come the other way either.
func stream(to, from *net.TCPConn) {
	if _, err := to.ReadFrom(from); err != nil {
		to.Close()
		from.Close()
		return
	}
	to.CloseWrite()
}
