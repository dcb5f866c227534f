package netlink

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
)

// Flow names conntrack entries: all of the protocol sent to one port, or exchanged with one address.
type Flow struct {
	Proto byte       // IP protocol number
	Port  uint16     // destination port as the sender wrote it; 0: any
	Addr  netip.Addr // destination as the sender wrote it, or who answers; zero: any
	// Unanswered limits it to connections of TCP whose first packet had no answer.
	Unanswered bool
}

// FlushConntrack forgets the connections that match any of the flows, so that their next packet is
// translated by the rules of now. A datagram socket that keeps sending would otherwise keep its old
// translation for ever.
func FlushConntrack(flows []Flow) error {
	if len(flows) == 0 {
		return nil
	}
	var failed []error
	for _, family := range []netlink.InetFamily{syscall.AF_INET, syscall.AF_INET6} {
		_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, flowFilter(flows))
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			failed = append(failed, fmt.Errorf("flush conntrack: %w", err))
		}
	}
	return errors.Join(failed...)
}

// flowFilter selects conntrack entries for deletion.
type flowFilter []Flow

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (f flowFilter) MatchConntrackFlow(entry *netlink.ConntrackFlow) bool {
	return slices.ContainsFunc(f, func(want Flow) bool { return want.matches(entry) })
}

func (f Flow) matches(entry *netlink.ConntrackFlow) bool {
	if f.Proto != entry.Forward.Protocol || f.Port != 0 && f.Port != entry.Forward.DstPort {
		return false
	}
	if f.Unanswered && !unanswered(entry) {
		return false
	}
	if !f.Addr.IsValid() {
		return true
	}
	to, _ := netip.AddrFromSlice(entry.Forward.DstIP)
	from, _ := netip.AddrFromSlice(entry.Reverse.SrcIP)
	return f.Addr == to.Unmap() || f.Addr == from.Unmap()
}

// unanswered tells whether the kernel is in TCP_CONNTRACK_SYN_SENT with an entry (nf_conntrack_tcp.h).
func unanswered(entry *netlink.ConntrackFlow) bool {
	const synSent = 1
	tcp, ok := entry.ProtoInfo.(*netlink.ProtoInfoTCP)
	return ok && tcp.State == synSent
}
