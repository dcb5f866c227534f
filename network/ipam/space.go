package ipam

import (
	"math/bits"
	"net/netip"
	"sync"

	"davit/oci/errdefs"
)

// maxBitmap bounds how many addresses of a range are handed out unasked (128 KiB of bitmap). Addresses
// behind it can be had by name.
const maxBitmap = 1 << 20

// Space is which addresses of one subnet are in use. Its methods may be called concurrently.
type Space struct {
	subnet netip.Prefix
	base   netip.Addr // of the range that Next takes from
	size   uint32     // addresses in it

	mu      sync.Mutex
	words   []uint64            // bit n: base+n is in use; grows to where it is needed
	from    int                 // no word before this has a clear bit
	outside map[netip.Addr]bool // in use, not in the bitmap
}

// NewSpace makes the space of a subnet, with its network and broadcast address in use. Next takes from
// within, which lies in subnet, or from all of subnet when within is zero.
func NewSpace(subnet, within netip.Prefix) (*Space, error) {
	subnet = subnet.Masked()
	if !within.IsValid() {
		within = subnet
	}
	if within.Bits() < subnet.Bits() || !subnet.Contains(within.Addr()) {
		return nil, errdefs.Invalid("invalid ip-range %s: It does not belong to subnet %s", within, subnet)
	}
	s := &Space{subnet: subnet, base: within.Masked().Addr(), size: maxBitmap, outside: map[netip.Addr]bool{}}
	if host := within.Addr().BitLen() - within.Bits(); host < 20 {
		s.size = 1 << host
	}
	if subnet.Addr().BitLen()-subnet.Bits() > 1 { // RFC 3021: both addresses of a /31 are hosts
		s.set(subnet.Addr())
		if subnet.Addr().Is4() {
			s.set(Last(subnet))
		}
	}
	return s, nil
}

// Subnet is the range of all addresses.
func (s *Space) Subnet() netip.Prefix { return s.subnet }

// Take uses an address. Conflict when it is in use, Invalid when it is not of the subnet.
func (s *Space) Take(addr netip.Addr) error {
	if !s.subnet.Contains(addr) {
		return errdefs.Invalid("invalid address %s: It does not belong to any of this network's subnets", addr)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.get(addr) {
		return errdefs.Forbidden("Address already in use")
	}
	s.set(addr)
	return nil
}

// Next uses the lowest free address.
func (s *Space) Next() (netip.Addr, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ; uint64(s.from)*64 < uint64(s.size); s.from++ {
		if s.from == len(s.words) {
			s.words = append(s.words, 0)
		}
		bit := bits.TrailingZeros64(^s.words[s.from])
		n := uint32(s.from)*64 + uint32(bit)
		if bit == 64 {
			continue
		}
		if n >= s.size {
			break
		}
		s.words[s.from] |= 1 << bit
		return plus(s.base, n), nil
	}
	return netip.Addr{}, errdefs.New(errdefs.ErrExhausted, "no available IPv%d addresses on this network's address pools: %s", s.version(), s.subnet)
}

func (s *Space) version() int {
	if s.subnet.Addr().Is4() {
		return 4
	}
	return 6
}

// Free gives an address back; one that is not in use is no error.
func (s *Space) Free(addr netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.index(addr)
	if !ok {
		delete(s.outside, addr)
		return
	}
	if word := int(n / 64); word < len(s.words) {
		s.words[word] &^= 1 << (n % 64)
		s.from = min(s.from, word)
	}
}

// InUse counts the addresses in use, those kept for the subnet itself included.
func (s *Space) InUse() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.outside)
	for _, w := range s.words {
		n += bits.OnesCount64(w)
	}
	return n
}

func (s *Space) index(addr netip.Addr) (uint32, bool) {
	n, ok := offset(s.base, addr)
	return n, ok && n < s.size
}

func (s *Space) get(addr netip.Addr) bool {
	n, ok := s.index(addr)
	if !ok {
		return s.outside[addr]
	}
	word := int(n / 64)
	return word < len(s.words) && s.words[word]&(1<<(n%64)) != 0
}

func (s *Space) set(addr netip.Addr) {
	n, ok := s.index(addr)
	if !ok {
		s.outside[addr] = true
		return
	}
	for int(n/64) >= len(s.words) {
		s.words = append(s.words, 0)
	}
	s.words[n/64] |= 1 << (n % 64)
}
