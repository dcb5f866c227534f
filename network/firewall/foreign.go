package firewall

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"

	"davit/kernel/nft"
)

// Others is what else filters forwarded packets on this host. Where somebody's chain drops by default,
// an accept in davit's own table is of no use: containers would have no network. So davit puts rules
// into such chains, marked as its own: what comes from its bridges passes (its own table has filtered
// it), and so do the answers, and what goes to published ports, of which the guard has made sure.
//
//	                            containers get out     published ports are open from outside
//	ufw                         yes                    if ufw allows the host's port, or routing to the container's
//	firewalld                   yes                    if the zone allows the host's port
//	docker, or an administrator yes                    yes
//
// Chains of legacy iptables (not nf_tables) are not seen.
type Others struct {
	UFW       bool
	Firewalld bool
	chains    []*nftables.Chain
}

// lookAround lists the chains of the current thread's network namespace.
func lookAround() (Others, error) {
	var o Others
	conn, err := nftables.New()
	if err != nil {
		return o, fmt.Errorf("open nftables socket: %w", err)
	}
	if o.chains, err = conn.ListChains(); err != nil {
		return o, fmt.Errorf("list nft chains: %w", err)
	}
	return o, nil
}

// has tells whether there is such a table, with a chain.
func (o Others) has(family byte, table string) bool {
	return slices.ContainsFunc(o.chains, func(c *nftables.Chain) bool {
		return byte(c.Table.Family) == family && c.Table.Name == table
	})
}

// forwarding tells whether other firewalls let forwarded packets pass in the chain, and whether it is one
// that drops them unless a rule accepts them. Chains of tables that davit does not know have owners who
// list what they forward, and are not touched.
func forwarding(c *nftables.Chain) (known, drops bool) {
	switch {
	case c.Table.Name == "firewalld" && c.Table.Family == nftables.TableFamilyINet:
		known = c.Name == "filter_FORWARD"
		return known, known
	case c.Table.Name == "filter" && c.Table.Family != nftables.TableFamilyINet:
		known = c.Name == "FORWARD"
	}
	return known, known && c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop
}

// mark is the comment of davit's rules in other chains.
func mark(table, subject string) []byte {
	return userdata.AppendString(nil, userdata.TypeComment, table+" "+subject)
}

// subject is what rules for a bridge are about, as their comments say it.
func subject(bridge string, others Others) string {
	if others.UFW {
		return bridge + " by ufw"
	}
	return bridge
}

// wants tells whether rules with that comment shall be in other chains.
func (f *Firewall) wants(about string, others Others) bool {
	for bridge := range f.nets {
		if about == subject(bridge, others) {
			return true
		}
	}
	return false
}

// Coexist makes other firewalls let the traffic of all networks through, as Others says, and takes back
// the rules for networks that are no more. To be called after networks change.
func (f *Firewall) Coexist() (Others, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	others, err := lookAround()
	if err != nil {
		return others, err
	}
	errs := []error{f.heal(others), f.guardAll(&others)}
	errs = append(errs, f.dismiss(func(subject string) bool { return f.wants(subject, others) }))
	for _, chain := range others.chains {
		if _, drops := forwarding(chain); !drops {
			continue
		}
		for bridge := range f.nets {
			if err := f.admitTo(chain, bridge, others); err != nil {
				errs = append(errs, fmt.Errorf("admit %s to chain %s: %w", bridge, chain.Name, err))
			}
		}
	}
	return others, errors.Join(errs...)
}

// heal writes the table again if somebody has removed it.
func (f *Firewall) heal(others Others) error {
	if !f.applied || others.has(nft.FamilyINet, f.table.Name) {
		return nil
	}
	return f.rebuild()
}

// admitTo puts rules at the top of a chain that has none for the bridge yet.
func (f *Firewall) admitTo(chain *nftables.Chain, bridge string, others Others) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	rules, err := conn.GetRules(chain.Table, chain)
	if err != nil {
		return err
	}
	tag := mark(f.table.Name, subject(bridge, others))
	if slices.ContainsFunc(rules, func(r *nftables.Rule) bool { return string(r.UserData) == string(tag) }) {
		return nil
	}
	known, published := nft.XtKnown(), nft.XtRedirected()
	if chain.Table.Name != "filter" {
		known, published = nft.Known(), nft.Redirected()
	}
	if others.UFW {
		published = append(published, nft.XtUnmarked(markUnsure)...)
	}
	return f.conn.Do(func(c *nftables.Conn) error {
		insert := func(parts ...nft.Part) {
			c.InsertRule(&nftables.Rule{Table: chain.Table, Chain: chain, Exprs: nft.Rule(parts...), UserData: tag})
		}
		insert(nft.InIfIs(bridge), nft.Count(), nft.Accept())
		insert(nft.OutIfIs(bridge), known, nft.Count(), nft.Accept())
		insert(nft.OutIfIs(bridge), published, nft.Count(), nft.Accept())
		return nil
	})
}

// dismiss removes davit's rules from other chains, but those to keep.
func (f *Firewall) dismiss(keep func(subject string) bool) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables socket: %w", err)
	}
	chains, err := conn.ListChains()
	if err != nil {
		return fmt.Errorf("list nft chains: %w", err)
	}
	var gone []*nftables.Rule
	for _, chain := range chains {
		if known, _ := forwarding(chain); !known {
			continue
		}
		rules, err := conn.GetRules(chain.Table, chain)
		if err != nil {
			return fmt.Errorf("list nft rules: %w", err)
		}
		for _, r := range rules {
			comment, _ := userdata.GetString(r.UserData, userdata.TypeComment)
			about, ours := strings.CutPrefix(comment, f.table.Name+" ")
			if ours && !keep(about) {
				gone = append(gone, r)
			}
		}
	}
	if len(gone) == 0 {
		return nil
	}
	return f.conn.Do(func(c *nftables.Conn) error {
		for _, r := range gone {
			if err := c.DelRule(r); err != nil {
				return err
			}
		}
		return nil
	})
}
