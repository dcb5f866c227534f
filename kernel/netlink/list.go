package netlink

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Link is a network device as listed.
type Link struct {
	Name   string
	Index  int
	Master int // index of the bridge it is a port of; 0: none
	Kind   string
}

// Links lists the devices of the current thread's network namespace.
func Links() ([]Link, error) {
	found, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list links: %w", err)
	}
	links := make([]Link, len(found))
	for i, l := range found {
		links[i] = Link{l.Attrs().Name, l.Attrs().Index, l.Attrs().MasterIndex, l.Type()}
	}
	return links, nil
}

// Occupied lists the address ranges that this host has routes to or addresses in, default routes left out.
func Occupied() ([]netip.Prefix, error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var taken []netip.Prefix
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		ones, _ := r.Dst.Mask.Size()
		if addr, ok := netip.AddrFromSlice(r.Dst.IP); ok && ones > 0 {
			taken = append(taken, netip.PrefixFrom(addr.Unmap(), ones))
		}
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		ones, _ := a.Mask.Size()
		if addr, ok := netip.AddrFromSlice(a.IP); ok {
			taken = append(taken, netip.PrefixFrom(addr.Unmap(), ones).Masked())
		}
	}
	return taken, nil
}

// AddrsOf lists the addresses of a link.
func AddrsOf(index int) ([]netip.Prefix, error) {
	link, err := netlink.LinkByIndex(index)
	if err != nil {
		return nil, fmt.Errorf("find link %d: %w", index, err)
	}
	found, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list addresses of %s: %w", link.Attrs().Name, err)
	}
	var addrs []netip.Prefix
	for _, a := range found {
		ones, _ := a.Mask.Size()
		if addr, ok := netip.AddrFromSlice(a.IP); ok {
			addrs = append(addrs, netip.PrefixFrom(addr.Unmap(), ones))
		}
	}
	return addrs, nil
}
