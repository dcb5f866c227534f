package dns

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"davit/internal/netnstest"
	"davit/kernel/netlink"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// hosts is a zone of fixed names.
type hosts map[string][]netip.Addr

func (h hosts) Addrs(name string) ([]netip.Addr, bool) {
	a, ok := h[strings.ToLower(name)]
	return a, ok
}

func (h hosts) Name(addr netip.Addr) string {
	for name, addrs := range h {
		if slices.Contains(addrs, addr) {
			return name
		}
	}
	return ""
}

func question(t *testing.T, name string, kind dnsmessage.Type) []byte {
	t.Helper()
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 9, RecursionDesired: true}, Questions: []dnsmessage.Question{
		{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET},
	}}
	packed, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return packed
}

func TestReverse(t *testing.T) {
	for name, want := range map[string]string{
		"4.3.2.10.in-addr.arpa": "10.2.3.4",
		"2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.5.0.0.0.0.0.d.f.ip6.arpa": "fd00:5::2",
		"3.2.10.in-addr.arpa": "", "x.3.2.10.in-addr.arpa": "", "example.com": "", "1.ip6.arpa": "",
	} {
		if got, ok := reverse(name); ok != (want != "") || ok && got.String() != want {
			t.Errorf("%s is %s, %v", name, got, ok)
		}
	}
}

func TestLocal(t *testing.T) {
	many := make([]netip.Addr, 50)
	for i := range many {
		many[i] = netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
	}
	long := strings.Repeat("a.", 126)
	s := &Server{zone: hosts{"web": many, strings.TrimSuffix(long, "."): many}}
	for _, name := range []string{"web.", "WEB.", long} {
		reply := s.local(question(t, name, dnsmessage.TypeA))
		if len(reply) == 0 || len(reply) > 512 {
			t.Errorf("an answer of %d bytes does not fit a datagram", len(reply))
		}
	}
	if reply := s.local(question(t, "example.com.", dnsmessage.TypeA)); reply != nil {
		t.Errorf("unknown name has the answer %x", reply)
	}
	for _, bad := range [][]byte{nil, {1, 2, 3}, make([]byte, 12)[:11], append([]byte{0, 9, 0x80, 0}, make([]byte, 8)...)} {
		if reply := s.local(bad); reply == nil || len(reply) != 0 {
			t.Errorf("%x is answered with %x", bad, reply)
		}
	}
	if reply := s.local(make([]byte, 12)); len(reply) < 4 || reply[3]&0xf != 1 {
		t.Errorf("a message without question is answered with %x", reply)
	}
}

// upstreamAt answers every datagram on address with the code.
func upstreamAt(t *testing.T, address string, code byte) {
	t.Helper()
	conn, err := net.ListenPacket("udp", address+":53")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			stray := slices.Clone(buf[:n])
			stray[0]++ // an answer to another question comes first
			stray[2] |= 0x80
			conn.WriteTo(stray, from)
			reply := slices.Clone(buf[:n])
			reply[2] |= 0x80
			reply[3] = code
			conn.WriteTo(reply, from)
		}
	}()
}

func TestServers(t *testing.T) {
	up(t)
	upstreamAt(t, "127.0.0.2", 2) // SERVFAIL
	upstreamAt(t, "127.0.0.3", 3) // NXDOMAIN
	ask := func(servers ...string) ([]byte, error) {
		s := Servers{List: func() (all []netip.Addr) {
			for _, a := range servers {
				all = append(all, netip.MustParseAddr(a))
			}
			return all
		}}
		return s.Ask(context.Background(), "udp", question(t, "example.com.", dnsmessage.TypeA))
	}
	for name, c := range map[string]struct {
		servers []string
		code    byte
	}{
		"first answers":   {[]string{"127.0.0.3", "127.0.0.2"}, 3},
		"second does":     {[]string{"127.0.0.2", "127.0.0.3"}, 3},
		"nobody there":    {[]string{"127.0.0.9", "127.0.0.3"}, 3},
		"refusal is last": {[]string{"127.0.0.9", "127.0.0.2"}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			reply, err := ask(c.servers...)
			if err != nil || reply[3] != c.code {
				t.Errorf("got %x, %v", reply, err)
			}
		})
	}
	if _, err := ask(); err == nil {
		t.Error("an answer from no server")
	}
	if _, err := ask("127.0.0.9"); err == nil {
		t.Error("an answer from a dead server")
	}
}

func up(t *testing.T) {
	t.Helper()
	conn, err := netlink.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Do(netlink.SetUpName("lo")); err != nil {
		t.Fatal(err)
	}
}

// blocked never answers, until it is given up.
type blocked struct{ asked chan struct{} }

func (b blocked) Ask(ctx context.Context, network string, query []byte) ([]byte, error) {
	b.asked <- struct{}{}
	<-ctx.Done()
	return nil, ctx.Err()
}

// Close ends a server also while questions are out and connections are open.
func TestClose(t *testing.T) {
	up(t)
	sockets, err := Listen()
	if err != nil {
		t.Fatal(err)
	}
	upstream := blocked{make(chan struct{}, 2)}
	server := Serve(sockets, hosts{}, upstream, slog.New(slog.DiscardHandler))
	for _, proto := range []string{"udp", "tcp"} {
		conn, err := net.Dial(proto, "127.0.0.11:53")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		query := question(t, "example.com.", dnsmessage.TypeA)
		if proto == "tcp" {
			err = writeFramed(conn, query)
		} else {
			_, err = conn.Write(query)
		}
		if err != nil {
			t.Fatal(err)
		}
		<-upstream.asked
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if again, err := Listen(); err != nil {
		t.Errorf("the address is not free: %v", err)
	} else if err := again.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}
