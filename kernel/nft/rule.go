package nft

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
)

// Part is a piece of a rule: a few expressions.
type Part []expr.Any

// Rule joins parts to the expressions of one rule.
func Rule(parts ...Part) []expr.Any {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// Registers: 1 is the first of 16 bytes, which slots 8, 9, 10 ... cut into 4 bytes each.
const (
	reg      = 1
	slot0    = 8
	ifnamsiz = 16
)

// Numbers of linux/netfilter.h and linux/netfilter/nf_conntrack_common.h.
const (
	nfprotoIPv4  = 2
	nfprotoIPv6  = 10
	ctDNAT       = 1 << 5
	ctOld        = 1<<1 | 1<<2 // established, related
	rtnLocal     = 2
	protoICMPv6  = 58
	addrTypeSize = 4
)

func native(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// IfName is a device name as sets and comparisons hold it.
func IfName(name string) []byte {
	b := make([]byte, ifnamsiz)
	copy(b, name)
	return b
}

func meta(key expr.MetaKey, register uint32) *expr.Meta {
	return &expr.Meta{Key: key, Register: register}
}

func equal(data []byte) *expr.Cmp {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: data}
}

func in(set *nftables.Set) *expr.Lookup {
	return &expr.Lookup{SourceRegister: reg, SetName: set.Name, SetID: set.ID}
}

// V4 matches IPv4 packets.
func V4() Part { return Part{meta(expr.MetaKeyNFPROTO, reg), equal([]byte{nfprotoIPv4})} }

// V6 matches IPv6 packets.
func V6() Part { return Part{meta(expr.MetaKeyNFPROTO, reg), equal([]byte{nfprotoIPv6})} }

// Family matches packets of the address's family.
func Family(v6 bool) Part {
	if v6 {
		return V6()
	}
	return V4()
}

// InIf matches packets that came in by a device of the set.
func InIf(set *nftables.Set) Part { return Part{meta(expr.MetaKeyIIFNAME, reg), in(set)} }

// OutIf matches packets that leave by a device of the set.
func OutIf(set *nftables.Set) Part { return Part{meta(expr.MetaKeyOIFNAME, reg), in(set)} }

// InIfIs matches packets that came in by the device.
func InIfIs(name string) Part { return Part{meta(expr.MetaKeyIIFNAME, reg), equal(IfName(name))} }

// OutIfIs matches packets that leave by the device.
func OutIfIs(name string) Part { return Part{meta(expr.MetaKeyOIFNAME, reg), equal(IfName(name))} }

// InOutIf matches packets whose pair of devices is in the set.
func InOutIf(set *nftables.Set) Part {
	return Part{meta(expr.MetaKeyIIFNAME, slot0), meta(expr.MetaKeyOIFNAME, slot0+4), in(set)}
}

// saddr loads the source address.
func saddr(v6 bool, register uint32) *expr.Payload {
	return address(v6, 12, 8, register)
}

// daddr loads the destination address.
func daddr(v6 bool, register uint32) *expr.Payload {
	return address(v6, 16, 24, register)
}

func address(v6 bool, offset4, offset6, register uint32) *expr.Payload {
	p := &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset4, Len: 4}
	if v6 {
		p.Offset, p.Len = offset6, 16
	}
	return p
}

// SrcIn matches packets with a source address in the set; put V4 or V6 before.
func SrcIn(set *nftables.Set, v6 bool) Part { return Part{saddr(v6, reg), in(set)} }

// Src matches packets with a source address in the range; put V4 or V6 before.
func Src(p netip.Prefix) Part { return within(saddr(p.Addr().Is6(), reg), p) }

// Dst matches packets with a destination address in the range; put V4 or V6 before.
func Dst(p netip.Prefix) Part { return within(daddr(p.Addr().Is6(), reg), p) }

func within(load *expr.Payload, p netip.Prefix) Part {
	mask := make([]byte, load.Len)
	for bit := range p.Bits() {
		mask[bit/8] |= 0x80 >> (bit % 8)
	}
	masked := &expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: load.Len, Mask: mask, Xor: make([]byte, load.Len)}
	return Part{load, masked, equal(p.Masked().Addr().AsSlice())}
}

// DstLocal matches packets whose destination is an address of this host.
func DstLocal() Part {
	fib := &expr.Fib{Register: reg, FlagDADDR: true, ResultADDRTYPE: true}
	return Part{fib, equal(native(rtnLocal))}
}

func bits(key expr.CtKey, mask uint32) Part {
	return Part{
		&expr.Ct{Key: key, Register: reg},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: native(mask), Xor: native(0)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: native(0)},
	}
}

// Known matches packets of connections that are established, or related to one that is.
func Known() Part { return bits(expr.CtKeySTATE, ctOld) }

// Redirected matches packets of connections whose destination was translated.
func Redirected() Part { return bits(expr.CtKeySTATUS, ctDNAT) }

// DNAT translates the destination by the map; packets without an element go on. The key is protocol
// and destination port, with the destination address between them when withAddr.
func DNAT(ports *nftables.Set, v6, withAddr bool) Part {
	nat := &expr.NAT{Type: expr.NATTypeDestNAT, Family: nfprotoIPv4, RegAddrMin: slot0, RegProtoMin: slot0 + words(v6)}
	if v6 {
		nat.Family = nfprotoIPv6
	}
	return append(Published(ports, v6, withAddr), nat)
}

// Published matches packets with an element in the map, whose key is as in DNAT.
func Published(ports *nftables.Set, v6, withAddr bool) Part {
	part := Part{meta(expr.MetaKeyL4PROTO, slot0)}
	next := uint32(slot0 + 1)
	if withAddr {
		part = append(part, daddr(v6, next))
		next += words(v6)
	}
	port := &expr.Payload{DestRegister: next, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
	lookup := in(ports)
	lookup.SourceRegister, lookup.DestRegister, lookup.IsDestRegSet = slot0, slot0, true
	return append(part, port, lookup)
}

// Marked matches packets that have the bits in their mark.
func Marked(mark uint32) Part {
	return Part{
		meta(expr.MetaKeyMARK, reg),
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: native(mark), Xor: native(0)},
		equal(native(mark)),
	}
}

// Mark adds bits to the packet's mark, Unmark takes them off.
func Mark(mark uint32) Part { return setMark(^mark, mark) }

// Unmark undoes Mark.
func Unmark(mark uint32) Part { return setMark(^mark, 0) }

func setMark(keep, add uint32) Part {
	return Part{
		meta(expr.MetaKeyMARK, reg),
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: native(keep), Xor: native(add)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: reg},
	}
}

// words is how many 4-byte slots an address takes.
func words(v6 bool) uint32 {
	if v6 {
		return 4
	}
	return 1
}

// Masquerade translates the source to the address of the device the packet leaves by.
func Masquerade() Part { return Part{&expr.Masq{}} }

// Accept ends this table's say with yes; Drop ends the packet; Return ends the chain.
func Accept() Part { return Part{&expr.Verdict{Kind: expr.VerdictAccept}} }

// Drop discards the packet.
func Drop() Part { return Part{&expr.Verdict{Kind: expr.VerdictDrop}} }

// Count counts packets and bytes, for those who list the rules.
func Count() Part { return Part{&expr.Counter{}} }

// Jump goes through another chain of the table and comes back.
func Jump(chain string) Part { return Part{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}} }

// PortKey is the key of an element of a map of published ports; addr invalid: without address.
func PortKey(proto byte, addr netip.Addr, port uint16) []byte {
	key := []byte{proto, 0, 0, 0}
	if addr.IsValid() {
		key = append(key, addr.AsSlice()...)
	}
	return append(binaryBig(key, port), 0, 0)
}

// PortTarget is the data of such an element: where packets go instead.
func PortTarget(addr netip.Addr, port uint16) []byte {
	return append(binaryBig(addr.AsSlice(), port), 0, 0)
}

func binaryBig(b []byte, port uint16) []byte {
	return append(b, binaryutil.BigEndian.PutUint16(port)...)
}
