// Package dns is the name server of user-defined networks, on 127.0.0.11 port 53 inside each container's
// network namespace. Names and addresses of containers are answered from a Zone; all other questions go
// to upstream servers, asked from the engine's own namespace, and their answers are passed on untouched.
//
// The sockets belong to the container's namespace and keep it alive: close the Server when its container
// ends.
package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Zone knows the containers that one container can see. Names come without trailing dot.
type Zone interface {
	// Addrs returns the addresses of a name, and whether the name is known at all.
	Addrs(name string) ([]netip.Addr, bool)
	// Name returns the name of an address; empty when it is none of the zone's.
	Name(addr netip.Addr) string
}

// Upstream answers the questions that the zone does not; nil stands for nobody. It gets and returns
// whole messages.
type Upstream interface {
	Ask(ctx context.Context, network string, query []byte) ([]byte, error)
}

// Sockets are where a server listens.
type Sockets struct {
	udp net.PacketConn
	tcp net.Listener
}

// Listen opens the sockets in the current thread's network namespace, whose loopback device must be up.
func Listen() (Sockets, error) {
	address := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 11}), 53)
	udp, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(address))
	if err != nil {
		return Sockets{}, fmt.Errorf("open name server: %w", err)
	}
	tcp, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(address))
	if err != nil {
		return Sockets{}, errors.Join(fmt.Errorf("open name server: %w", err), udp.Close())
	}
	return Sockets{udp, tcp}, nil
}

// Close closes the sockets; without any it does nothing.
func (s Sockets) Close() error {
	if s.udp == nil {
		return nil
	}
	return errors.Join(s.udp.Close(), s.tcp.Close())
}

// Limits of one server.
const (
	maxMessage  = 4096             // of a question over UDP; answers may be larger
	maxPending  = 128              // questions upstream at the same time
	idleTimeout = 10 * time.Second // of a TCP connection
)

// Server answers one container.
type Server struct {
	sockets  Sockets
	zone     Zone
	upstream Upstream
	log      *slog.Logger
	pending  chan struct{}
	ctx      context.Context
	cancel   context.CancelFunc
	work     sync.WaitGroup
}

// Serve starts a server. It ends with Close.
func Serve(sockets Sockets, zone Zone, upstream Upstream, log *slog.Logger) *Server {
	s := &Server{sockets: sockets, zone: zone, upstream: upstream, log: log, pending: make(chan struct{}, maxPending)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.work.Go(s.serveUDP)
	s.work.Go(s.serveTCP)
	return s
}

// Close ends the server and waits for what it started.
func (s *Server) Close() error {
	s.cancel()
	err := s.sockets.Close()
	s.work.Wait()
	return err
}

func (s *Server) serveUDP() {
	buf := make([]byte, maxMessage)
	for {
		n, from, err := s.sockets.udp.ReadFrom(buf)
		if err != nil {
			if s.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			continue // an ICMP error of an earlier answer
		}
		s.answerUDP(buf[:n], from)
	}
}

// answerUDP answers at once from the zone, or hands the question to a goroutine that asks upstream. With
// too many pending the question is dropped, and the asker's resolver will repeat it.
func (s *Server) answerUDP(query []byte, from net.Addr) {
	if reply := s.local(query); reply != nil {
		s.send(reply, from)
		return
	}
	select {
	case s.pending <- struct{}{}:
	default:
		return
	}
	query = append([]byte(nil), query...)
	s.work.Go(func() {
		defer func() { <-s.pending }()
		s.send(s.forward("udp", query), from)
	})
}

func (s *Server) send(reply []byte, to net.Addr) {
	if len(reply) == 0 {
		return
	}
	if _, err := s.sockets.udp.WriteTo(reply, to); err != nil && s.ctx.Err() == nil {
		s.log.Debug("send DNS answer", "to", to, "error", err)
	}
}

func (s *Server) serveTCP() {
	for {
		conn, err := s.sockets.tcp.Accept()
		if err != nil {
			if s.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		s.work.Go(func() { s.converse(conn) })
	}
}

// converse answers the questions of one TCP connection, one after another.
func (s *Server) converse(conn net.Conn) {
	stop := context.AfterFunc(s.ctx, func() { conn.Close() })
	defer func() {
		if stop() {
			conn.Close()
		}
	}()
	for {
		if err := conn.SetDeadline(time.Now().Add(idleTimeout)); err != nil {
			return
		}
		query, err := readFramed(conn)
		if err != nil {
			return
		}
		reply := s.local(query)
		if reply == nil {
			reply = s.forward("tcp", query)
		}
		if len(reply) == 0 || writeFramed(conn, reply) != nil {
			return
		}
	}
}

// forward asks upstream; without an answer the reply is a server failure.
func (s *Server) forward(network string, query []byte) []byte {
	if s.upstream == nil {
		return fail(query, dnsmessage.RCodeServerFailure)
	}
	reply, err := s.upstream.Ask(s.ctx, network, query)
	if err != nil {
		s.log.Debug("ask upstream DNS", "error", err)
		return fail(query, dnsmessage.RCodeServerFailure)
	}
	return reply
}

// readFramed and writeFramed put a message on a stream: RFC 1035, 4.2.2.
func readFramed(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	message := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(r, message)
	return message, err
}

func writeFramed(w io.Writer, message []byte) error {
	framed := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(message)), uint16(len(message)))
	_, err := w.Write(append(framed, message...))
	return err
}
