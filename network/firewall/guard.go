package firewall

import (
	"errors"
	"fmt"

	"github.com/google/nftables"

	"davit/kernel/nft"
)

// A packet for a published port is translated before the host's firewall sees it, and then it is a
// forwarded one, of which firewalld lets all pass that were translated, and ufw none. What people write
// there ("firewall-cmd --add-port=8080/tcp", "ufw allow 8080/tcp") is about packets to the host. So while
// one of them is active such packets go through a copy of its input rules first:
//
//	davit, chain arriving     first packets of connections to published ports, from outside: marked
//	davit-firewalld           marked packets go through firewalld's filter_INPUT; a drop is a drop
//	davit-ufw (ip and ip6)    through ufw's INPUT: an accept takes the mark off; what it drops keeps the
//	                          mark, for which ufw's routing rules decide ("ufw route allow")
//	davit, chain prerouting   translation
//
// The copy is made anew whenever somebody changes the firewall's tables (Watch), in one transaction;
// while no engine runs it stays as it was.
//
// A copy that cannot be made is replaced by one that lets nothing in.

const (
	markUnsure = 1 << 25 // a packet that the host's firewall has not agreed to

	// after conntrack and mangling, before any translation of destinations
	priorityArriving = -106
	priorityGuard    = -105
)

// source is where a firewall of the host keeps its rules about packets to the host itself.
type source struct {
	family      byte
	table       string
	chain       string
	sign        string // a chain that it leads to when the firewall is active
	ufw         bool
	destination string // suffix of the guard's table
}

func sources() []source {
	return []source{
		{nft.FamilyINet, "firewalld", "filter_INPUT", "filter_INPUT", false, "-firewalld"},
		{nft.FamilyIPv4, "filter", "INPUT", "ufw-before-input", true, "-ufw"},
		{nft.FamilyIPv6, "filter", "INPUT", "ufw6-before-input", true, "-ufw"},
	}
}

func (s source) guard(table string) nft.Guard {
	return nft.Guard{Table: table + s.destination, Priority: priorityGuard, Mark: markUnsure, Program: nft.Program{Family: s.family}}
}

// active returns the program of a firewall, if it is in use.
func (s source) active(chains []*nftables.Chain) (p nft.Program, in bool, err error) {
	drops := false
	for _, c := range chains {
		if byte(c.Table.Family) != s.family || c.Table.Name != s.table {
			continue
		}
		in = in || c.Name == s.sign
		drops = drops || c.Name == s.chain && c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop
	}
	if !in {
		return p, false, nil
	}
	p, err = nft.ReadProgram(s.family, s.table, s.chain)
	p.Drops = drops
	return p, err != nil || p.Leads(s.sign), err
}

// guardAll makes the guards of active firewalls anew and removes the others.
// It notes in others what is active.
func (f *Firewall) guardAll(others *Others) error {
	var errs []error
	guarded := false
	for _, s := range sources() {
		p, in, err := s.active(others.chains)
		guard := s.guard(f.table.Name)
		switch {
		case err != nil:
			errs = append(errs, err, f.shut(guard))
		case in:
			guard.Program = p
			if s.ufw {
				guard.Allowed = "davit-allowed"
				guard.Program = p.Redirect(guard.Allowed)
			}
			if err := guard.Write(); err != nil {
				errs = append(errs, fmt.Errorf("follow the rules of %s: %w; published ports are closed to the outside", s.table, err), f.shut(guard))
			}
		case others.has(s.family, guard.Table):
			errs = append(errs, nft.DeleteTable(s.family, guard.Table))
		}
		guarded = guarded || in
		others.UFW = others.UFW || in && s.ufw
		others.Firewalld = others.Firewalld || in && !s.ufw
	}
	if f.table.guarded != guarded {
		f.table.guarded = guarded
		errs = append(errs, f.rebuild())
	}
	return errors.Join(errs...)
}

// shut closes published ports to the outside.
func (f *Firewall) shut(guard nft.Guard) error {
	guard.Program, guard.Closed = nft.Program{Family: guard.Program.Family}, true
	return guard.Write()
}

// arriving marks the first packets of connections from outside to published ports.
func (t table) arriving(c *nftables.Conn) {
	priority := nftables.ChainPriority(priorityArriving)
	rule := t.chain(c, "arriving", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, &priority)
	rule(nft.Known(), nft.Accept())
	rule(nft.InIf(t.bridges), nft.Accept())
	for _, f := range t.families {
		rule(nft.Family(f.v6), nft.Published(f.ports, f.v6, true), nft.Mark(markUnsure))
		rule(nft.Family(f.v6), nft.DstLocal(), nft.Published(f.any, f.v6, false), nft.Mark(markUnsure))
	}
}
