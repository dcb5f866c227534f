package relay

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// silence is how long a client may say nothing before it counts as a new one, as conntrack has it.
	silence = 90 * time.Second
	// crowd is how many clients of one port are known at once; packets of more are dropped.
	crowd = 1024

	largestDatagram = 1 << 16
)

// datagrams passes packets on, from a socket of its own for each client, so that answers find back.
func (r *Relay) datagrams(host *net.UDPConn) {
	var mu sync.Mutex
	clients := map[netip.AddrPort]*net.UDPConn{}
	buffer := make([]byte, largestDatagram)
	for {
		n, from, err := host.ReadFromUDPAddrPort(buffer)
		if errors.Is(err, net.ErrClosed) || r.ctx.Err() != nil {
			return
		}
		if err != nil {
			continue
		}
		mu.Lock()
		server, known := clients[from]
		full := len(clients) >= crowd
		mu.Unlock()
		if !known {
			if full {
				continue
			}
			if server, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(r.to.Load().address)); err != nil {
				continue
			}
			mu.Lock()
			clients[from] = server
			mu.Unlock()
			if !r.note(server) {
				return
			}
			go func() {
				r.answers(host, server, from)
				mu.Lock()
				delete(clients, from)
				mu.Unlock()
				r.forget(server)
			}()
		}
		server.SetReadDeadline(time.Now().Add(silence))
		server.Write(buffer[:n])
	}
}

// note keeps a socket for Close to find; false when that has been.
func (r *Relay) note(conn *net.UDPConn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.others[conn] = struct{}{}
	if r.closed {
		conn.Close()
	}
	return !r.closed
}

func (r *Relay) forget(conn *net.UDPConn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.others, conn)
	conn.Close()
}

// answers passes packets back to one client, until nobody has said anything for a while.
func (r *Relay) answers(host, server *net.UDPConn, client netip.AddrPort) {
	buffer := make([]byte, largestDatagram)
	for {
		n, err := server.Read(buffer)
		if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
			return
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // nobody listens there yet: the client may try again
		}
		if _, err := host.WriteToUDPAddrPort(buffer[:n], client); err != nil {
			return
		}
		server.SetReadDeadline(time.Now().Add(silence))
	}
}
