package netlink

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"syscall"
)

// Numbers of linux/if_link.h, linux/veth.h and linux/if_addr.h that package syscall lacks.
const (
	iflaMaster      = 10
	iflaLinkInfo    = 18
	iflaNetNSFd     = 28
	iflaProtInfo    = 12
	iflaAFSpec      = 26
	inet6GenMode    = 8  // IFLA_INET6_ADDR_GEN_MODE
	iflaNumTxQueues = 31 // IFLA_NUM_TX_QUEUES
	iflaNumRxQueues = 32 // IFLA_NUM_RX_QUEUES
	genModeNone     = 1
	iflaInfoKind    = 1
	iflaInfoData    = 2
	vethInfoPeer    = 1
	brPortState     = 1
	brPortMode      = 4 // hairpin
	brPortIsolated  = 33
	brForwardDelay  = 1
	ifaFlags        = 8
	ifaFNoDAD       = 0x02
	ndaLLAddr       = 2
	ntfMaster       = 0x04 // the bridge's own table
	nudStatic       = 0x40 // static: does not age, and moves when the address shows up elsewhere
	nested          = 0x8000
)

// Request is one rtnetlink message, without sequence number. Describe names it in errors.
type Request struct {
	kind     uint16
	flags    uint16
	body     []byte
	describe string
}

// message collects the body of a request: a fixed header and attributes.
type message []byte

// attr appends an attribute; see rtnetlink(7), "Routing attributes".
func (m message) attr(kind uint16, value []byte) message {
	m = binary.NativeEndian.AppendUint16(m, uint16(4+len(value)))
	m = binary.NativeEndian.AppendUint16(m, kind)
	m = append(m, value...)
	return m.align()
}

func (m message) align() message {
	for len(m)%4 != 0 {
		m = append(m, 0)
	}
	return m
}

func (m message) u32(kind uint16, value uint32) message {
	return m.attr(kind, binary.NativeEndian.AppendUint32(nil, value))
}

func (m message) u8(kind uint16, value bool) message {
	b := byte(0)
	if value {
		b = 1
	}
	return m.attr(kind, []byte{b})
}

func (m message) text(kind uint16, value string) message {
	return m.attr(kind, append([]byte(value), 0))
}

func (m message) nest(kind uint16, inner message) message { return m.attr(kind|nested, inner) }

// linkHeader is a struct ifinfomsg.
func linkHeader(family byte, index int, flags, change uint32) message {
	m := message{family, 0, 0, 0}
	m = binary.NativeEndian.AppendUint32(m, uint32(index))
	m = binary.NativeEndian.AppendUint32(m, flags)
	return binary.NativeEndian.AppendUint32(m, change)
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return syscall.AF_INET
	}
	return syscall.AF_INET6
}

// Veth describes a pair of devices: one end here, the peer in another namespace.
type Veth struct {
	Name    string
	Master  int // index of the bridge this end is put on; 0: none
	MTU     int
	MAC     []byte // nil: random
	Peer    string
	PeerMAC []byte
	PeerNS  uintptr // open file of the namespace
}

// AddVeth makes the pair; both ends are down.
func AddVeth(v Veth) Request {
	peer := linkHeader(0, 0, 0, 0).text(syscall.IFLA_IFNAME, v.Peer).u32(syscall.IFLA_MTU, uint32(v.MTU))
	if v.PeerMAC != nil {
		peer = peer.attr(syscall.IFLA_ADDRESS, v.PeerMAC)
	}
	peer = peer.oneQueue().u32(iflaNetNSFd, uint32(v.PeerNS))
	m := linkHeader(0, 0, 0, 0).text(syscall.IFLA_IFNAME, v.Name).u32(syscall.IFLA_MTU, uint32(v.MTU))
	if v.Master != 0 {
		m = m.u32(iflaMaster, uint32(v.Master))
	}
	if v.MAC != nil {
		m = m.attr(syscall.IFLA_ADDRESS, v.MAC)
	}
	info := message{}.attr(iflaInfoKind, []byte("veth")).nest(iflaInfoData, message{}.nest(vethInfoPeer, peer))
	m = m.oneQueue().nest(iflaLinkInfo, info)
	return Request{syscall.RTM_NEWLINK, syscall.NLM_F_CREATE | syscall.NLM_F_EXCL, m, "add veth " + v.Name}
}

// oneQueue asks for what a veth has in use anyway. Without it the kernel makes a queue for each processor,
// takes all but one out of service again, and waits for the network stack (synchronize_net) each time.
func (m message) oneQueue() message { return m.u32(iflaNumTxQueues, 1).u32(iflaNumRxQueues, 1) }

// AddBridge makes a bridge that forwards from its first moment on; it is down. mac nil: random.
func AddBridge(name string, mtu int, mac []byte) Request {
	m := linkHeader(0, 0, 0, 0).text(syscall.IFLA_IFNAME, name).u32(syscall.IFLA_MTU, uint32(mtu))
	if mac != nil {
		m = m.attr(syscall.IFLA_ADDRESS, mac)
	}
	info := message{}.attr(iflaInfoKind, []byte("bridge")).nest(iflaInfoData, message{}.u32(brForwardDelay, 0))
	return Request{syscall.RTM_NEWLINK, syscall.NLM_F_CREATE | syscall.NLM_F_EXCL, m.nest(iflaLinkInfo, info), "add bridge " + name}
}

// SetUp brings a link up, by index.
func SetUp(index int) Request {
	return Request{syscall.RTM_SETLINK, 0, linkHeader(0, index, syscall.IFF_UP, syscall.IFF_UP), "set link up"}
}

// NoLinkLocal keeps a link that is down from making itself an IPv6 address when it comes up, and so from
// saying anything by IPv6 (Linux 3.17). It fails with EAFNOSUPPORT on a kernel without IPv6.
func NoLinkLocal(index int) Request {
	inet6 := message{}.attr(inet6GenMode, []byte{genModeNone})
	m := linkHeader(0, index, 0, 0).nest(iflaAFSpec, message{}.nest(syscall.AF_INET6, inet6))
	return Request{syscall.RTM_SETLINK, 0, m, "take IPv6 off link"}
}

// SetUpName brings a link up, by name.
func SetUpName(name string) Request {
	m := linkHeader(0, 0, syscall.IFF_UP, syscall.IFF_UP).text(syscall.IFLA_IFNAME, name)
	return Request{syscall.RTM_NEWLINK, 0, m, "set up link " + name}
}

// SetPort sets the flags of a link as a port of its bridge: hairpin sends frames back where they came
// from, isolated ports cannot reach each other (Linux 4.18).
func SetPort(index int, hairpin, isolated bool) Request {
	port := message{}.u8(brPortMode, hairpin).u8(brPortIsolated, isolated)
	m := linkHeader(syscall.AF_BRIDGE, index, 0, 0).nest(iflaProtInfo, port)
	return Request{syscall.RTM_SETLINK, 0, m, "set bridge port"}
}

// DisablePort makes a bridge neither take frames from a port nor send any to it. Unlike removing the
// port it waits for nothing.
func DisablePort(index int) Request {
	m := linkHeader(syscall.AF_BRIDGE, index, 0, 0).nest(iflaProtInfo, message{}.attr(brPortState, []byte{0}))
	return Request{syscall.RTM_SETLINK, 0, m, "disable bridge port"}
}

// SetFDB tells the bridge that a MAC is behind a port, whatever it has learnt before.
func SetFDB(index int, mac []byte) Request {
	m := message{syscall.AF_BRIDGE, 0, 0, 0}
	m = binary.NativeEndian.AppendUint32(m, uint32(index))
	m = binary.NativeEndian.AppendUint16(m, nudStatic)
	m = append(m, ntfMaster, 0).attr(ndaLLAddr, mac)
	return Request{syscall.RTM_NEWNEIGH, syscall.NLM_F_CREATE | syscall.NLM_F_REPLACE, m, "set forwarding entry"}
}

// DelLink removes a link by name.
func DelLink(name string) Request {
	return Request{syscall.RTM_DELLINK, 0, linkHeader(0, 0, 0, 0).text(syscall.IFLA_IFNAME, name), "delete link " + name}
}

// AddAddr gives a link an address, usable at once (no duplicate address detection).
func AddAddr(index int, addr netip.Prefix) Request {
	m := message{family(addr.Addr()), byte(addr.Bits()), 0, 0}
	m = binary.NativeEndian.AppendUint32(m, uint32(index))
	ip := addr.Addr().AsSlice()
	m = m.attr(syscall.IFA_LOCAL, ip).attr(syscall.IFA_ADDRESS, ip)
	if addr.Addr().Is4() && addr.Bits() < 31 {
		m = m.attr(syscall.IFA_BROADCAST, broadcast(addr))
	}
	if addr.Addr().Is6() {
		m = m.u32(ifaFlags, ifaFNoDAD)
	}
	return Request{syscall.RTM_NEWADDR, syscall.NLM_F_CREATE | syscall.NLM_F_EXCL, m, "add address " + addr.String()}
}

// DelAddr takes an address from a link.
func DelAddr(index int, addr netip.Prefix) Request {
	m := message{family(addr.Addr()), byte(addr.Bits()), 0, 0}
	m = binary.NativeEndian.AppendUint32(m, uint32(index))
	return Request{syscall.RTM_DELADDR, 0, m.attr(syscall.IFA_LOCAL, addr.Addr().AsSlice()), "delete address " + addr.String()}
}

func broadcast(p netip.Prefix) []byte {
	b := slices.Clone(p.Addr().AsSlice())
	for bit := p.Bits(); bit < 8*len(b); bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	return b
}

// AddRoute routes dst by gateway through a link, replacing a route to the same destination.
func AddRoute(index int, dst netip.Prefix, gateway netip.Addr) Request {
	m := route(dst).u32(syscall.RTA_OIF, uint32(index))
	if gateway.IsValid() {
		m = m.attr(syscall.RTA_GATEWAY, gateway.AsSlice())
	}
	return Request{syscall.RTM_NEWROUTE, syscall.NLM_F_CREATE | syscall.NLM_F_REPLACE, m, "add route to " + dst.String()}
}

// route is a struct rtmsg for the main table, and its destination.
func route(dst netip.Prefix) message {
	m := message{
		family(dst.Addr()), byte(dst.Bits()), 0, 0,
		syscall.RT_TABLE_MAIN, syscall.RTPROT_BOOT, syscall.RT_SCOPE_UNIVERSE, syscall.RTN_UNICAST, 0, 0, 0, 0,
	}
	if dst.Bits() > 0 {
		m = m.attr(syscall.RTA_DST, dst.Masked().Addr().AsSlice())
	}
	return m
}
