package network_test

import (
	"net/netip"
	"testing"

	"davit/network"
)

func TestOutbound(t *testing.T) {
	w := newWorld(t)
	w.serve(w.outside, "tcp", ":7000")
	w.serve(nil, "tcp", ":7001")
	a, b := w.run("a", "bridge"), w.run("b", "bridge")
	if a.addr() != "172.17.0.2" || b.addr() != "172.17.0.3" || a.endpoint.MAC.String() != "02:42:ac:11:00:02" {
		t.Errorf("addresses %s, %s, %s", a.addr(), b.addr(), a.endpoint.MAC)
	}
	w.serve(b.ns, "tcp", ":80")
	w.reaches(a.ns, "tcp", outsideAddr+":7000", hostAddr)
	w.reaches(a.ns, "tcp", "172.17.0.1:7001", a.addr())
	w.reaches(a.ns, "tcp", b.addr()+":80", a.addr())
	w.reaches(nil, "tcp", b.addr()+":80", "172.17.0.1")
}

func TestPublished(t *testing.T) {
	for _, filtered := range []string{"0", "1"} {
		t.Run("bridge-nf-call-iptables="+filtered, func(t *testing.T) {
			w := newWorld(t)
			w.sysctl(nil, "net.bridge.bridge-nf-call-iptables", filtered)
			local := tcp(8081, 80)
			local.HostIP = netip.MustParseAddr("127.0.0.1")
			udp := network.PortRequest{Proto: "udp", HostPort: 8080, ContainerPort: 53}
			web := w.run("web", "bridge", tcp(8080, 80), local, udp)
			w.serve(web.ns, "tcp", ":80")
			w.serve(web.ns, "udp", ":53")
			peer := w.run("peer", "bridge")
			w.create("other", "10.9.0.0/24")
			stranger := w.run("stranger", "other")

			w.reaches(w.outside, "tcp", hostAddr+":8080", outsideAddr)
			w.reaches(w.outside, "udp", hostAddr+":8080", outsideAddr)
			w.reaches(nil, "tcp", "127.0.0.1:8080", "172.17.0.1")
			w.reaches(nil, "udp", "127.0.0.1:8080", "172.17.0.1")
			w.reaches(nil, "tcp", hostAddr+":8080", "")
			w.reaches(nil, "tcp", "172.17.0.1:8080", "172.17.0.1")
			w.reaches(nil, "tcp", "127.0.0.1:8081", "172.17.0.1")
			w.reaches(peer.ns, "tcp", hostAddr+":8080", "")
			w.reaches(peer.ns, "udp", hostAddr+":8080", "")
			w.reaches(web.ns, "tcp", hostAddr+":8080", "")
			w.reaches(web.ns, "tcp", "172.17.0.1:8080", "")
			w.reaches(stranger.ns, "tcp", hostAddr+":8080", "")
			w.misses(w.outside, "tcp", hostAddr+":8081")
			w.misses(w.outside, "tcp", hostAddr+":80")

			web.remove()
			w.misses(w.outside, "tcp", hostAddr+":8080")
			w.misses(nil, "tcp", "127.0.0.1:8081")
		})
	}
}

// A neighbour that routes the host's loopback range or its containers' subnet to the host gets nowhere,
// and neither does a container that does so.
func TestClosed(t *testing.T) {
	w := newWorld(t)
	local := tcp(8081, 80)
	local.HostIP = netip.MustParseAddr("127.0.0.1")
	web := w.run("web", "bridge", tcp(8080, 80), local)
	w.serve(web.ns, "tcp", ":80")
	w.serve(web.ns, "tcp", ":81")
	w.serve(nil, "tcp", "127.0.0.1:7001")
	evil := w.run("evil", "bridge")
	for _, from := range []struct {
		box *box
		dev string
		via string
	}{{&box{ns: w.outside}, "wan0", hostAddr}, {evil, "eth0", "172.17.0.1"}} {
		ns := from.box.ns
		w.command(ns, "ip", "route", "replace", "172.17.0.0/16", "via", from.via, "dev", from.dev, "metric", "5")
		w.command(ns, "ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
		w.command(ns, "ip", "route", "add", "127.0.0.0/8", "via", from.via, "dev", from.dev)
		w.sysctl(ns, "net.ipv4.conf.all.route_localnet", "1")
		w.misses(ns, "tcp", "127.0.0.1:7001")
	}
	w.misses(w.outside, "tcp", "127.0.0.1:8081")
	w.misses(w.outside, "tcp", web.addr()+":81")
	w.misses(w.outside, "tcp", web.addr()+":80")
	w.reaches(w.outside, "tcp", hostAddr+":8080", outsideAddr)
}

func TestIsolation(t *testing.T) {
	w := newWorld(t)
	w.serve(w.outside, "tcp", ":7000")
	w.create("one", "10.1.0.0/24")
	w.create("two", "10.2.0.0/24")
	w.create("inner", "10.3.0.0/24", func(c *network.Config) { c.Internal = true })
	w.create("quiet", "10.4.0.0/24", func(c *network.Config) { c.Options = map[string]string{network.OptionICC: "false"} })
	w.create("open", "10.5.0.0/24", func(c *network.Config) { c.Options = map[string]string{network.OptionGateway4: "nat-unprotected"} })
	one, two := w.run("one", "one"), w.run("two", "two")
	in1, in2 := w.run("in1", "inner"), w.run("in2", "inner", tcp(9000, 80))
	q1, q2 := w.run("q1", "quiet"), w.run("q2", "quiet", tcp(9001, 80))
	bare := w.run("bare", "open")
	for _, b := range []*box{one, two, in1, in2, q1, q2, bare} {
		w.serve(b.ns, "tcp", ":80")
	}
	w.misses(one.ns, "tcp", two.addr()+":80")
	w.misses(one.ns, "tcp", in1.addr()+":80")
	w.reaches(in2.ns, "tcp", in1.addr()+":80", in2.addr())
	w.misses(in1.ns, "tcp", outsideAddr+":7000")
	w.command(in1.ns, "ip", "route", "add", "default", "via", "10.3.0.1")
	w.misses(in1.ns, "tcp", outsideAddr+":7000")
	w.misses(in1.ns, "tcp", hostAddr+":9001")
	if len(in2.endpoint.Ports) != 0 {
		t.Errorf("an internal network publishes %v", in2.endpoint.Ports)
	}
	w.misses(q1.ns, "tcp", q2.addr()+":80")
	w.reaches(q1.ns, "tcp", outsideAddr+":7000", hostAddr)
	w.reaches(one.ns, "tcp", hostAddr+":9001", "")
	w.command(w.outside, "ip", "route", "add", "10.0.0.0/8", "via", hostAddr)
	w.misses(w.outside, "tcp", one.addr()+":80")
	w.reaches(w.outside, "tcp", bare.addr()+":80", outsideAddr)
}

func TestIPv6(t *testing.T) {
	w := newWorld(t)
	w.serve(w.outside, "tcp", ":7000")
	n := w.create("six", "fd00:5::/64", func(c *network.Config) { c.EnableV6 = true })
	a, b := w.run("a", "six", tcp(8080, 80)), w.run("b", "six")
	if a.endpoint.IPv6.String() != "fd00:5::2/64" || !a.endpoint.IPv4.IsValid() || a.endpoint.Gateway6.String() != "fd00:5::1" {
		t.Fatalf("endpoint %+v of %+v", a.endpoint, n)
	}
	w.serve(a.ns, "tcp", ":80")
	w.reaches(b.ns, "tcp", "[fd00:5::2]:80", "fd00:5::3")
	w.reaches(b.ns, "tcp", "[2001:db8::9]:7000", "2001:db8::1")
	w.reaches(w.outside, "tcp", "[2001:db8::1]:8080", "2001:db8::9")
	w.reaches(w.outside, "tcp", hostAddr+":8080", outsideAddr)
	w.reaches(nil, "tcp", "[2001:db8::1]:8080", "")
	w.reaches(b.ns, "tcp", "[2001:db8::1]:8080", "")
	w.misses(w.outside, "tcp", "[fd00:5::2]:80")
}
