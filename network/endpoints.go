package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"syscall"

	"davit/kernel/netlink"
	"davit/network/bridge"
	"davit/network/dns"
	"davit/network/firewall"
	"davit/oci/errdefs"
)

// Allocate reserves address, MAC and host ports. Nothing is in the kernel before Attach; Detach gives
// back. Networks of drivers host and null give an Endpoint with ids alone.
//
// A port that is taken fails with ErrPortTaken and Docker's words.
func (c *Controller) Allocate(ctx context.Context, req EndpointRequest) (Endpoint, error) {
	e, err := c.book.allocate(req)
	if err != nil || !e.IPv4.IsValid() && !e.IPv6.IsValid() {
		return e, err
	}
	n, err := c.book.get(e.NetworkID)
	if err != nil {
		return Endpoint{}, err
	}
	if n.Internal || len(req.Ports) == 0 {
		return e, nil
	}
	ports, err := c.ports.publish(e, req.Ports, n.hostIP(c.opts.HostIP))
	if err != nil {
		c.book.leave(e.ContainerID, func(x *Endpoint) bool { return x.ID == e.ID })
		return Endpoint{}, err
	}
	c.book.update(e.ContainerID, e.ID, func(x *Endpoint) { x.Ports = slices.Clone(ports) })
	e.Ports = ports
	return e, nil
}

// hostIP is the default host address of the network's published ports.
func (n Network) hostIP(otherwise netip.Addr) netip.Addr {
	if addr, err := netip.ParseAddr(n.Options[OptionHostIP]); err == nil {
		return addr
	}
	return otherwise
}

// allocate makes an endpoint and takes its addresses.
func (b *book) allocate(req EndpointRequest) (Endpoint, error) {
	id, err := newID()
	if err != nil {
		return Endpoint{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	s, err := b.find(req.NetworkID)
	if err != nil {
		return Endpoint{}, err
	}
	if box, ok := b.sandboxes[req.ContainerID]; ok {
		for _, e := range box.endpoints {
			if e.NetworkID == s.ID {
				return Endpoint{}, errdefs.Forbidden("endpoint with name %s already exists in network %s", req.ContainerName, s.Name)
			}
		}
	}
	e := Endpoint{
		ID: id, NetworkID: s.ID, NetworkName: s.Name, ContainerID: req.ContainerID, ContainerName: req.ContainerName,
		Aliases: req.Aliases, DNSNames: req.names(), MAC: req.MAC, GwPriority: req.GwPriority,
		Interface: req.Interface, Links: req.Links, PortsLater: req.PortsLater,
	}
	if s.Driver == DriverBridge {
		if err := s.addresses(&e, req.IPv4, req.IPv6); err != nil {
			return Endpoint{}, err
		}
	}
	b.enterLocked(e)
	return e.clone(), nil
}

// names are those that the container answers to.
func (r EndpointRequest) names() []string {
	if len(r.DNSNames) > 0 {
		return r.DNSNames
	}
	var names []string
	if r.ContainerName != "" {
		names = append(names, r.ContainerName)
	}
	names = append(names, r.Aliases...)
	return append(names, r.ContainerID[:min(12, len(r.ContainerID))])
}

// Attach puts allocated endpoints of one container into its namespace: loopback up, a veth pair each,
// addresses, routes, published ports, and the name server when a network has one. It is also how a
// running container gets one more endpoint (docker network connect). On error nothing of them is left
// in the kernel, and they stay allocated.
func (c *Controller) Attach(ctx context.Context, sandbox Sandbox, endpoints []Endpoint) (err error) {
	plan, err := c.planAttach(sandbox, endpoints)
	if err != nil || plan.host {
		return err
	}
	var sockets dns.Sockets
	var inside func() error
	if plan.nameService {
		inside = func() (err error) {
			sockets, err = dns.Listen()
			return err
		}
	}
	ports, err := c.devices.Connect(sandbox.NetNS.Fd(), plan.links, inside)
	if err != nil {
		return errors.Join(fmt.Errorf("attach container %s: %w", sandbox.ContainerID, err), sockets.Close())
	}
	for i, l := range plan.links {
		c.book.update(sandbox.ContainerID, plan.ids[i], func(e *Endpoint) {
			e.Interface, e.Veth, e.Port, e.DNS = l.Interface, l.Veth, ports[i], sandbox.DNS
		})
	}
	if plan.nameService {
		c.serve(sandbox, sockets)
	}
	if err := c.publish(plan.ids, sandbox.ContainerID); err != nil {
		return errors.Join(fmt.Errorf("publish ports of container %s: %w", sandbox.ContainerID, err), c.unattach(sandbox.ContainerID, plan))
	}
	return c.files.save(sandbox.ContainerID, c.book.attached(sandbox.ContainerID))
}

// unattach takes out of the kernel what Attach has put there.
func (c *Controller) unattach(containerID string, plan attachPlan) error {
	var errs []error
	for i, l := range plan.links {
		errs = append(errs, c.devices.Disconnect(l.Veth))
		c.book.update(containerID, plan.ids[i], func(e *Endpoint) { e.Veth, e.Port = "", 0 })
	}
	return errors.Join(errs...)
}

// attachPlan is what Attach is going to do.
type attachPlan struct {
	host        bool // the host's own namespace: nothing
	ids         []string
	links       []bridge.Link
	nameService bool // open the name server
}

// planAttach decides interface names and default routes. The default route of each family goes through
// the first endpoint, by precedence, that has a gateway.
func (c *Controller) planAttach(sandbox Sandbox, endpoints []Endpoint) (attachPlan, error) {
	var plan attachPlan
	all := c.book.of(sandbox.ContainerID)
	names := map[string]bool{}
	for _, e := range all {
		names[e.Interface] = true
	}
	for _, e := range endpoints {
		n, err := c.book.get(e.NetworkID)
		if err != nil {
			return plan, err
		}
		if n.Driver == DriverHost {
			plan.host = true
		}
		if n.Driver != DriverBridge {
			continue
		}
		if e.Interface == "" {
			e.Interface = freeName(names, n.Options[OptionIfPrefix])
			names[e.Interface] = true
		}
		plan.ids = append(plan.ids, e.ID)
		plan.links = append(plan.links, linkOf(n, e, gateways(all, e.ID)))
		plan.nameService = plan.nameService || n.NameService()
	}
	plan.nameService = plan.nameService && !c.book.hasServer(sandbox.ContainerID)
	return plan, nil
}

func freeName(taken map[string]bool, prefix string) string {
	if prefix == "" {
		prefix = "eth"
	}
	for i := 0; ; i++ {
		if name := prefix + strconv.Itoa(i); !taken[name] {
			return name
		}
	}
}

// gateways are the default routes that go through one of a container's endpoints.
func gateways(all []Endpoint, id string) []netip.Addr {
	var found []netip.Addr
	i4 := slices.IndexFunc(all, func(e Endpoint) bool { return e.Gateway4.IsValid() })
	i6 := slices.IndexFunc(all, func(e Endpoint) bool { return e.Gateway6.IsValid() })
	if i4 >= 0 && all[i4].ID == id {
		found = append(found, all[i4].Gateway4)
	}
	if i6 >= 0 && all[i6].ID == id {
		found = append(found, all[i6].Gateway6)
	}
	return found
}

func linkOf(n Network, e Endpoint, gateways []netip.Addr) bridge.Link {
	l := bridge.Link{
		Veth: bridge.VethName(e.ID), Bridge: n.Bridge, Interface: e.Interface, MTU: n.mtu(), MAC: e.MAC,
		Gateways: gateways, Hairpin: len(e.Ports) > 0 || e.PortsLater, Isolated: !n.option(OptionICC, true),
	}
	for _, p := range []netip.Prefix{e.IPv4, e.IPv6} {
		if p.IsValid() {
			l.Addrs = append(l.Addrs, p)
		}
	}
	return l
}

// serve starts a container's name server.
func (c *Controller) serve(sandbox Sandbox, sockets dns.Sockets) {
	outside := upstream{book: c.book, containerID: sandbox.ContainerID, servers: dns.Servers{List: c.servers(sandbox.DNS)}}
	server := dns.Serve(sockets, zone{c.book, sandbox.ContainerID}, outside, c.log)
	if !c.book.setServer(sandbox.ContainerID, server) {
		c.closeServer(server)
	}
}

func (c *Controller) closeServer(server *dns.Server) {
	if server == nil {
		return
	}
	if err := server.Close(); err != nil {
		c.log.Warn("close name server", "error", err)
	}
}

// publish opens the ports of a container's endpoints.
func (c *Controller) publish(ids []string, containerID string) error {
	var ports []firewall.Mapping
	for _, e := range c.book.of(containerID) {
		if slices.Contains(ids, e.ID) {
			ports = append(ports, e.mappings()...)
		}
	}
	if err := c.rules.Publish(ports); err != nil {
		return err
	}
	return netlink.FlushConntrack(datagrams(ports))
}

// datagrams are the UDP flows to published ports: without handshakes, only forgetting them makes their
// next packet follow the rules of now.
func datagrams(ports []firewall.Mapping) []netlink.Flow {
	var flows []netlink.Flow
	for _, p := range ports {
		if p.Proto == syscall.IPPROTO_UDP {
			flows = append(flows, netlink.Flow{Proto: p.Proto, Port: p.HostPort})
		}
	}
	return flows
}

// Detach ends all endpoints of a container, allocated or attached, and its name server. It needs no
// namespace, does not wait for the kernel, and is no error when there is nothing to end. The devices are
// cut off at once and vanish with the container's namespace.
func (c *Controller) Detach(ctx context.Context, containerID string) error {
	gone := c.book.of(containerID)
	if len(gone) == 0 {
		return nil
	}
	errs := []error{c.unpublish(gone)}
	var ports []int
	for _, e := range gone {
		if e.Port != 0 {
			ports = append(ports, e.Port)
		}
	}
	errs = append(errs, c.devices.Silence(ports), c.files.remove(containerID))
	_, server := c.book.leave(containerID, func(*Endpoint) bool { return true })
	c.closeServer(server)
	return errors.Join(errs...)
}

// unpublish closes the ports of endpoints and gives them back.
func (c *Controller) unpublish(endpoints []Endpoint) error {
	var ports []firewall.Mapping
	for _, e := range endpoints {
		ports = append(ports, e.mappings()...)
	}
	err := errors.Join(c.rules.Unpublish(ports), netlink.FlushConntrack(datagrams(ports)))
	for _, e := range endpoints {
		c.ports.release(e.Ports)
	}
	return err
}

// Disconnect ends a running container's endpoint in one network; the default route moves to the next.
func (c *Controller) Disconnect(ctx context.Context, sandbox Sandbox, networkID string) error {
	n, err := c.book.get(networkID)
	if err != nil {
		return err
	}
	before := c.book.of(sandbox.ContainerID)
	i := slices.IndexFunc(before, func(e Endpoint) bool { return e.NetworkID == n.ID })
	if i < 0 {
		return errdefs.NotFound("container %s is not connected to network %s", sandbox.ContainerID, n.Name)
	}
	e := before[i]
	errs := []error{c.unpublish(before[i : i+1])}
	if e.Veth != "" {
		errs = append(errs, c.devices.Disconnect(e.Veth))
	}
	_, server := c.book.leave(sandbox.ContainerID, func(x *Endpoint) bool { return x.ID == e.ID })
	c.closeServer(server)
	errs = append(errs, c.reroute(sandbox), c.files.save(sandbox.ContainerID, c.book.attached(sandbox.ContainerID)))
	return errors.Join(errs...)
}

// reroute sets the default routes that a container's endpoints now call for.
func (c *Controller) reroute(sandbox Sandbox) error {
	all := c.book.attached(sandbox.ContainerID)
	for _, e := range all {
		routes := gateways(all, e.ID)
		if len(routes) == 0 {
			continue
		}
		if err := bridge.Route(sandbox.NetNS.Fd(), e.Interface, routes); err != nil {
			return fmt.Errorf("move default route of container %s: %w", sandbox.ContainerID, err)
		}
	}
	return nil
}

// attached returns a container's endpoints that are in the kernel.
func (b *book) attached(containerID string) []Endpoint {
	return slices.DeleteFunc(b.of(containerID), func(e Endpoint) bool { return e.Veth == "" })
}

// Rename tells the name servers a container's new name.
func (c *Controller) Rename(ctx context.Context, containerID, name string) error {
	for _, e := range c.book.of(containerID) {
		c.book.update(containerID, e.ID, func(x *Endpoint) {
			for i, known := range x.DNSNames {
				if known == x.ContainerName {
					x.DNSNames[i] = name
				}
			}
			x.ContainerName = name
		})
	}
	return c.files.save(containerID, c.book.attached(containerID))
}
