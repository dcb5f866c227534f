package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"davit/kernel/netlink"
	"davit/network/firewall"
)

// Handover moves what the world knows a container by to another one.
type Handover struct {
	From, To string // container ids; From may have no endpoints any more
	// The names that each is to have from now on, one request for each network: NetworkID, ContainerName,
	// Aliases and DNSNames count. Ports of ToNames are what To is to publish, on the endpoint they stand at.
	FromNames, ToNames []EndpointRequest
}

// HandOver gives the names and published ports of one running container to another, whose endpoints
// are attached. Ports change in one transaction of the firewall: no connection is refused for it.
// Connections that exist stay where they are; flows of datagrams follow. A port of a number that From
// happened to get stays the same number. Done twice it is as good as once.
func (c *Controller) HandOver(ctx context.Context, h Handover) error {
	h.FromNames, h.ToNames = c.identified(h.FromNames), c.identified(h.ToNames)
	old, now := c.book.of(h.From), c.book.of(h.To)
	before := portsOf(append(slices.Clone(old), now...))
	fresh, err := c.assign(now, before, h.ToNames)
	if err != nil {
		return err
	}
	after := portsOf(now)
	if err := c.rules.Replace(mappingsOf(append(old, c.book.of(h.To)...)), mappingsOf(now)); err != nil {
		c.ports.release(fresh)
		return fmt.Errorf("move ports to container %s: %w", h.To, err)
	}
	for i := range old {
		old[i].Ports, old[i].TookPorts = nil, false
	}
	rename(old, h.FromNames)
	rename(now, h.ToNames)
	c.book.replace(append(now, old...))
	c.ports.release(slices.DeleteFunc(before, func(p Port) bool { return slices.Contains(after, p) }))
	// The taker's file comes first: ports that two claim are sorted out at the next start, ports that nobody
	// claims would be lost.
	return errors.Join(
		netlink.FlushConntrack(datagrams(mappingsOf(now))),
		c.files.save(h.To, c.book.attached(h.To)),
		c.files.save(h.From, c.book.attached(h.From)),
	)
}

// LetGo forgets the connections to a container that it has never answered: when their clients ask again,
// they get to the one that publishes the port by then. It is for the end of a container that has handed
// over, not for the handover: an answer may be on its way.
func (c *Controller) LetGo(containerID string) error {
	var flows []netlink.Flow
	for _, e := range c.book.attached(containerID) {
		for _, addr := range []netip.Prefix{e.IPv4, e.IPv6} {
			if addr.IsValid() {
				flows = append(flows, netlink.Flow{Proto: syscall.IPPROTO_TCP, Addr: addr.Addr(), Unanswered: true})
			}
		}
	}
	return netlink.FlushConntrack(flows)
}

// assign gives endpoints their ports: those held that are asked for, and new ones for the rest, which it
// returns too.
func (c *Controller) assign(now []Endpoint, held []Port, requests []EndpointRequest) (fresh []Port, err error) {
	for i := range now {
		e := &now[i]
		e.Ports = nil
		q, ok := requestFor(requests, *e)
		n, err := c.book.get(e.NetworkID)
		if !ok || err != nil || n.Internal || e.Veth == "" {
			continue
		}
		missing := slices.DeleteFunc(slices.Clone(q.Ports), func(r PortRequest) bool {
			return slices.ContainsFunc(held, r.servedBy)
		})
		more, err := c.ports.publish(*e, missing, n.hostIP(c.opts.HostIP))
		if err != nil {
			c.ports.release(fresh)
			return nil, err
		}
		fresh = append(fresh, more...)
		e.Ports, e.TookPorts = more, true
		for _, p := range held {
			if slices.ContainsFunc(q.Ports, func(r PortRequest) bool { return r.servedBy(p) }) {
				e.Ports = append(e.Ports, p)
			}
		}
	}
	return fresh, nil
}

// servedBy says whether a published port is one for the request.
func (r PortRequest) servedBy(p Port) bool {
	return r.ContainerPort == p.ContainerPort && r.Proto == p.Proto
}

// identified returns the requests with the ids of their networks.
func (c *Controller) identified(requests []EndpointRequest) []EndpointRequest {
	requests = slices.Clone(requests)
	for i := range requests {
		if n, err := c.book.get(requests[i].NetworkID); err == nil {
			requests[i].NetworkID = n.ID
		}
	}
	return requests
}

func requestFor(requests []EndpointRequest, e Endpoint) (EndpointRequest, bool) {
	i := slices.IndexFunc(requests, func(q EndpointRequest) bool { return q.NetworkID == e.NetworkID })
	if i < 0 {
		return EndpointRequest{}, false
	}
	return requests[i], true
}

// rename gives endpoints the names that the requests have.
func rename(endpoints []Endpoint, requests []EndpointRequest) {
	for i := range endpoints {
		e := &endpoints[i]
		if q, ok := requestFor(requests, *e); ok {
			e.ContainerName, e.Aliases, e.DNSNames = q.ContainerName, slices.Clone(q.Aliases), slices.Clone(q.names())
		}
	}
}

func portsOf(endpoints []Endpoint) []Port {
	var all []Port
	for _, e := range endpoints {
		all = append(all, e.Ports...)
	}
	return all
}

func mappingsOf(endpoints []Endpoint) []firewall.Mapping {
	var all []firewall.Mapping
	for _, e := range endpoints {
		all = append(all, e.mappings()...)
	}
	return all
}

// age orders endpoints by how old their claim to ports is.
func age(e Endpoint) int {
	if e.TookPorts {
		return 0
	}
	return 1
}

// replace puts endpoints in the place of those with the same id, all at the same moment: a name server
// finds a name at the one container or the other.
func (b *book) replace(endpoints []Endpoint) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range endpoints {
		if box, ok := b.sandboxes[e.ContainerID]; ok {
			for _, kept := range box.endpoints {
				if kept.ID == e.ID {
					*kept = e.clone()
				}
			}
		}
	}
}
