package network

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"

	"davit/network/dns"
)

// zone is what one container can see: the attached endpoints of its networks that have name service.
type zone struct {
	book        *book
	containerID string
}

// neighbours calls f for each endpoint that the container sees, with the container's own endpoint in the
// same network, until f returns false.
func (z zone) neighbours(f func(own, other *Endpoint) bool) {
	z.book.mu.RLock()
	defer z.book.mu.RUnlock()
	box, ok := z.book.sandboxes[z.containerID]
	if !ok {
		return
	}
	for _, own := range box.endpoints {
		s, ok := z.book.segments[own.NetworkID]
		if !ok || !s.NameService() {
			continue
		}
		for _, other := range s.endpoints {
			if other.Veth != "" && !f(own, other) {
				return
			}
		}
	}
}

// Addrs implements dns.Zone. A name is a container's name, alias or short id (a whole one is too
// long for a DNS label), alone or with the name
// of the network behind a dot.
func (z zone) Addrs(name string) ([]netip.Addr, bool) {
	var found []netip.Addr
	z.neighbours(func(own, other *Endpoint) bool {
		if other.answersTo(own.target(name)) {
			for _, p := range []netip.Prefix{other.IPv4, other.IPv6} {
				if p.IsValid() {
					found = append(found, p.Addr())
				}
			}
		}
		return true
	})
	return found, len(found) > 0
}

// target resolves an alias that only this endpoint's container has.
func (e *Endpoint) target(name string) string {
	for alias, container := range e.Links {
		if strings.EqualFold(alias, name) {
			return container
		}
	}
	return name
}

func (e *Endpoint) answersTo(name string) bool {
	n := len(name) - len(e.NetworkName)
	if n > 1 && name[n-1] == '.' && strings.EqualFold(name[n:], e.NetworkName) && e.answersToPlain(name[:n-1]) {
		return true
	}
	return e.answersToPlain(name)
}

func (e *Endpoint) answersToPlain(name string) bool {
	return slices.ContainsFunc(e.DNSNames, func(own string) bool { return strings.EqualFold(own, name) })
}

// Name implements dns.Zone: the container's first name and the network's, as "web.shop".
func (z zone) Name(addr netip.Addr) string {
	name := ""
	z.neighbours(func(_, other *Endpoint) bool {
		if (other.IPv4.Addr() == addr || other.IPv6.Addr() == addr) && len(other.DNSNames) > 0 {
			name = other.DNSNames[0] + "." + other.NetworkName
		}
		return name == ""
	})
	return name
}

// upstream asks outside, unless all networks of the container are internal: their containers shall not
// get word out, by names either.
type upstream struct {
	book        *book
	containerID string
	servers     dns.Servers
}

// Ask implements dns.Upstream.
func (u upstream) Ask(ctx context.Context, network string, query []byte) ([]byte, error) {
	if !u.allowed() {
		return nil, errors.New("all networks of the container are internal")
	}
	return u.servers.Ask(ctx, network, query)
}

func (u upstream) allowed() bool {
	u.book.mu.RLock()
	defer u.book.mu.RUnlock()
	box, ok := u.book.sandboxes[u.containerID]
	return ok && slices.ContainsFunc(box.endpoints, func(e *Endpoint) bool {
		s, ok := u.book.segments[e.NetworkID]
		return ok && !s.Internal
	})
}

// servers returns how to find the servers to ask: a container's own, the engine's, or the host's of the
// moment. The questions are asked from the host's namespace, where its loopback servers work; the name
// server's own address is left out.
func (c *Controller) servers(own []netip.Addr) func() []netip.Addr {
	return func() []netip.Addr {
		for _, chosen := range [][]netip.Addr{own, c.opts.DNS} {
			if len(chosen) > 0 {
				return chosen
			}
		}
		content, err := os.ReadFile(c.opts.ResolvConf)
		if err != nil {
			c.log.Warn("read the host's name servers", "error", err)
			return nil
		}
		return slices.DeleteFunc(parseResolv(content).servers, func(a netip.Addr) bool { return a == ServerEmbedded() })
	}
}
