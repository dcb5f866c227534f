package nft

import (
	"encoding/binary"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
)

// Bits of linux/netfilter/xt_conntrack.h.
const (
	xtEstablished = 1 << 1
	xtRelated     = 1 << 2
	xtDNAT        = 1 << 7
)

// XtKnown is Known in the form of iptables' match "conntrack". In chains that iptables manages, other
// forms would keep it from listing its own rules.
func XtKnown() Part { return conntrack(xtEstablished | xtRelated) }

// XtRedirected is Redirected in the form of iptables' match "conntrack".
func XtRedirected() Part { return conntrack(xtDNAT) }

func conntrack(states uint16) Part {
	info := &xt.ConntrackMtinfo3{ConntrackMtinfo2: xt.ConntrackMtinfo2{
		ConntrackMtinfoBase: xt.ConntrackMtinfoBase{MatchFlags: uint16(xt.ConntrackState)},
		StateMask:           states,
	}}
	return Part{&expr.Match{Name: "conntrack", Rev: 3, Info: info}}
}

// XtUnmarked matches packets without the bits in their mark, in the form of iptables' match "mark".
func XtUnmarked(mark uint32) Part {
	info := binary.NativeEndian.AppendUint32(nil, mark) // struct xt_mark_mtinfo1: mark, mask, invert
	info = binary.NativeEndian.AppendUint32(info, mark)
	unknown := xt.Unknown(append(info, 1, 0, 0, 0))
	return Part{&expr.Match{Name: "mark", Rev: 1, Info: &unknown}}
}
