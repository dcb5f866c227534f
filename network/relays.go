package network

import (
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
)

// Relay is a published port for clients that the kernel cannot lead to the container: those that come by
// IPv6 when it has IPv4 alone, or the other way round, and those that call ::1. Somebody has to accept on its socket and pass the
// bytes on.
type Relay struct {
	Proto string
	Host  netip.AddrPort
	To    netip.AddrPort
	// Socket is bound to Host, and the caller's to close. Nil: it is taken, by who relays since before
	// this engine came.
	Socket *os.File
}

// Relays lists those of a container's attached endpoints.
func (c *Controller) Relays(containerID string) ([]Relay, error) {
	var all []Relay
	for _, e := range c.book.attached(containerID) {
		for _, p := range e.Ports {
			if !e.relayed(p) {
				continue
			}
			socket, err := c.ports.socket(p)
			if err != nil {
				return all, fmt.Errorf("relay port %d of container %s: %w", p.HostPort, e.ContainerName, err)
			}
			all = append(all, Relay{
				Proto: p.Proto, Host: netip.AddrPortFrom(p.HostIP, p.HostPort),
				To: netip.AddrPortFrom(e.leadsTo(p.HostIP), p.ContainerPort), Socket: socket,
			})
		}
	}
	return all, nil
}

// Relayed tells whether any of the endpoint's ports may need a relay.
func (e Endpoint) Relayed() bool { return slices.ContainsFunc(e.Ports, e.relayed) }

// relayed tells whether clients of the port may need a relay: all of IPv6 may be ::1, and IPv4 leads
// nowhere when the endpoint has IPv6 alone.
func (e Endpoint) relayed(p Port) bool {
	return relayable(p.Proto) && (p.HostIP.Is6() || !e.IPv4.IsValid())
}

func relayable(proto string) bool { return proto == "tcp" || proto == "udp" }

// leadsTo is the endpoint's address for clients of a host address: of the same family if it has one.
func (e Endpoint) leadsTo(host netip.Addr) netip.Addr {
	addr := e.addrFor(host)
	switch {
	case addr.IsValid():
		return addr
	case e.IPv4.IsValid():
		return e.IPv4.Addr()
	}
	return e.IPv6.Addr()
}

// hasIPv6 tells whether the host speaks IPv6, at least with itself.
func hasIPv6() bool {
	disabled, err := os.ReadFile("/proc/sys/net/ipv6/conf/lo/disable_ipv6")
	return err == nil && strings.TrimSpace(string(disabled)) == "0"
}

// socket returns a copy of the socket that holds a port; one that an earlier engine left without is bound
// again, if it is free.
func (t *portTable) socket(p Port) (*os.File, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, h := range t.held[portKey{p.Proto, p.HostPort}] {
		if h.addr != p.HostIP {
			continue
		}
		if h.fd < 0 {
			fd, err := bind(p)
			if err != nil {
				return nil, nil // who has it is the relay of before, or else it was warned of
			}
			h.fd = fd
		}
		return duplicate(h.fd)
	}
	return nil, fs.ErrNotExist
}

func duplicate(fd int) (*os.File, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	copied, err := syscall.Dup(fd)
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	syscall.CloseOnExec(copied)
	return os.NewFile(uintptr(copied), "port"), nil
}
