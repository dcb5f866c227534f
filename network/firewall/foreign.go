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
// it), and so do the answers.
//
//	by policy drop of           containers get out     published ports are open from outside
//	ufw                         yes                    if ufw's routing rules allow: "ufw route allow to any port 80"
//	docker, or an administrator yes                    yes
//	firewalld                   only if its zones allow; davit changes nothing there
//
// Chains of legacy iptables (not nf_tables) are not seen.
type Others struct {
	UFW       bool
	Firewalld bool
	drops     []*nftables.Chain
}

// LookAround finds the other firewalls of the current thread's network namespace.
func LookAround() (Others, error) {
	var o Others
	conn, err := nftables.New()
	if err != nil {
		return o, fmt.Errorf("open nftables socket: %w", err)
	}
	chains, err := conn.ListChains()
	if err != nil {
		return o, fmt.Errorf("list nft chains: %w", err)
	}
	for _, c := range chains {
		o.UFW = o.UFW || c.Name == "ufw-before-forward"
		o.Firewalld = o.Firewalld || c.Table.Name == "firewalld"
		if dropsForwarded(c) {
			o.drops = append(o.drops, c)
		}
	}
	return o, nil
}

// dropsForwarded tells whether the chain is one of iptables-nft's that drops forwarded packets unless a
// rule accepts them. Chains of other tables have owners who list what they forward, and are not touched.
func dropsForwarded(c *nftables.Chain) bool {
	ours := c.Table.Family == nftables.TableFamilyIPv4 || c.Table.Family == nftables.TableFamilyIPv6
	return ours && c.Table.Name == "filter" && c.Name == "FORWARD" && c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop
}

// mark is the comment of davit's rules in other chains.
func mark(table, bridge string) []byte {
	return userdata.AppendString(nil, userdata.TypeComment, table+" "+bridge)
}

// Coexist makes other firewalls let the traffic of all networks through, as Others says, and takes back
// the rules for networks that are no more. To be called after networks change.
func (f *Firewall) Coexist() (Others, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	others, err := LookAround()
	if err != nil {
		return others, err
	}
	errs := []error{f.dismiss(func(bridge string) bool { _, ok := f.nets[bridge]; return ok })}
	for _, chain := range others.drops {
		for bridge := range f.nets {
			if err := f.admitTo(chain, bridge, !others.UFW); err != nil {
				errs = append(errs, fmt.Errorf("admit %s to chain %s: %w", bridge, chain.Name, err))
			}
		}
	}
	return others, errors.Join(errs...)
}

// admitTo puts rules at the top of a chain that has none for the bridge yet.
func (f *Firewall) admitTo(chain *nftables.Chain, bridge string, published bool) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	rules, err := conn.GetRules(chain.Table, chain)
	if err != nil {
		return err
	}
	tag := mark(f.table.Name, bridge)
	if slices.ContainsFunc(rules, func(r *nftables.Rule) bool { return string(r.UserData) == string(tag) }) {
		return nil
	}
	return f.conn.Do(func(c *nftables.Conn) error {
		insert := func(parts ...nft.Part) {
			c.InsertRule(&nftables.Rule{Table: chain.Table, Chain: chain, Exprs: nft.Rule(parts...), UserData: tag})
		}
		insert(nft.InIfIs(bridge), nft.Count(), nft.Accept())
		insert(nft.OutIfIs(bridge), nft.XtKnown(), nft.Count(), nft.Accept())
		if published {
			insert(nft.OutIfIs(bridge), nft.XtRedirected(), nft.Count(), nft.Accept())
		}
		return nil
	})
}

// dismiss removes davit's rules from other chains, but those of bridges to keep.
func (f *Firewall) dismiss(keep func(bridge string) bool) error {
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
		if chain.Table.Name != "filter" || chain.Name != "FORWARD" {
			continue
		}
		rules, err := conn.GetRules(chain.Table, chain)
		if err != nil {
			return fmt.Errorf("list nft rules: %w", err)
		}
		for _, r := range rules {
			comment, _ := userdata.GetString(r.UserData, userdata.TypeComment)
			bridge, ours := strings.CutPrefix(comment, f.table.Name+" ")
			if ours && !keep(bridge) {
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
