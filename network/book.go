package network

import (
	"cmp"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"davit/network/dns"
	"davit/network/firewall"
	"davit/network/ipam"
	"davit/oci/errdefs"
)

// segment is a network with what is in use of it.
type segment struct {
	Network
	spaces    []*ipam.Space // one for each of Subnets
	endpoints map[string]*Endpoint
}

// sandbox is what a container has.
type sandbox struct {
	endpoints []*Endpoint // by precedence for the default route
	server    *dns.Server
}

// book is the controller's memory: which networks, endpoints and name servers there are. It does no I/O.
// Values that leave it are copies.
type book struct {
	mu        sync.RWMutex
	segments  map[string]*segment // by network id
	sandboxes map[string]*sandbox // by container id
}

func newBook() *book {
	return &book{segments: map[string]*segment{}, sandboxes: map[string]*sandbox{}}
}

// newSegment makes the address spaces of a network, with gateways and auxiliary addresses in use.
func newSegment(n Network) (*segment, error) {
	s := &segment{Network: n, endpoints: map[string]*Endpoint{}}
	for _, sub := range n.Subnets {
		space, err := ipam.NewSpace(sub.Subnet, sub.Range)
		if err != nil {
			return nil, err
		}
		for _, addr := range append(slices.Collect(maps.Values(sub.Aux)), sub.Gateway) {
			if !addr.IsValid() {
				continue
			}
			if err := space.Take(addr); err != nil {
				return nil, err
			}
		}
		s.spaces = append(s.spaces, space)
	}
	return s, nil
}

// add enters a network. Its name and subnets must be free.
func (b *book) add(n Network) error {
	s, err := newSegment(n)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, other := range b.segments {
		if other.Name == n.Name {
			return errdefs.Conflict("network with name %s already exists", n.Name)
		}
		if n.Bridge != "" && other.Bridge == n.Bridge {
			return errdefs.Conflict("network %s: bridge name %s is already used by network %s", n.Name, n.Bridge, other.Name)
		}
		if overlap(other.Subnets, n.Subnets) {
			return errdefs.Forbidden("invalid pool request: Pool overlaps with other one on this address space")
		}
	}
	b.segments[n.ID] = s
	return nil
}

func overlap(a, b []Subnet) bool {
	return slices.ContainsFunc(a, func(x Subnet) bool {
		return slices.ContainsFunc(b, func(y Subnet) bool { return x.Subnet.Overlaps(y.Subnet) })
	})
}

// drop takes out a network that has no endpoints.
func (b *book) drop(id string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, ok := b.segments[id]
	if ok && len(s.endpoints) > 0 {
		return errdefs.Forbidden("error while removing network: network %s id %s has active endpoints", s.Name, s.ID)
	}
	delete(b.segments, id)
	return nil
}

// find finds a network by id, name, or unambiguous prefix of an id. The caller holds the lock.
func (b *book) find(nameOrID string) (*segment, error) {
	if s, ok := b.segments[nameOrID]; ok {
		return s, nil
	}
	var matches []*segment
	for _, s := range b.segments {
		if s.Name == nameOrID {
			return s, nil
		}
		if nameOrID != "" && strings.HasPrefix(s.ID, nameOrID) {
			matches = append(matches, s)
		}
	}
	switch len(matches) {
	case 1:
		return matches[0], nil
	case 0:
		return nil, errdefs.NotFound("network %s not found", nameOrID)
	}
	return nil, errdefs.Invalid("network %s is ambiguous (%d matches found based on ID prefix)", nameOrID, len(matches))
}

func (b *book) get(nameOrID string) (Network, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	s, err := b.find(nameOrID)
	if err != nil {
		return Network{}, err
	}
	return s.Network.clone(), nil
}

func (b *book) networks() []Network {
	b.mu.RLock()
	defer b.mu.RUnlock()
	all := make([]Network, 0, len(b.segments))
	for _, s := range b.segments {
		all = append(all, s.Network.clone())
	}
	slices.SortFunc(all, func(x, y Network) int { return cmp.Compare(x.Name, y.Name) })
	return all
}

func (n Network) clone() Network {
	n.Subnets = slices.Clone(n.Subnets)
	for i := range n.Subnets {
		n.Subnets[i].Aux = maps.Clone(n.Subnets[i].Aux)
	}
	n.IPAMOpts, n.Options, n.Labels = maps.Clone(n.IPAMOpts), maps.Clone(n.Options), maps.Clone(n.Labels)
	return n
}

func (e Endpoint) clone() Endpoint {
	e.Aliases, e.DNSNames = slices.Clone(e.Aliases), slices.Clone(e.DNSNames)
	e.MAC, e.Ports, e.DNS = slices.Clone(e.MAC), slices.Clone(e.Ports), slices.Clone(e.DNS)
	e.Links = maps.Clone(e.Links)
	return e
}

func (b *book) enterLocked(e Endpoint) {
	kept := e.clone()
	if s, ok := b.segments[e.NetworkID]; ok {
		s.endpoints[e.ID] = &kept
	}
	box, ok := b.sandboxes[e.ContainerID]
	if !ok {
		box = &sandbox{}
		b.sandboxes[e.ContainerID] = box
	}
	box.endpoints = append(box.endpoints, &kept)
	slices.SortStableFunc(box.endpoints, func(x, y *Endpoint) int {
		return cmp.Or(cmp.Compare(y.GwPriority, x.GwPriority), cmp.Compare(x.NetworkName, y.NetworkName))
	})
}

// restore adds an endpoint of an earlier engine, taking its addresses.
func (b *book) restore(e Endpoint) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, ok := b.segments[e.NetworkID]
	if !ok {
		return errdefs.NotFound("network %s not found", e.NetworkID)
	}
	for _, addr := range []netip.Prefix{e.IPv4, e.IPv6} {
		if !addr.IsValid() {
			continue
		}
		space := s.space(addr.Addr().Is6(), addr.Addr())
		if space == nil {
			return errdefs.Invalid("address %s is none of network %s", addr, s.Name)
		}
		if err := space.Take(addr.Addr()); err != nil {
			return err
		}
	}
	b.enterLocked(e)
	return nil
}

// update changes a container's endpoint in place and returns the new value.
func (b *book) update(containerID, endpointID string, change func(*Endpoint)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if box, ok := b.sandboxes[containerID]; ok {
		for _, e := range box.endpoints {
			if e.ID == endpointID {
				change(e)
			}
		}
	}
}

// leave takes out a container's endpoints that match, frees their addresses, and returns them. Without
// any left the container's name server is returned too, for the caller to close.
func (b *book) leave(containerID string, match func(*Endpoint) bool) ([]Endpoint, *dns.Server) {
	b.mu.Lock()
	defer b.mu.Unlock()
	box, ok := b.sandboxes[containerID]
	if !ok {
		return nil, nil
	}
	var gone []Endpoint
	box.endpoints = slices.DeleteFunc(box.endpoints, func(e *Endpoint) bool {
		if !match(e) {
			return false
		}
		gone = append(gone, *e)
		if s, ok := b.segments[e.NetworkID]; ok {
			delete(s.endpoints, e.ID)
			s.free(*e)
		}
		return true
	})
	if len(box.endpoints) > 0 {
		return gone, nil
	}
	delete(b.sandboxes, containerID)
	return gone, box.server
}

// of returns a container's endpoints, by precedence for the default route.
func (b *book) of(containerID string) []Endpoint {
	b.mu.RLock()
	defer b.mu.RUnlock()
	box, ok := b.sandboxes[containerID]
	if !ok {
		return nil
	}
	all := make([]Endpoint, len(box.endpoints))
	for i, e := range box.endpoints {
		all[i] = e.clone()
	}
	return all
}

// in returns a network's endpoints, ordered by container id.
func (b *book) in(networkID string) []Endpoint {
	b.mu.RLock()
	defer b.mu.RUnlock()
	s, ok := b.segments[networkID]
	if !ok {
		return nil
	}
	all := make([]Endpoint, 0, len(s.endpoints))
	for _, e := range s.endpoints {
		all = append(all, e.clone())
	}
	slices.SortFunc(all, func(x, y Endpoint) int { return cmp.Compare(x.ContainerID, y.ContainerID) })
	return all
}

// containers returns the ids of all containers with endpoints.
func (b *book) containers() []string {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return slices.Sorted(maps.Keys(b.sandboxes))
}

// mappings lists the published ports of all attached endpoints.
func (b *book) mappings() []firewall.Mapping {
	b.mu.RLock()
	defer b.mu.RUnlock()
	var all []firewall.Mapping
	for _, box := range b.sandboxes {
		for _, e := range box.endpoints {
			all = append(all, e.mappings()...)
		}
	}
	return all
}

// setServer notes a container's name server; false when it has one, or is gone.
func (b *book) setServer(containerID string, server *dns.Server) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	box, ok := b.sandboxes[containerID]
	if !ok || box.server != nil {
		return false
	}
	box.server = server
	return true
}

func (b *book) hasServer(containerID string) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	box, ok := b.sandboxes[containerID]
	return ok && box.server != nil
}

// closeServers ends all name servers.
func (b *book) closeServers() error {
	b.mu.Lock()
	var servers []*dns.Server
	for _, box := range b.sandboxes {
		if box.server != nil {
			servers = append(servers, box.server)
			box.server = nil
		}
	}
	b.mu.Unlock()
	var errs []error
	for _, s := range servers {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}
