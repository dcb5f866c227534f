package dns

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// ttl of answers in seconds: short, because a container's address lasts only while it runs.
const ttl = 10

// maxAddrs of an answer, so that it fits the 512 bytes of a datagram whatever the asker's abilities
// (RFC 1035, 4.2.1), the longest name included.
const maxAddrs = 8

// local answers a question about the zone, and returns nil for one that is upstream's to answer. What is
// no question at all gets an empty reply, which is not sent.
func (s *Server) local(query []byte) []byte {
	var parser dnsmessage.Parser
	header, err := parser.Start(query)
	if err != nil || header.Response {
		return []byte{}
	}
	question, err := parser.Question()
	if err != nil {
		return fail(query, dnsmessage.RCodeFormatError)
	}
	if question.Class != dnsmessage.ClassINET || header.OpCode != 0 {
		return nil
	}
	name := strings.TrimSuffix(question.Name.String(), ".")
	if question.Type == dnsmessage.TypePTR {
		target := s.pointer(name)
		if target == "" {
			return nil
		}
		return build(header, question, func(b *dnsmessage.Builder) error { return addPointer(b, question.Name, target) })
	}
	addrs, known := s.zone.Addrs(name)
	if !known {
		return nil
	}
	return build(header, question, func(b *dnsmessage.Builder) error { return addAddrs(b, question, addrs) })
}

// pointer finds the name of the address that a reverse name stands for.
func (s *Server) pointer(name string) string {
	addr, ok := reverse(strings.ToLower(name))
	if !ok {
		return ""
	}
	return s.zone.Name(addr)
}

// reverse reads the names below in-addr.arpa (RFC 1035, 3.5) and ip6.arpa (RFC 3596, 2.5).
func reverse(name string) (netip.Addr, bool) {
	if quad, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		parts := strings.Split(quad, ".")
		slices.Reverse(parts)
		addr, err := netip.ParseAddr(strings.Join(parts, "."))
		return addr, err == nil && addr.Is4()
	}
	nibbles, ok := strings.CutSuffix(name, ".ip6.arpa")
	parts := strings.Split(nibbles, ".")
	if !ok || len(parts) != 32 {
		return netip.Addr{}, false
	}
	var b [16]byte
	for i, p := range parts {
		v, err := strconv.ParseUint(p, 16, 4)
		if err != nil {
			return netip.Addr{}, false
		}
		b[15-i/2] |= byte(v) << (4 * (i % 2))
	}
	return netip.AddrFrom16(b), true
}

// build makes a reply to the question.
func build(header dnsmessage.Header, question dnsmessage.Question, answers func(*dnsmessage.Builder) error) []byte {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{
		ID: header.ID, Response: true, RecursionDesired: header.RecursionDesired, RecursionAvailable: true,
	})
	b.EnableCompression()
	if b.StartQuestions() != nil || b.Question(question) != nil || b.StartAnswers() != nil || answers(&b) != nil {
		return nil
	}
	reply, err := b.Finish()
	if err != nil {
		return nil
	}
	return reply
}

// addAddrs adds the addresses of the type asked for, in random order: names that several containers
// share spread their callers. A known name without such addresses has an empty answer.
func addAddrs(b *dnsmessage.Builder, question dnsmessage.Question, addrs []netip.Addr) error {
	addrs = slices.Clone(addrs)
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	addrs = slices.DeleteFunc(addrs, func(a netip.Addr) bool { return recordType(a) != question.Type })
	header := dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET, TTL: ttl}
	for _, a := range addrs[:min(len(addrs), maxAddrs)] {
		var err error
		if a.Is4() {
			err = b.AResource(header, dnsmessage.AResource{A: a.As4()})
		} else {
			err = b.AAAAResource(header, dnsmessage.AAAAResource{AAAA: a.As16()})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func recordType(a netip.Addr) dnsmessage.Type {
	if a.Is4() {
		return dnsmessage.TypeA
	}
	return dnsmessage.TypeAAAA
}

func addPointer(b *dnsmessage.Builder, name dnsmessage.Name, target string) error {
	ptr, err := dnsmessage.NewName(target + ".")
	if err != nil {
		return err
	}
	header := dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: ttl}
	return b.PTRResource(header, dnsmessage.PTRResource{PTR: ptr})
}

// fail makes a reply that says only what went wrong.
func fail(query []byte, code dnsmessage.RCode) []byte {
	var parser dnsmessage.Parser
	header, err := parser.Start(query)
	if err != nil {
		return []byte{}
	}
	reply := dnsmessage.Message{Header: dnsmessage.Header{
		ID: header.ID, Response: true, OpCode: header.OpCode, RCode: code,
		RecursionDesired: header.RecursionDesired, RecursionAvailable: true,
	}}
	if question, err := parser.Question(); err == nil {
		reply.Questions = []dnsmessage.Question{question}
	}
	packed, err := reply.Pack()
	if err != nil {
		return []byte{}
	}
	return packed
}
