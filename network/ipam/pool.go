// Package ipam hands out addresses: subnets from pools, and single addresses from subnets. It decides
// only; it asks the host nothing and stores nothing.
package ipam

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"slices"

	"davit/oci/errdefs"
)

// Pool is a range that subnets of one size are cut from, lowest first.
type Pool struct {
	Base netip.Prefix
	Size int // prefix length of the subnets
}

// DefaultPools are Docker's (15 subnets of /16, then 16 of /20), and behind them 8,192 of /24, so that
// the 32nd network is no error.
func DefaultPools() []Pool {
	return []Pool{
		{netip.MustParsePrefix("172.17.0.0/16"), 16},
		{netip.MustParsePrefix("172.18.0.0/16"), 16},
		{netip.MustParsePrefix("172.19.0.0/16"), 16},
		{netip.MustParsePrefix("172.20.0.0/14"), 16},
		{netip.MustParsePrefix("172.24.0.0/14"), 16},
		{netip.MustParsePrefix("172.28.0.0/14"), 16},
		{netip.MustParsePrefix("192.168.0.0/16"), 20},
		{netip.MustParsePrefix("10.192.0.0/11"), 24},
	}
}

// NextSubnet returns the first IPv4 or IPv6 subnet of the pools that overlaps nothing taken.
func NextSubnet(pools []Pool, v6 bool, taken []netip.Prefix) (netip.Prefix, error) {
	for _, pool := range pools {
		if pool.Base.Addr().Is6() != v6 || pool.Size < pool.Base.Bits() {
			continue
		}
		subnet := netip.PrefixFrom(pool.Base.Masked().Addr(), pool.Size)
		for pool.Base.Overlaps(subnet) {
			blocker := slices.IndexFunc(taken, subnet.Overlaps)
			if blocker < 0 {
				return subnet, nil
			}
			next, ok := after(subnet, taken[blocker])
			if !ok {
				break
			}
			subnet = next
		}
	}
	return netip.Prefix{}, errdefs.New(errdefs.ErrExhausted, "all predefined address pools have been fully subnetted")
}

// after returns the next subnet of the same size that lies behind blocker; false at the end of all addresses.
func after(subnet, blocker netip.Prefix) (netip.Prefix, bool) {
	last := Last(subnet)
	if l := Last(blocker); last.Less(l) {
		last = l
	}
	next := last.Next()
	if !next.IsValid() {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(next, subnet.Bits()).Masked(), true
}

// Last is the highest address of a range: the broadcast address in IPv4.
func Last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for bit := p.Bits(); bit < 8*len(b); bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	addr, _ := netip.AddrFromSlice(b)
	return addr
}

// LocalSubnet makes an IPv6 subnet /64 of the private range fd00::/8 from a seed; equal seeds give equal
// subnets (RFC 4193, 3.2.2).
func LocalSubnet(seed string) netip.Prefix {
	sum := sha256.Sum256([]byte(seed))
	var b [16]byte
	b[0] = 0xfd
	copy(b[1:8], sum[:7])
	return netip.PrefixFrom(netip.AddrFrom16(b), 64)
}

// offset is how far addr lies behind base, and false when that is no uint32.
func offset(base, addr netip.Addr) (uint32, bool) {
	b, a := base.As16(), addr.As16()
	hi := binary.BigEndian.Uint64(a[:8]) - binary.BigEndian.Uint64(b[:8])
	low, from := binary.BigEndian.Uint64(a[8:]), binary.BigEndian.Uint64(b[8:])
	if hi != 0 || low < from || low-from > 1<<32-1 {
		return 0, false
	}
	return uint32(low - from), true
}

// plus is the address n behind base. The sum must stay within base's family.
func plus(base netip.Addr, n uint32) netip.Addr {
	if base.Is4() {
		b := base.As4()
		binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+n)
		return netip.AddrFrom4(b)
	}
	b := base.As16()
	low := binary.BigEndian.Uint64(b[8:]) + uint64(n)
	if low < uint64(n) {
		binary.BigEndian.PutUint64(b[:8], binary.BigEndian.Uint64(b[:8])+1)
	}
	binary.BigEndian.PutUint64(b[8:], low)
	return netip.AddrFrom16(b)
}
