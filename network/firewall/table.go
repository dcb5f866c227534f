package firewall

import (
	"errors"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"

	"davit/kernel/nft"
	"davit/network/ipam"
)

// family are the sets of one address family.
type family struct {
	v6                  bool
	open, subnets, masq *nftables.Set
	ports, any          *nftables.Set
	loopback            netip.Prefix
}

// table is the shape of the nft table.
type table struct {
	*nftables.Table
	onlyOwn                 bool
	guarded                 bool // the host's firewall has its say about published ports
	bridges, internal, same *nftables.Set
	families                [2]family
}

func newTable(name string) table {
	t := table{Table: &nftables.Table{Family: nftables.TableFamilyINet, Name: name}}
	var id uint32
	set := func(name string, kind nftables.SetDatatype) *nftables.Set {
		id++
		s := &nftables.Set{Table: t.Table, ID: id, Name: name, KeyType: kind, KeyByteOrder: binaryutil.BigEndian}
		if kind == nftables.TypeIFName {
			s.KeyByteOrder = binaryutil.NativeEndian
		}
		return s
	}
	ifname := nftables.TypeIFName
	t.bridges, t.internal = set("bridges", ifname), set("internal", ifname)
	t.same = concatenated(set("same", nftables.MustConcatSetType(ifname, ifname)))
	for i, addr := range []nftables.SetDatatype{nftables.TypeIPAddr, nftables.TypeIP6Addr} {
		f := family{v6: i == 1, loopback: netip.MustParsePrefix("127.0.0.0/8")}
		suffix := "4"
		if f.v6 {
			suffix, f.loopback = "6", netip.MustParsePrefix("::1/128")
		}
		f.open = set("open"+suffix, ifname)
		f.subnets, f.masq = interval(set("subnets"+suffix, addr)), interval(set("masq"+suffix, addr))
		proto, port := nftables.TypeInetProto, nftables.TypeInetService
		f.ports = mapTo(concatenated(set("ports"+suffix, nftables.MustConcatSetType(proto, addr, port))), addr)
		f.any = mapTo(concatenated(set("any"+suffix, nftables.MustConcatSetType(proto, port))), addr)
		t.families[i] = f
	}
	return t
}

func concatenated(s *nftables.Set) *nftables.Set {
	s.Concatenation = true
	return s
}

func interval(s *nftables.Set) *nftables.Set {
	s.Interval = true
	return s
}

// mapTo makes a set a map to an address and a port.
func mapTo(s *nftables.Set, addr nftables.SetDatatype) *nftables.Set {
	s.IsMap = true
	s.DataType = nftables.MustConcatSetType(addr, nftables.TypeInetService)
	return s
}

func (t table) sets() []*nftables.Set {
	all := []*nftables.Set{t.bridges, t.internal, t.same}
	for _, f := range t.families {
		all = append(all, f.open, f.subnets, f.masq, f.ports, f.any)
	}
	return all
}

// create replaces the table by one with all its rules and no elements.
func (t table) create(c *nftables.Conn) error {
	t.delete(c)
	c.AddTable(t.Table)
	for _, s := range t.sets() {
		if err := c.AddSet(s, nil); err != nil {
			return err
		}
	}
	t.rawPrerouting(c)
	if t.guarded {
		t.arriving(c)
	}
	t.redirect(c, "prerouting", nftables.ChainHookPrerouting, true)
	t.redirect(c, "output", nftables.ChainHookOutput, false)
	t.forward(c)
	t.postrouting(c)
	return nil
}

// delete removes the table, whether it is there or not.
func (t table) delete(c *nftables.Conn) {
	c.AddTable(t.Table)
	c.DelTable(t.Table)
}

// chain adds a base chain and returns how to add rules to it.
func (t table) chain(c *nftables.Conn, name string, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority) func(...nft.Part) {
	policy := nftables.ChainPolicyAccept
	chain := c.AddChain(&nftables.Chain{Name: name, Table: t.Table, Type: kind, Hooknum: hook, Priority: priority, Policy: &policy})
	return func(parts ...nft.Part) {
		c.AddRule(&nftables.Rule{Table: t.Table, Chain: chain, Exprs: []expr.Any(nft.Rule(parts...))})
	}
}

// rawPrerouting closes what route_localnet on the bridges opens: without it a container could speak to
// what listens on the host's 127.0.0.1, or in its name.
func (t table) rawPrerouting(c *nftables.Conn) {
	rule := t.chain(c, "raw_prerouting", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	lo := t.families[0].loopback
	rule(nft.InIf(t.bridges), nft.V4(), nft.Src(lo), nft.Count(), nft.Drop())
	rule(nft.InIf(t.bridges), nft.V4(), nft.Dst(lo), nft.Count(), nft.Drop())
}

// redirect sends packets for published ports to their containers. A packet that arrives for a loopback
// address is left alone: translated, it would get past the kernel's check for such strays, and a
// neighbour could reach ports published on 127.0.0.1 only. So are the host's own to ::1, which have a relay.
func (t table) redirect(c *nftables.Conn, name string, hook *nftables.ChainHook, arriving bool) {
	rule := t.chain(c, name, nftables.ChainTypeNAT, hook, nftables.ChainPriorityNATDest)
	for _, f := range t.families {
		if arriving || f.v6 {
			rule(nft.Family(f.v6), nft.Dst(f.loopback), nft.Accept())
		}
		rule(nft.Family(f.v6), nft.DNAT(f.ports, f.v6, true))
		rule(nft.Family(f.v6), nft.DstLocal(), nft.DNAT(f.any, f.v6, false))
	}
}

func (t table) forward(c *nftables.Conn) {
	rule := t.chain(c, "forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	rule(nft.Known(), nft.Accept())
	rule(nft.InOutIf(t.same), nft.Accept())
	rule(nft.InIf(t.internal), nft.Count(), nft.Drop())
	rule(nft.OutIf(t.internal), nft.Count(), nft.Drop())
	rule(nft.OutIf(t.bridges), nft.Redirected(), nft.Accept())
	for _, f := range t.families {
		rule(nft.Family(f.v6), nft.OutIf(f.open), nft.Accept())
	}
	rule(nft.OutIf(t.bridges), nft.Count(), nft.Drop())
	rule(nft.InIf(t.bridges), nft.Accept())
	if t.onlyOwn {
		rule(nft.Count(), nft.Drop())
	}
}

// postrouting masquerades what leaves. Towards a container, it does so only where the answer would not
// come back the same way: from another container (straight over the bridge), and from the host's
// loopback. What comes from outside keeps its source.
func (t table) postrouting(c *nftables.Conn) {
	rule := t.chain(c, "postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	for _, f := range t.families {
		rule(nft.OutIf(t.bridges), nft.Redirected(), nft.Family(f.v6), nft.SrcIn(f.subnets, f.v6), nft.Masquerade())
	}
	rule(nft.OutIf(t.bridges), nft.Redirected(), nft.V4(), nft.Src(t.families[0].loopback), nft.Masquerade())
	rule(nft.OutIf(t.bridges), nft.Accept())
	for _, f := range t.families {
		rule(nft.InIf(t.bridges), nft.Family(f.v6), nft.SrcIn(f.masq, f.v6), nft.Masquerade())
	}
}

// elements of one network in one set.
type elements struct {
	set  *nftables.Set
	list []nftables.SetElement
}

// of lists the elements of a network.
func (t table) of(n Net) []elements {
	name := []nftables.SetElement{{Key: nft.IfName(n.Bridge)}}
	pair := []nftables.SetElement{{Key: append(nft.IfName(n.Bridge), nft.IfName(n.Bridge)...)}}
	all := []elements{{t.bridges, name}, {t.same, pair}}
	if n.Internal {
		all = append(all, elements{t.internal, name})
	}
	for _, f := range t.families {
		if f.v6 && n.Open6 || !f.v6 && n.Open4 {
			all = append(all, elements{f.open, name})
		}
		for _, subnet := range n.Subnets {
			if subnet.Addr().Is6() != f.v6 {
				continue
			}
			all = append(all, elements{f.subnets, rangeElements(subnet)})
			if n.Masquerade && !n.Internal {
				all = append(all, elements{f.masq, rangeElements(subnet)})
			}
		}
	}
	return all
}

// rangeElements is an address range as an interval set holds it: its first address, and the first behind it.
func rangeElements(p netip.Prefix) []nftables.SetElement {
	list := []nftables.SetElement{{Key: p.Masked().Addr().AsSlice()}}
	if end := ipam.Last(p).Next(); end.IsValid() {
		list = append(list, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
	}
	return list
}

func (t table) addNet(c *nftables.Conn, n Net) error {
	var errs []error
	for _, e := range t.of(n) {
		errs = append(errs, nft.AddElements(c, e.set, e.list))
	}
	return errors.Join(errs...)
}

func (t table) deleteNet(c *nftables.Conn, n Net) error {
	var errs []error
	for _, e := range t.of(n) {
		errs = append(errs, nft.DeleteElements(c, e.set, e.list))
	}
	return errors.Join(errs...)
}

// portElements sorts ports into the maps they belong to.
func (t table) portElements(ports []Mapping) map[*nftables.Set][]nftables.SetElement {
	sorted := map[*nftables.Set][]nftables.SetElement{}
	for _, p := range ports {
		f := t.families[0]
		if p.To.Addr().Is6() {
			f = t.families[1]
		}
		set, host := f.ports, p.HostIP
		if host.IsUnspecified() {
			set, host = f.any, netip.Addr{}
		}
		sorted[set] = append(sorted[set], nftables.SetElement{
			Key: nft.PortKey(p.Proto, host, p.HostPort),
			Val: nft.PortTarget(p.To.Addr(), p.To.Port()),
		})
	}
	return sorted
}

func (t table) addPorts(c *nftables.Conn, ports []Mapping) error {
	for set, list := range t.portElements(ports) {
		if err := nft.AddElements(c, set, list); err != nil {
			return err
		}
	}
	return nil
}

func (t table) deletePorts(c *nftables.Conn, ports []Mapping) error {
	for set, list := range t.portElements(ports) {
		if err := nft.DeleteElements(c, set, list); err != nil {
			return err
		}
	}
	return nil
}
