// Package bridge makes the devices of networks: a bridge for each, and a veth pair for each endpoint.
//
// Bridges are durable in the sense that nothing but Delete removes them. A veth pair dies with the
// network namespace of its inner end; Disconnect removes it earlier.
package bridge

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"davit/kernel/netlink"
	"davit/kernel/sys"
)

// Device describes a bridge.
type Device struct {
	Name     string
	MTU      int
	Addrs    []netip.Prefix // gateway addresses with the prefix length of their subnet
	Loopback bool           // let the host's 127.0.0.1 reach what is behind the bridge (route_localnet)
}

// Link describes one veth pair: a port of a bridge outside, a device inside.
type Link struct {
	Veth      string // name outside
	Bridge    string
	Interface string // name inside
	MTU       int
	MAC       []byte // of the inner end
	Addrs     []netip.Prefix
	Gateways  []netip.Addr // default routes, at most one per family; nil: none
	Hairpin   bool         // frames may leave by the port they came in
	Isolated  bool         // other isolated ports cannot be reached
}

// Driver makes devices in the network namespace of the thread that opened it.
type Driver struct{ conn *netlink.Conn }

// Open connects to the kernel.
func Open() (*Driver, error) {
	conn, err := netlink.Open()
	if err != nil {
		return nil, err
	}
	return &Driver{conn}, nil
}

// Close disconnects; devices stay.
func (d *Driver) Close() error { return d.conn.Close() }

// Ensure makes the bridge, or gives an existing one of that name the described addresses, and brings it up.
func (d *Driver) Ensure(dev Device) error {
	index, err := d.conn.LinkIndex(dev.Name)
	if errors.Is(err, syscall.ENODEV) {
		index, err = d.add(dev)
	}
	if err != nil {
		return err
	}
	if err := d.configure(dev); err != nil {
		return err
	}
	if err := d.setAddrs(index, dev.Addrs); err != nil {
		return err
	}
	return d.conn.Do(netlink.SetUp(index))
}

// add makes the bridge with a random MAC. One that is set at birth does not change when ports come and
// go, as the kernel's own choice would, and containers keep what they learnt of their gateway.
func (d *Driver) add(dev Device) (int, error) {
	mac := make([]byte, 6)
	if _, err := rand.Read(mac); err != nil {
		return 0, fmt.Errorf("make MAC: %w", err)
	}
	mac[0] = mac[0]&^1 | 2 // one device's, locally administered
	if err := d.conn.Do(netlink.AddBridge(dev.Name, dev.MTU, mac)); err != nil {
		return 0, err
	}
	return d.conn.LinkIndex(dev.Name)
}

// configure sets the bridge's kernel parameters.
func (d *Driver) configure(dev Device) error {
	v6 := slices.ContainsFunc(dev.Addrs, is6)
	return errors.Join(
		setIPv4(dev.Name, "route_localnet", dev.Loopback),
		setIPv6(dev.Name, "accept_ra", false),
		setIPv6(dev.Name, "disable_ipv6", !v6),
	)
}

// setAddrs gives the link these addresses and takes all others, but link-local ones.
func (d *Driver) setAddrs(index int, want []netip.Prefix) error {
	have, err := netlink.AddrsOf(index)
	if err != nil {
		return err
	}
	var requests []netlink.Request
	for _, a := range have {
		if !slices.Contains(want, a) && !a.Addr().IsLinkLocalUnicast() {
			requests = append(requests, netlink.DelAddr(index, a))
		}
	}
	for _, a := range want {
		if !slices.Contains(have, a) {
			requests = append(requests, netlink.AddAddr(index, a))
		}
	}
	return d.conn.Do(requests...)
}

// Delete removes a bridge; a missing one is no error.
func (d *Driver) Delete(name string) error { return ignoreMissing(d.conn.Do(netlink.DelLink(name))) }

// Disconnect removes the pair with this outer end; a missing one is no error.
func (d *Driver) Disconnect(veth string) error {
	return ignoreMissing(d.conn.Do(netlink.DelLink(veth)))
}

// ignoreMissing is err without the parts that say that a device is gone, or is no port any more.
func ignoreMissing(err error) error { return ignore(err, syscall.ENODEV, syscall.EOPNOTSUPP) }

// ignore is err without the parts that are one of the numbers.
func ignore(err error, numbers ...syscall.Errno) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var rest []error
		for _, e := range joined.Unwrap() {
			rest = append(rest, ignore(e, numbers...))
		}
		return errors.Join(rest...)
	}
	if slices.ContainsFunc(numbers, func(n syscall.Errno) bool { return errors.Is(err, n) }) {
		return nil
	}
	return err
}

// Connect makes the pairs of one container, whose namespace is open as ns, and runs inside (which may be
// nil) in that namespace when all are up. It returns the indexes of the outer ends, in order. After an
// error no pair is left.
func (d *Driver) Connect(ns uintptr, links []Link, inside func() error) (ports []int, err error) {
	defer func() {
		if err == nil {
			return
		}
		for _, l := range links {
			err = errors.Join(err, d.Disconnect(l.Veth))
		}
	}()
	for _, l := range links {
		port, err := d.outer(ns, l)
		if err != nil {
			return nil, err
		}
		ports = append(ports, port)
	}
	err = sys.InNetNS(ns, func() error {
		if err := inner(links); err != nil || inside == nil {
			return err
		}
		return inside()
	})
	if err != nil {
		return nil, err
	}
	return ports, d.settle(links)
}

// settle makes the kernel act on the carriers that have just come up, so that the bridge forwards the
// container's very first packet: asking for a link does that (Linux 6.8; earlier ones take a moment).
func (d *Driver) settle(links []Link) error {
	for _, l := range links {
		if _, err := d.conn.LinkIndex(l.Veth); err != nil {
			return err
		}
	}
	return nil
}

// outer makes a pair and brings its outer end up.
func (d *Driver) outer(ns uintptr, l Link) (int, error) {
	master, err := d.conn.LinkIndex(l.Bridge)
	if err != nil {
		return 0, err
	}
	err = d.conn.Do(netlink.AddVeth(netlink.Veth{
		Name: l.Veth, Master: master, MTU: l.MTU, Peer: l.Interface, PeerMAC: l.MAC, PeerNS: ns,
	}))
	if err != nil {
		return 0, err
	}
	port, err := d.conn.LinkIndex(l.Veth)
	if err != nil {
		return 0, err
	}
	// A port needs no address; with one it would announce it to its container.
	requests := []netlink.Request{netlink.NoLinkLocal(port), netlink.SetUp(port), netlink.SetFDB(port, l.MAC)}
	if l.Hairpin || l.Isolated {
		requests = append(requests, netlink.SetPort(port, l.Hairpin, l.Isolated))
	}
	return port, ignore(d.conn.Do(requests...), syscall.EAFNOSUPPORT)
}

// Silence cuts ports off, by index, when their containers have ended: until the kernel takes the dead
// namespace apart, it would go on answering for addresses that others may have by then. Ports that are
// gone already are no error.
func (d *Driver) Silence(ports []int) error {
	requests := make([]netlink.Request, len(ports))
	for i, p := range ports {
		requests[i] = netlink.DisablePort(p)
	}
	return ignoreMissing(d.conn.Do(requests...))
}

// loopbackIndex is the index of device lo in every network namespace.
const loopbackIndex = 1

// inner configures the inner ends, from inside the namespace.
func inner(links []Link) error {
	conn, err := netlink.Open()
	if err != nil {
		return err
	}
	defer conn.Close()
	requests := []netlink.Request{netlink.SetUp(loopbackIndex)}
	for _, l := range links {
		index, err := conn.LinkIndex(l.Interface)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(l.Addrs, is6) {
			if err := setIPv6(l.Interface, "accept_ra", false); err != nil {
				return err
			}
		} else {
			requests = append(requests, netlink.NoLinkLocal(index))
		}
		for _, a := range l.Addrs {
			requests = append(requests, netlink.AddAddr(index, a))
		}
		requests = append(requests, netlink.SetUp(index))
		requests = append(requests, defaultRoutes(index, l.Gateways)...)
	}
	if err := ignore(conn.Do(requests...), syscall.EAFNOSUPPORT); err != nil {
		return err
	}
	for _, l := range links {
		if _, err := conn.LinkIndex(l.Interface); err != nil { // as in settle
			return err
		}
	}
	return nil
}

func is6(p netip.Prefix) bool { return p.Addr().Is6() }

// Loopback brings up lo in a namespace that gets nothing else (driver null).
func Loopback(ns uintptr) error { return sys.InNetNS(ns, func() error { return inner(nil) }) }

// Route moves the default routes of a namespace to a device in it.
func Route(ns uintptr, device string, gateways []netip.Addr) error {
	return sys.InNetNS(ns, func() error {
		conn, err := netlink.Open()
		if err != nil {
			return err
		}
		defer conn.Close()
		index, err := conn.LinkIndex(device)
		if err != nil {
			return err
		}
		return conn.Do(defaultRoutes(index, gateways)...)
	})
}

func defaultRoutes(index int, gateways []netip.Addr) []netlink.Request {
	var requests []netlink.Request
	for _, g := range gateways {
		all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if g.Is6() {
			all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		requests = append(requests, netlink.AddRoute(index, all, g))
	}
	return requests
}

// Orphans removes the veth devices with davit's kind of name that are ports of one of the bridges and
// not to be kept, and returns their names.
func (d *Driver) Orphans(bridges []string, keep func(veth string) bool) ([]string, error) {
	links, err := netlink.Links()
	if err != nil {
		return nil, err
	}
	ours := map[int]bool{}
	for _, l := range links {
		ours[l.Index] = slices.Contains(bridges, l.Name)
	}
	var gone []string
	var errs []error
	for _, l := range links {
		if l.Kind == "veth" && ours[l.Master] && IsVethName(l.Name) && !keep(l.Name) {
			gone = append(gone, l.Name)
			errs = append(errs, d.Disconnect(l.Name))
		}
	}
	return gone, errors.Join(errs...)
}

// vethPrefix begins the names of outer ends; eight hexadecimal digits follow.
const vethPrefix = "dv"

// VethName makes the name of an outer end from an endpoint's id.
func VethName(endpointID string) string { return vethPrefix + endpointID[:8] }

// IsVethName tells whether VethName could have made the name.
func IsVethName(name string) bool {
	digits, ok := strings.CutPrefix(name, vethPrefix)
	return ok && len(digits) == 8 && strings.Trim(digits, "0123456789abcdef") == ""
}
