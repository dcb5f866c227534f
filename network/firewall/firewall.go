// Package firewall keeps one nft table, family inet, that does all of an engine's filtering and address
// translation:
//
//	raw_prerouting  loopback addresses neither come from a bridge nor are reached through one
//	prerouting      published ports, for packets from outside and from containers
//	output          published ports, for the host's own packets, 127.0.0.1 included
//	forward         what may reach a container: answers, its own network, published ports; else nothing
//	postrouting     masquerade on the way out, and where an answer would take a short cut past NAT
//
// Networks and ports are elements of sets and maps, so the rules never change: publishing a port is one
// element in one transaction, found by hash however many there are.
//
//	set  bridges    { ifname }                 devices of all networks
//	set  internal   { ifname }                 networks without a way out
//	set  same       { ifname . ifname }        a bridge to itself
//	set  open4/6    { ifname }                 reachable without publishing ("nat-unprotected")
//	set  subnets4/6 { address ranges }         of all networks
//	set  masq4/6    { address ranges }         that leave with the host's address
//	map  ports4/6   { proto . address . port : address . port }   published on one host address
//	map  any4/6     { proto . port : address . port }             published on all
//
// What ::1 cannot do: the kernel routes no loopback source out of IPv6 devices, so connections to ::1 are
// left to a socket of the host (network.Relay).
//
// A drop in another table is final; an accept here does not undo it. See Others, and guard.go for how the
// host's firewall decides about published ports.
package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"syscall"

	"github.com/google/nftables"

	"davit/kernel/nft"
)

// Net is what the firewall knows of a network.
type Net struct {
	Bridge     string
	Subnets    []netip.Prefix
	Internal   bool
	Masquerade bool
	Open4      bool // no publishing needed
	Open6      bool
}

// Mapping is a published port.
type Mapping struct {
	Proto    byte       // IP protocol number
	HostIP   netip.Addr // 0.0.0.0 or ::, of the family of To, for all
	HostPort uint16
	To       netip.AddrPort
}

// Firewall holds the table and what shall be in it. Its methods may be called concurrently.
type Firewall struct {
	mu    sync.Mutex
	conn  *nft.Conn
	table table
	nets  map[string]Net
	ports map[Mapping]bool

	applied bool // the table has been written
}

// OnlyOwn tells whether packets that concern no network of the engine may be routed. With own they may
// not: the host is a router for containers alone.
func (f *Firewall) OnlyOwn(own bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.table.onlyOwn == own {
		return nil
	}
	f.table.onlyOwn = own
	if !f.applied {
		return nil
	}
	return f.rebuild()
}

// Open connects to the kernel; nothing is changed before Apply.
func Open(tableName string) (*Firewall, error) {
	conn, err := nft.Open()
	if err != nil {
		return nil, err
	}
	return &Firewall{conn: conn, table: newTable(tableName), nets: map[string]Net{}, ports: map[Mapping]bool{}}, nil
}

// Close disconnects; the table stays.
func (f *Firewall) Close() error { return f.conn.Close() }

// Apply replaces the whole table by one for exactly these networks and ports, in one transaction:
// packets see the old table or the new one.
func (f *Firewall) Apply(nets []Net, ports []Mapping) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.nets)
	clear(f.ports)
	for _, n := range nets {
		f.nets[n.Bridge] = n
	}
	for _, p := range ports {
		f.ports[p] = true
	}
	return f.rebuild()
}

// rebuild writes the table anew from what shall be in it.
func (f *Firewall) rebuild() error {
	err := f.conn.Do(func(c *nftables.Conn) error {
		if err := f.table.create(c); err != nil {
			return err
		}
		for _, n := range f.nets {
			if err := f.table.addNet(c, n); err != nil {
				return err
			}
		}
		ports := make([]Mapping, 0, len(f.ports))
		for p := range f.ports {
			ports = append(ports, p)
		}
		return f.table.addPorts(c, ports)
	})
	if err != nil {
		return fmt.Errorf("write nft table %s: %w", f.table.Name, err)
	}
	f.applied = true
	return nil
}

// change tries a small transaction. If the kernel's table is not what we left there (somebody flushed
// it), the whole table is written again.
func (f *Firewall) change(small func(*nftables.Conn) error) error {
	err := f.conn.Do(small)
	if err == nil || !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.EEXIST) && !errors.Is(err, syscall.EBUSY) {
		return err
	}
	return f.rebuild()
}

// AddNet adds a network.
func (f *Firewall) AddNet(n Net) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.nets[n.Bridge] = n
	return f.change(func(c *nftables.Conn) error { return f.table.addNet(c, n) })
}

// RemoveNet removes the network of a bridge; an unknown one is no error.
func (f *Firewall) RemoveNet(bridge string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, ok := f.nets[bridge]
	if !ok {
		return nil
	}
	delete(f.nets, bridge)
	return f.change(func(c *nftables.Conn) error { return f.table.deleteNet(c, n) })
}

// Publish adds ports, all or none.
func (f *Firewall) Publish(ports []Mapping) error {
	if len(ports) == 0 {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range ports {
		f.ports[p] = true
	}
	err := f.change(func(c *nftables.Conn) error { return f.table.addPorts(c, ports) })
	if err != nil {
		for _, p := range ports {
			delete(f.ports, p)
		}
	}
	return err
}

// Unpublish removes ports; those not published are no error.
func (f *Firewall) Unpublish(ports []Mapping) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	ports = slices.DeleteFunc(slices.Clone(ports), func(p Mapping) bool { return !f.ports[p] })
	if len(ports) == 0 {
		return nil
	}
	for _, p := range ports {
		delete(f.ports, p)
	}
	return f.change(func(c *nftables.Conn) error { return f.table.deletePorts(c, ports) })
}

// Replace takes some ports out and puts others in, in one transaction: a packet meets the old ones or the
// new ones, never neither. Old ones that are not published are no error.
func (f *Firewall) Replace(old, now []Mapping) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	old = slices.DeleteFunc(slices.Clone(old), func(p Mapping) bool { return !f.ports[p] })
	for _, p := range old {
		delete(f.ports, p)
	}
	now = slices.DeleteFunc(slices.Clone(now), func(p Mapping) bool { return f.ports[p] })
	for _, p := range now {
		f.ports[p] = true
	}
	if len(old)+len(now) == 0 {
		return nil
	}
	err := f.change(func(c *nftables.Conn) error {
		return errors.Join(f.table.deletePorts(c, old), f.table.addPorts(c, now))
	})
	if err == nil {
		return nil
	}
	for _, p := range now {
		delete(f.ports, p)
	}
	for _, p := range old {
		f.ports[p] = true
	}
	return err
}

// Delete removes the table, the guards, and the rules in other chains.
func (f *Firewall) Delete() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applied = false
	errs := []error{f.conn.Do(func(c *nftables.Conn) error {
		f.table.delete(c)
		return nil
	})}
	for _, s := range sources() {
		errs = append(errs, nft.DeleteTable(s.family, s.guard(f.table.Name).Table))
	}
	return errors.Join(append(errs, f.dismiss(func(string) bool { return false }))...)
}
