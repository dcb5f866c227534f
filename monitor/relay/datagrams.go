package relay

import (
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
		select {
		case <-r.done:
			return
		default:
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
			if server, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(*r.to.Load())); err != nil {
				continue
			}
			mu.Lock()
			clients[from] = server
			mu.Unlock()
			r.keep(server)
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

// answers passes packets back to one client, until nobody has said anything for a while.
func (r *Relay) answers(host, server *net.UDPConn, client netip.AddrPort) {
	buffer := make([]byte, largestDatagram)
	for {
		n, err := server.Read(buffer)
		if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
			return
		}
		select {
		case <-r.done:
			return
		default:
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
