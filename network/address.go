package network

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"

	"davit/network/ipam"
	"davit/oci/errdefs"
)

// space finds the space of a family, and when addr is valid the one that holds it; nil without one.
func (s *segment) space(v6 bool, addr netip.Addr) *ipam.Space {
	for _, space := range s.spaces {
		if space.Subnet().Addr().Is6() == v6 && (!addr.IsValid() || space.Subnet().Contains(addr)) {
			return space
		}
	}
	return nil
}

// gateway is the network's own address in the subnet.
func (s *segment) gateway(subnet netip.Prefix) netip.Addr {
	for _, sub := range s.Subnets {
		if sub.Subnet == subnet {
			return sub.Gateway
		}
	}
	return netip.Addr{}
}

// take uses an address: the wanted one, or the first free of the family's subnets.
func (s *segment) take(v6 bool, want netip.Addr) (netip.Prefix, netip.Addr, error) {
	if want.IsValid() {
		space := s.space(v6, want)
		if space == nil {
			return netip.Prefix{}, netip.Addr{}, errdefs.Invalid("invalid address %s: It does not belong to any of this network's subnets", want)
		}
		if err := space.Take(want); err != nil {
			return netip.Prefix{}, netip.Addr{}, err
		}
		return netip.PrefixFrom(want, space.Subnet().Bits()), s.gateway(space.Subnet()), nil
	}
	err := errdefs.Invalid("network %s has no subnet of the family", s.Name)
	for _, space := range s.spaces {
		if space.Subnet().Addr().Is6() != v6 {
			continue
		}
		addr, full := space.Next()
		if full == nil {
			return netip.PrefixFrom(addr, space.Subnet().Bits()), s.gateway(space.Subnet()), nil
		}
		err = full
	}
	return netip.Prefix{}, netip.Addr{}, err
}

// free gives an endpoint's addresses back.
func (s *segment) free(e Endpoint) {
	for _, addr := range []netip.Prefix{e.IPv4, e.IPv6} {
		if !addr.IsValid() {
			continue
		}
		if space := s.space(addr.Addr().Is6(), addr.Addr()); space != nil {
			space.Free(addr.Addr())
		}
	}
}

// addresses takes the addresses an endpoint needs into it.
func (s *segment) addresses(e *Endpoint, want4, want6 netip.Addr) (err error) {
	if want4.IsValid() && !s.EnableV4 || want6.IsValid() && !s.EnableV6 {
		return errdefs.Invalid("invalid address: network %s has no subnet of that family", s.Name)
	}
	if s.EnableV4 {
		if e.IPv4, e.Gateway4, err = s.take(false, want4); err != nil {
			return err
		}
	}
	if s.EnableV6 {
		if e.IPv6, e.Gateway6, err = s.take(true, want6); err != nil {
			s.free(*e)
			return err
		}
	}
	if s.Internal {
		e.Gateway4, e.Gateway6 = netip.Addr{}, netip.Addr{}
	}
	if e.MAC == nil {
		e.MAC, err = macFor(e.IPv4.Addr())
	}
	return err
}

// macFor makes a MAC from an IPv4 address as Docker does, so that an address that changes hands keeps its
// MAC and nobody's neighbour table is wrong. Without address it is random.
func macFor(addr netip.Addr) (net.HardwareAddr, error) {
	mac := net.HardwareAddr{0x02, 0x42, 0, 0, 0, 0}
	if addr.Is4() {
		a := addr.As4()
		copy(mac[2:], a[:])
		return mac, nil
	}
	if _, err := rand.Read(mac[2:]); err != nil {
		return nil, fmt.Errorf("make MAC: %w", err)
	}
	return mac, nil
}

// newID makes an id of 64 hexadecimal digits.
func newID() (string, error) {
	b := make([]byte, 32)
	if _, err := rand.Read(b); err != nil {
		return "", fmt.Errorf("make id: %w", err)
	}
	return hex.EncodeToString(b), nil
}
