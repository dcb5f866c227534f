package network

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"

	"davit/network/firewall"
	"davit/oci/errdefs"
)

// ErrPortTaken is the cause when a host port is published by another container, or bound by a process of
// the host.
var ErrPortTaken = errors.New("port taken")

// portTable knows which host ports are published. For each it holds a socket that is bound and never
// listens, so that no process of the host takes a port whose packets it would not get. The sockets are
// the engine's and end with it; the next engine binds them again where it can, and the table's own
// records (in the endpoint files) keep ports from being published twice whatever happens.
type portTable struct {
	log  *slog.Logger
	mu   sync.Mutex
	held map[portKey][]*hold
	last uint16 // the free port given last
}

type portKey struct {
	proto string
	port  uint16
}

type hold struct {
	addr netip.Addr
	fd   int // -1: without socket
}

func newPortTable(log *slog.Logger) *portTable {
	return &portTable{log: log, held: map[portKey][]*hold{}}
}

// protocols by name: IP protocol number and type of socket.
func protocol(name string) (number byte, kind int, err error) {
	switch name {
	case "tcp":
		return syscall.IPPROTO_TCP, syscall.SOCK_STREAM, nil
	case "udp":
		return syscall.IPPROTO_UDP, syscall.SOCK_DGRAM, nil
	case "sctp":
		return syscall.IPPROTO_SCTP, syscall.SOCK_STREAM, nil
	}
	return 0, 0, errdefs.Invalid("invalid proto: %s", name)
}

// publish reserves host ports for an endpoint's requests, all or none.
func (t *portTable) publish(e Endpoint, requests []PortRequest, otherwise netip.Addr) (ports []Port, err error) {
	defer func() {
		if err != nil {
			t.release(ports)
			ports = nil
		}
	}()
	for _, r := range requests {
		if _, _, err := protocol(r.Proto); err != nil {
			return ports, err
		}
		addrs := hostAddrs(e, r, otherwise)
		if len(addrs) == 0 {
			continue
		}
		port, err := t.pick(e, r, addrs)
		if err != nil {
			return ports, err
		}
		for _, addr := range addrs {
			ports = append(ports, Port{ContainerPort: r.ContainerPort, Proto: r.Proto, HostIP: addr, HostPort: port})
		}
	}
	return ports, nil
}

// hostAddrs are the host addresses to publish on: the one asked for, or all of the families that the
// endpoint can be reached by.
func hostAddrs(e Endpoint, r PortRequest, otherwise netip.Addr) []netip.Addr {
	host := r.HostIP
	if !host.IsValid() {
		host = otherwise
	}
	var addrs []netip.Addr
	reachable := e.IPv4.IsValid() || e.IPv6.IsValid() && relayable(r.Proto)
	if reachable && (!host.IsValid() || host.Is4()) {
		addrs = append(addrs, netip.IPv4Unspecified())
	}
	// A default of 0.0.0.0 stands for all addresses, IPv6's included.
	reachable = e.IPv6.IsValid() || e.IPv4.IsValid() && relayable(r.Proto) && hasIPv6()
	if reachable && (!host.IsValid() || host.Is6() || !r.HostIP.IsValid() && host.IsUnspecified()) {
		addrs = append(addrs, netip.IPv6Unspecified())
	}
	if host.IsValid() && !host.IsUnspecified() {
		for i := range addrs {
			addrs[i] = host
		}
	}
	return addrs
}

// pick reserves one port number on all addresses: the one asked for, the first free of a range, or any.
func (t *portTable) pick(e Endpoint, r PortRequest, addrs []netip.Addr) (uint16, error) {
	if r.HostPort == 0 {
		return t.pickFree(e, r, addrs)
	}
	last := max(r.HostPort, r.HostPortEnd)
	for port := r.HostPort; ; port++ {
		err := t.take(e, r, addrs, port)
		if err == nil || port == last {
			return port, err
		}
	}
}

func (t *portTable) pickFree(e Endpoint, r PortRequest, addrs []netip.Addr) (uint16, error) {
	low, high := ephemeral()
	var err error
	for range int(high) - int(low) + 1 {
		port := t.next(low, high)
		if err = t.take(e, r, addrs, port); !errors.Is(err, ErrPortTaken) {
			return port, err
		}
	}
	return 0, errdefs.New(errdefs.ErrExhausted, "all ports are allocated: %w", err)
}

func (t *portTable) next(low, high uint16) uint16 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last < low || t.last >= high {
		t.last = low
	} else {
		t.last++
	}
	return t.last
}

// ephemeral is the range of ports that the host gives to those who do not care: ip(7).
func ephemeral() (low, high uint16) {
	content, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err == nil {
		if _, err := fmt.Sscan(string(content), &low, &high); err == nil && low <= high && low > 0 {
			return low, high
		}
	}
	return 32768, 60999
}

// take reserves one port number on all addresses or on none.
func (t *portTable) take(e Endpoint, r PortRequest, addrs []netip.Addr, port uint16) error {
	var taken []Port
	for _, addr := range addrs {
		p := Port{ContainerPort: r.ContainerPort, Proto: r.Proto, HostIP: addr, HostPort: port}
		if err := t.takeOne(e, p); err != nil {
			t.release(taken)
			return fmt.Errorf("driver failed programming external connectivity on endpoint %s (%s): %w", e.ContainerName, e.ID, err)
		}
		taken = append(taken, p)
	}
	return nil
}

func (t *portTable) takeOne(e Endpoint, p Port) error {
	h := &hold{addr: p.HostIP, fd: -1}
	if !t.reserve(p, h) {
		return because(ErrPortTaken, fmt.Errorf("Bind for %s failed: port is already allocated", netip.AddrPortFrom(p.HostIP, p.HostPort)))
	}
	fd, err := bind(p)
	if err == nil {
		t.mu.Lock()
		h.fd = fd
		t.mu.Unlock()
		return nil
	}
	t.release([]Port{p})
	to := netip.AddrPortFrom(e.leadsTo(p.HostIP), p.ContainerPort)
	err = fmt.Errorf("failed to bind host port for %s:%d:%s/%s: %w", hostText(p.HostIP), p.HostPort, to, p.Proto, err)
	if errors.Is(err, syscall.EADDRINUSE) {
		return because(ErrPortTaken, err)
	}
	return err
}

func hostText(a netip.Addr) string {
	if a.Is6() {
		return "[" + a.String() + "]"
	}
	return a.String()
}

// reserve enters a hold unless one of the same family is in its way.
func (t *portTable) reserve(p Port, h *hold) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := portKey{p.Proto, p.HostPort}
	for _, other := range t.held[key] {
		if other.addr.Is4() == h.addr.Is4() && (other.addr == h.addr || other.addr.IsUnspecified() || h.addr.IsUnspecified()) {
			return false
		}
	}
	t.held[key] = append(t.held[key], h)
	return true
}

// release gives ports back; those not held are no error.
func (t *portTable) release(ports []Port) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range ports {
		key := portKey{p.Proto, p.HostPort}
		rest := t.held[key][:0]
		for _, h := range t.held[key] {
			if h.addr == p.HostIP {
				h.close()
			} else {
				rest = append(rest, h)
			}
		}
		if t.held[key] = rest; len(rest) == 0 {
			delete(t.held, key)
		}
	}
}

// restore takes the ports of an endpoint of an earlier engine, with a socket where one can be had. It
// returns those that are the endpoint's.
func (t *portTable) restore(e Endpoint) (own []Port) {
	for _, p := range e.Ports {
		h := &hold{addr: p.HostIP, fd: -1}
		if !t.reserve(p, h) {
			t.log.Warn("host port is published twice", "port", p.HostPort, "proto", p.Proto, "container", e.ContainerID)
			continue
		}
		own = append(own, p)
		if e.relayed(p) {
			continue // the monitor has it; Relays looks
		}
		fd, err := bind(p)
		if err != nil {
			t.log.Warn("a process of the host has taken a published port", "port", p.HostPort, "proto", p.Proto, "container", e.ContainerID, "error", err)
			continue
		}
		h.fd = fd
	}
	return own
}

func (t *portTable) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, holds := range t.held {
		for _, h := range holds {
			h.close()
		}
	}
}

func (h *hold) close() {
	if h.fd >= 0 {
		syscall.Close(h.fd)
		h.fd = -1
	}
}

// bind binds a socket to the host's end of a port, as a server would that tolerates old connections in
// TIME_WAIT, and then allows no other. It returns -1 for a protocol that the host has no sockets of.
func bind(p Port) (fd int, err error) {
	number, kind, err := protocol(p.Proto)
	if err != nil {
		return -1, err
	}
	family := syscall.AF_INET
	if p.HostIP.Is6() {
		family = syscall.AF_INET6
	}
	fd, err = syscall.Socket(family, kind|syscall.SOCK_CLOEXEC, int(number))
	if errors.Is(err, syscall.EPROTONOSUPPORT) || errors.Is(err, syscall.ESOCKTNOSUPPORT) {
		return -1, nil
	}
	if err != nil {
		return -1, err
	}
	defer func() {
		if err != nil {
			syscall.Close(fd)
		}
	}()
	set := func(level, option, value int) error { return syscall.SetsockoptInt(fd, level, option, value) }
	if family == syscall.AF_INET6 {
		if err := set(syscall.IPPROTO_IPV6, syscall.IPV6_V6ONLY, 1); err != nil {
			return -1, err
		}
	}
	if kind == syscall.SOCK_DGRAM {
		// Datagrams that no rule caught are not read by anybody: keep few. The option tolerates nothing
		// here but another such socket, so it is not set.
		return fd, errors.Join(set(syscall.SOL_SOCKET, syscall.SO_RCVBUF, 1), syscall.Bind(fd, sockaddr(p)))
	}
	if err := set(syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return -1, err
	}
	if err := syscall.Bind(fd, sockaddr(p)); err != nil {
		return -1, err
	}
	return fd, set(syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 0)
}

func sockaddr(p Port) syscall.Sockaddr {
	if p.HostIP.Is4() {
		return &syscall.SockaddrInet4{Port: int(p.HostPort), Addr: p.HostIP.As4()}
	}
	return &syscall.SockaddrInet6{Port: int(p.HostPort), Addr: p.HostIP.As16()}
}

// addrFor is the endpoint's address of the host address's family.
func (e Endpoint) addrFor(host netip.Addr) netip.Addr {
	if host.Is6() {
		return e.IPv6.Addr()
	}
	return e.IPv4.Addr()
}

// mappings are the endpoint's ports as the firewall takes them; none before it is attached.
func (e Endpoint) mappings() []firewall.Mapping {
	if e.Veth == "" {
		return nil
	}
	var all []firewall.Mapping
	for _, p := range e.Ports {
		number, _, err := protocol(p.Proto)
		if to := e.addrFor(p.HostIP); err == nil && to.IsValid() {
			all = append(all, firewall.Mapping{Proto: number, HostIP: p.HostIP, HostPort: p.HostPort, To: netip.AddrPortFrom(to, p.ContainerPort)})
		}
	}
	return all
}

// caused is an error with a further class that its text does not show.
type caused struct{ class, err error }

func because(class, err error) error { return caused{class, err} }

func (c caused) Error() string   { return strings.TrimSpace(c.err.Error()) }
func (c caused) Unwrap() []error { return []error{c.class, c.err} }
