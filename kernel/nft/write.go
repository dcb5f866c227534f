package nft

import (
	"errors"
	"fmt"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
)

// batch is a transaction of raw messages.
type batch struct {
	family   byte
	table    string
	messages []netlink.Message
	errs     []error
}

func (b *batch) add(kind uint16, flags netlink.HeaderFlags, attrs ...netlink.Attribute) {
	m, err := message(subsystem<<8|kind, flags|netlink.Acknowledge, b.family, 0,
		append([]netlink.Attribute{text(attrTable, b.table)}, attrs...)...)
	b.messages, b.errs = append(b.messages, m), append(b.errs, err)
}

// replace begins the table anew.
func (b *batch) replace() {
	b.add(msgNewTable, netlink.Create)
	b.add(msgDelTable, 0)
	b.add(msgNewTable, netlink.Create)
}

func (b *batch) rule(chain string, expressions []netlink.Attribute) {
	attrs := []netlink.Attribute{text(ruleChain, chain), nested(ruleExpressions, expressions...)}
	if proto := transport(expressions); proto != 0 {
		attrs = append(attrs, nested(ruleCompat, number(compatProto, uint32(proto)), number(compatFlags, 0)))
	}
	b.add(msgNewRule, netlink.Create|netlink.Append, attrs...)
}

// transport is the protocol that a rule asks for. The kernel does not show it beside the expressions,
// but iptables' matches of ports want to be told.
func transport(expressions []netlink.Attribute) byte {
	asked := false
	for _, attr := range expressions {
		e, err := decodeExpr(attr)
		if err != nil {
			return 0
		}
		if e.name == "cmp" && asked && e.data.number(cmpOp) == cmpEqual {
			value, err := parse(e.data[cmpData].Data)
			if err == nil && len(value[1].Data) == 1 {
				return value[1].Data[0]
			}
		}
		asked = e.name == "meta" && e.data.number(metaKey) == metaKeyL4Proto
	}
	return 0
}

// marshal encodes parts of this package's vocabulary.
func marshal(family byte, parts ...Part) ([]netlink.Attribute, error) {
	var all []netlink.Attribute
	for _, e := range Rule(parts...) {
		data, err := expr.Marshal(family, e)
		if err != nil {
			return nil, fmt.Errorf("encode nft expression: %w", err)
		}
		all = append(all, netlink.Attribute{Type: listElement | netlink.Nested, Data: data})
	}
	return all, nil
}

// Guard is a table of one base chain in the prerouting hook: packets with Mark go through a program.
type Guard struct {
	Table    string
	Priority int32
	Mark     uint32
	Allowed  string // chain in which the mark is taken off; empty: none
	Program  Program
	Closed   bool // no program: marked packets are dropped
}

// Write replaces the table by the guard, in one transaction.
func (g Guard) Write() error {
	b := &batch{family: g.Program.Family, table: g.Table}
	b.replace()
	b.base("prerouting", g.Priority)
	if g.Closed {
		b.parts("prerouting", Marked(g.Mark), Count(), Drop())
		return b.commit()
	}
	g.skeleton(b)
	for chain, rules := range g.Program.rules {
		for _, rule := range rules {
			b.rule(chain, rule)
		}
	}
	b.parts("prerouting", Marked(g.Mark), Jump(g.Program.entry))
	switch {
	case g.Allowed != "" && !g.Program.Drops:
		b.parts("prerouting", Marked(g.Mark), Unmark(g.Mark))
	case g.Allowed == "" && g.Program.Drops:
		b.parts("prerouting", Marked(g.Mark), Drop())
	}
	return b.commit()
}

// skeleton is what rules refer to: chains, and sets with their elements.
func (g Guard) skeleton(b *batch) {
	for _, chain := range g.Program.chains {
		b.add(msgNewChain, netlink.Create, text(chainName, chain))
	}
	if g.Allowed != "" {
		b.add(msgNewChain, netlink.Create, text(chainName, g.Allowed))
		b.parts(g.Allowed, Unmark(g.Mark), Accept())
	}
	for i, s := range g.Program.sets {
		var attrs []netlink.Attribute
		for _, kind := range setAttributes() {
			if a, ok := s[kind]; ok {
				attrs = append(attrs, a)
			}
		}
		const anonymous, constant = 1, 2
		attrs = append(attrs, number(setFlags, s.number(setFlags)&^(anonymous|constant)))
		b.add(msgNewSet, netlink.Create, append(attrs, number(setID, uint32(i+1)))...)
		for _, list := range g.Program.elems[s.text(setName)] {
			b.add(msgNewElement, netlink.Create, text(elementsSet, s.text(setName)), list)
		}
	}
}

// setAttributes are those that describe a set as much as its maker did: name, types and lengths of key
// and data, policy, description, timeouts, what else its maker noted, and expressions of its elements.
func setAttributes() []uint16 { return []uint16{setName, 4, 5, 6, 7, 8, 9, 11, 12, 13, 17, 18} }

func (b *batch) base(name string, priority int32) {
	hook := nested(chainHook, number(hookNumber, 0), number(hookPriority, uint32(priority)))
	b.add(msgNewChain, netlink.Create, text(chainName, name), hook, number(chainPolicy, verdictAccept), text(chainType, "filter"))
}

func (b *batch) parts(chain string, parts ...Part) {
	expressions, err := marshal(b.family, parts...)
	b.errs = append(b.errs, err)
	b.rule(chain, expressions)
}

// DeleteTable removes a table; a missing one is no error.
func DeleteTable(family byte, name string) error {
	b := &batch{family: family, table: name}
	b.add(msgNewTable, netlink.Create)
	b.add(msgDelTable, 0)
	return b.commit()
}

// commit sends the messages, and returns the first failure.
func (b *batch) commit() error {
	if err := errors.Join(b.errs...); err != nil {
		return err
	}
	conn, err := netlink.Dial(protocolNetfilter, nil)
	if err != nil {
		return fmt.Errorf("open nftables socket: %w", err)
	}
	defer conn.Close()
	if err := errors.Join(conn.SetWriteBuffer(sendBuffer), conn.SetReadBuffer(sendBuffer)); err != nil {
		return fmt.Errorf("enlarge buffer of nftables socket: %w", err)
	}
	begin, _ := message(batchBegin, 0, 0, subsystem)
	end, _ := message(batchEnd, 0, 0, subsystem)
	all := append(append([]netlink.Message{begin}, b.messages...), end)
	if _, err := conn.SendMessages(all); err != nil {
		return fmt.Errorf("send nft transaction: %w", err)
	}
	for got := 0; got < len(b.messages); {
		answers, err := conn.Receive()
		if err != nil {
			return fmt.Errorf("write nft table %s: %w", b.table, err)
		}
		got += len(answers)
	}
	return nil
}
