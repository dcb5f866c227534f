package network_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"davit/network"
)

// lookup resolves a name in the namespace by UDP.
func (w *world) lookup(ns *os.File, name string) ([]string, error) {
	return w.lookupBy(ns, "udp", name)
}

// lookupBy asks one question. It does not use net.Resolver, whose goroutines would leave the namespace.
func (w *world) lookupBy(ns *os.File, proto, name string) (addrs []string, err error) {
	reply, err := w.query(ns, proto, name+".", dnsmessage.TypeA)
	if err != nil {
		return nil, err
	}
	for _, r := range reply.Answers {
		if a, ok := r.Body.(*dnsmessage.AResource); ok {
			addrs = append(addrs, netip.AddrFrom4(a.A).String())
		}
	}
	slices.Sort(addrs)
	if reply.RCode != dnsmessage.RCodeSuccess {
		err = errors.New(reply.RCode.String())
	}
	return addrs, err
}

func (w *world) query(ns *os.File, proto, name string, kind dnsmessage.Type) (reply dnsmessage.Message, err error) {
	question := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, RecursionDesired: true}, Questions: []dnsmessage.Question{
		{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET},
	}}
	packed := must(question.Pack())
	err = inside(ns, func() error {
		conn, err := net.DialTimeout(proto, "127.0.0.11:53", time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		if proto == "tcp" {
			packed = append(binary.BigEndian.AppendUint16(nil, uint16(len(packed))), packed...)
		}
		if _, err := conn.Write(packed); err != nil {
			return err
		}
		buf := make([]byte, 4096)
		n, err := conn.Read(buf)
		if err != nil {
			return err
		}
		if proto == "tcp" {
			buf, n = buf[2:], n-2
		}
		return reply.Unpack(buf[:n])
	})
	return reply, err
}

// serveDNS answers every question for an address with 198.51.100.7, on the host's loopback.
func (w *world) serveDNS() {
	answer := func(query []byte) []byte {
		var m dnsmessage.Message
		if m.Unpack(query) != nil {
			return nil
		}
		m.Response = true
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET, Type: dnsmessage.TypeA},
			Body:   &dnsmessage.AResource{A: [4]byte{198, 51, 100, 7}},
		}}
		return must(m.Pack())
	}
	packets := must(net.ListenPacket("udp", "127.0.0.1:53"))
	streams := must(net.Listen("tcp", "127.0.0.1:53"))
	w.Cleanup(func() { packets.Close(); streams.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := packets.ReadFrom(buf)
			if err != nil {
				return
			}
			packets.WriteTo(answer(buf[:n]), from)
		}
	}()
	go func() {
		for {
			conn, err := streams.Accept()
			if err != nil {
				return
			}
			buf := make([]byte, 1500)
			n, _ := conn.Read(buf)
			if n > 2 {
				reply := answer(buf[2:n])
				conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...))
			}
			conn.Close()
		}
	}()
}

func TestNames(t *testing.T) {
	w := newWorld(t)
	w.command(nil, "ip", "link", "set", "lo", "up")
	w.serveDNS()
	app := w.create("app", "10.1.0.0/24")
	w.create("other", "10.2.0.0/24")
	w.create("inner", "10.3.0.0/24", func(c *network.Config) { c.Internal = true })
	a, b := w.container("a"), w.container("b")
	a.connect(network.EndpointRequest{NetworkID: "app", Aliases: []string{"web", "Shop"}, Links: map[string]string{"db": "b"}})
	b.connect(network.EndpointRequest{NetworkID: app.ID, Aliases: []string{"web"}})
	w.run("stranger", "other")
	inner := w.run("inner", "inner")
	for name, want := range map[string][]string{
		"a": {a.addr()}, "b": {b.addr()}, "B": {b.addr()}, "b.app": {b.addr()}, "shop": {a.addr()}, "db": {b.addr()},
		"web": {a.addr(), b.addr()}, b.ContainerID[:12]: {b.addr()},
		"stranger": {"198.51.100.7"}, "example.com": {"198.51.100.7"},
	} {
		for _, proto := range []string{"udp", "tcp"} {
			if got, err := w.lookupBy(a.ns, proto, name); err != nil || !slices.Equal(got, want) {
				t.Errorf("%s by %s: %v, %v; want %v", name, proto, got, err, want)
			}
		}
	}
	if got := must(w.lookup(b.ns, "db")); !slices.Equal(got, []string{"198.51.100.7"}) {
		t.Errorf("another container's link is %v", got)
	}
	if reply := must(w.query(a.ns, "udp", "b.", dnsmessage.TypeAAAA)); reply.RCode != dnsmessage.RCodeSuccess || len(reply.Answers) != 0 {
		t.Errorf("known name without address of the family: %+v", reply)
	}
	if reply := must(w.query(a.ns, "udp", "3.0.1.10.in-addr.arpa.", dnsmessage.TypePTR)); len(reply.Answers) != 1 || reply.Answers[0].Body.(*dnsmessage.PTRResource).PTR.String() != "b.app." {
		t.Errorf("reverse name: %+v", reply)
	}
	if got, err := w.lookup(inner.ns, "example.com"); err == nil {
		t.Errorf("a container without a way out learns %v", got)
	}
	if got := must(w.lookup(inner.ns, "inner")); !slices.Equal(got, []string{inner.addr()}) {
		t.Errorf("its own name is %v", got)
	}
	w.check(w.c.Rename(context.Background(), b.ContainerID, "bee"))
	if got := must(w.lookup(a.ns, "bee")); !slices.Equal(got, []string{b.addr()}) {
		t.Errorf("renamed container is %v", got)
	}
	b.remove()
	if got := must(w.lookup(a.ns, "web")); !slices.Equal(got, []string{a.addr()}) {
		t.Errorf("web is %v after one container has gone", got)
	}
}
