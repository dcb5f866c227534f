package nft

import (
	"fmt"
	"maps"
	"slices"

	"github.com/mdlayher/netlink"
)

// Program is what packets go through in one base chain of somebody's table: its rules, the chains they
// lead to and the sets they look into, byte for byte as the kernel shows them, so that it holds matches
// too that this package knows nothing of. It can be written into another table (Write).
type Program struct {
	Family byte
	Drops  bool // what no rule decides about
	entry  string
	chains []string
	rules  map[string][][]netlink.Attribute // by chain: expressions
	sets   []attributes
	elems  map[string][]netlink.Attribute // by set: NFTA_SET_ELEM_LIST_ELEMENTS
}

// Families of tables.
const (
	FamilyINet = 1
	FamilyIPv4 = 2
	FamilyIPv6 = 10
)

// Leads tells whether the program comes to the chain and finds rules there.
func (p Program) Leads(chain string) bool { return len(p.rules[chain]) > 0 }

// ReadProgram reads what the chain of a table does, in the current thread's network namespace.
func ReadProgram(family byte, table, chain string) (Program, error) {
	conn, err := netlink.Dial(protocolNetfilter, nil)
	if err != nil {
		return Program{}, fmt.Errorf("open nftables socket: %w", err)
	}
	defer conn.Close()
	p := Program{Family: family, entry: chain, rules: map[string][][]netlink.Attribute{}, elems: map[string][]netlink.Attribute{}}
	all, err := rulesOf(conn, family, table)
	if err != nil {
		return p, err
	}
	sets, err := dump(conn, msgGetSet, family, text(attrTable, table))
	if err != nil {
		return p, err
	}
	known := map[string]attributes{}
	for _, s := range sets {
		known[s.text(setName)] = s
	}
	reach := &reach{program: &p, conn: conn, table: table, all: all, sets: known}
	return p, reach.chain(chain)
}

const protocolNetfilter = 12

// rulesOf lists the expressions of all rules of a table, by chain.
func rulesOf(conn *netlink.Conn, family byte, table string) (map[string][][]netlink.Attribute, error) {
	rules, err := dump(conn, msgGetRule, family, text(attrTable, table))
	if err != nil {
		return nil, err
	}
	all := map[string][][]netlink.Attribute{}
	for _, r := range rules {
		if r.text(attrTable) != table {
			continue
		}
		expressions, err := netlink.UnmarshalAttributes(r[ruleExpressions].Data)
		if err != nil {
			return nil, fmt.Errorf("decode nft rule: %w", err)
		}
		chain := r.text(ruleChain)
		all[chain] = append(all[chain], expressions)
	}
	return all, nil
}

// reach collects what can be come to from a chain.
type reach struct {
	program *Program
	conn    *netlink.Conn
	table   string
	all     map[string][][]netlink.Attribute
	sets    map[string]attributes
}

func (r *reach) chain(name string) error {
	p := r.program
	if name == "" || slices.Contains(p.chains, name) {
		return nil
	}
	p.chains = append(p.chains, name)
	for _, rule := range r.all[name] {
		var kept []netlink.Attribute
		for _, attr := range rule {
			e, err := decodeExpr(attr)
			if err != nil {
				return err
			}
			if e.name == "objref" { // a counter, a helper: no say in the verdict
				continue
			}
			kept = append(kept, attr)
			if err := r.expression(e); err != nil {
				return err
			}
		}
		p.rules[name] = append(p.rules[name], kept)
	}
	return nil
}

func (r *reach) expression(e expression) error {
	switch e.name {
	case "immediate":
		_, chain, err := verdictOf(e.data[immediateData])
		if err != nil {
			return err
		}
		return r.chain(chain)
	case "lookup":
		return r.set(e.data.text(lookupSet))
	case "dynset":
		return r.set(e.data.text(dynsetSet))
	}
	return nil
}

// set takes a set with its elements, and the chains that they lead to.
func (r *reach) set(name string) error {
	p := r.program
	if _, known := p.elems[name]; known {
		return nil
	}
	s, ok := r.sets[name]
	if !ok {
		return fmt.Errorf("nft table %s has no set %s", r.table, name)
	}
	p.sets, p.elems[name] = append(p.sets, s), nil
	parts, err := dump(r.conn, msgGetElement, p.Family, text(attrTable, r.table), text(elementsSet, name))
	if err != nil {
		return err
	}
	for _, part := range parts {
		list, ok := part[elementsList]
		if !ok {
			continue
		}
		p.elems[name] = append(p.elems[name], list)
		if err := r.targets(list); err != nil {
			return err
		}
	}
	return nil
}

func (r *reach) targets(list netlink.Attribute) error {
	elements, err := netlink.UnmarshalAttributes(list.Data)
	if err != nil {
		return fmt.Errorf("decode nft elements: %w", err)
	}
	for _, attr := range elements {
		element, err := parse(attr.Data)
		if err != nil {
			return err
		}
		if data, ok := element[elementData]; ok {
			if _, chain, err := verdictOf(data); err != nil {
				return err
			} else if err := r.chain(chain); err != nil {
				return err
			}
		}
	}
	return nil
}

// expression is one part of a rule.
type expression struct {
	name string
	data attributes
}

func decodeExpr(attr netlink.Attribute) (expression, error) {
	outer, err := parse(attr.Data)
	if err != nil {
		return expression{}, err
	}
	e := expression{name: outer.text(exprName), data: attributes{}}
	if inner, ok := outer[exprData]; ok && len(inner.Data) > 0 {
		e.data, err = parse(inner.Data)
	}
	return e, err
}

// verdictOf returns the verdict in the data of an element or an immediate; no such data: code 0xffffffff,
// "continue", and no chain.
func verdictOf(data netlink.Attribute) (code uint32, chain string, err error) {
	const proceed = 1<<32 - 1
	if len(data.Data) == 0 {
		return proceed, "", nil
	}
	outer, err := parse(data.Data)
	if err != nil {
		return 0, "", err
	}
	inner, ok := outer[dataVerdict]
	if !ok {
		return proceed, "", nil
	}
	verdict, err := parse(inner.Data)
	return verdict.number(verdictCode), verdict.text(verdictChain), err
}

func immediate(code uint32, chain string) netlink.Attribute {
	verdict := []netlink.Attribute{number(verdictCode, code)}
	if chain != "" {
		verdict = append(verdict, text(verdictChain, chain))
	}
	return nested(listElement, text(exprName, "immediate"), nested(exprData,
		number(immediateRegister, 0), nested(immediateData, nested(dataVerdict, verdict...))))
}

// Redirect makes every accept of the program a goto to the chain, and every drop and reject an accept.
func (p Program) Redirect(accepted string) Program {
	p.rules = maps.Clone(p.rules)
	for chain, rules := range p.rules {
		rules = slices.Clone(rules)
		for i, rule := range rules {
			rules[i] = redirected(rule, accepted)
		}
		p.rules[chain] = rules
	}
	return p
}

func redirected(rule []netlink.Attribute, accepted string) []netlink.Attribute {
	rule = slices.Clone(rule)
	for i, attr := range rule {
		e, err := decodeExpr(attr)
		if err != nil {
			continue // decoded once already
		}
		code, _, _ := verdictOf(e.data[immediateData])
		const targetName = 1
		switch {
		case e.name == "immediate" && code == verdictAccept:
			rule[i] = immediate(verdictGoto, accepted)
		case e.name == "immediate" && code == verdictDrop,
			e.name == "reject", e.name == "target" && e.data.text(targetName) == "REJECT":
			rule[i] = immediate(verdictAccept, "")
		}
	}
	return rule
}
