package network_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"davit/monitor/relay"
	"davit/network"
)

// carry does the monitor's part for a container, and returns the relays.
func (b *box) carry() []network.Relay {
	b.w.Helper()
	relays := must(b.w.c.Relays(b.ContainerID))
	for _, r := range relays {
		if r.Socket == nil {
			continue
		}
		served := must(relay.Serve(r.Socket, r.To))
		b.w.check(r.Socket.Close())
		b.w.Cleanup(func() { served.Close() })
	}
	return relays
}

func hosts(relays []network.Relay) (all []string) {
	for _, r := range relays {
		all = append(all, r.Proto+" "+r.Host.String()+" "+r.To.String())
	}
	slices.Sort(all)
	return all
}

// By relays ::1 and other IPv6 clients reach containers, with and without IPv6 addresses.
func TestRelays(t *testing.T) {
	w := newWorld(t)
	w.command(nil, "ip", "link", "set", "lo", "up")
	udp := network.PortRequest{Proto: "udp", HostPort: 8080, ContainerPort: 53}
	four := network.PortRequest{Proto: "tcp", HostPort: 8081, ContainerPort: 80, HostIP: netip.IPv4Unspecified()}
	own := network.PortRequest{Proto: "tcp", HostPort: 8082, ContainerPort: 80, HostIP: netip.IPv6Loopback()}
	web := w.run("web", "bridge", tcp(8080, 80), udp, four, own)
	w.serve(web.ns, "tcp4", "0.0.0.0:80")
	w.serve(web.ns, "udp4", "0.0.0.0:53")
	relays := web.carry()
	want := []string{"tcp [::1]:8082 172.17.0.2:80", "tcp [::]:8080 172.17.0.2:80", "udp [::]:8080 172.17.0.2:53"}
	if got := hosts(relays); !slices.Equal(got, want) {
		t.Errorf("relays %q, want %q", got, want)
	}
	w.reaches(nil, "tcp", "[::1]:8080", "172.17.0.1")
	w.reaches(nil, "udp", "[::1]:8080", "172.17.0.1")
	w.reaches(nil, "tcp", "[::1]:8082", "172.17.0.1")
	w.reaches(nil, "tcp", "[2001:db8::1]:8080", "172.17.0.1")
	w.reaches(w.outside, "tcp", "[2001:db8::1]:8080", "172.17.0.1")
	w.reaches(w.outside, "udp", "[2001:db8::1]:8080", "172.17.0.1")
	w.reaches(w.outside, "tcp", hostAddr+":8080", outsideAddr)
	w.misses(nil, "tcp", "[::1]:8081")
	w.misses(w.outside, "tcp", "[2001:db8::1]:8082")

	w.create("six", "fd00:5::/64", func(c *network.Config) { c.EnableV6 = true })
	six := w.run("six", "six", tcp(9080, 80))
	w.serve(six.ns, "tcp", ":80")
	if got := hosts(six.carry()); !slices.Equal(got, []string{"tcp [::]:9080 [fd00:5::2]:80"}) {
		t.Errorf("relays %q", got)
	}
	w.reaches(nil, "tcp", "[::1]:9080", "fd00:5::1")
	w.reaches(w.outside, "tcp", "[2001:db8::1]:9080", "2001:db8::9")

	w.create("only", "", func(c *network.Config) { c.EnableV6, c.DisableV4 = true, true })
	only := w.run("only", "only", tcp(9090, 80))
	w.serve(only.ns, "tcp6", "[::]:80")
	only.carry()
	for _, address := range []string{"127.0.0.1:9090", "[::1]:9090", hostAddr + ":9090", "[2001:db8::1]:9090"} {
		w.reaches(nil, "tcp", address, "")
	}
	w.reaches(w.outside, "tcp", hostAddr+":9090", "")

	// The next engine leaves the sockets to who has them.
	w.check(w.c.Close())
	w.open()
	for _, r := range must(w.c.Relays(web.ContainerID)) {
		if r.Socket != nil {
			t.Errorf("%s has been bound again", r.Host)
		}
	}
	w.reaches(nil, "tcp", "[::1]:8080", "172.17.0.1")
}

// A host without IPv6 publishes as before.
func TestNoIPv6(t *testing.T) {
	w := newWorld(t)
	w.sysctl(nil, "net.ipv6.conf.lo.disable_ipv6", "1")
	defer w.sysctl(nil, "net.ipv6.conf.lo.disable_ipv6", "0")
	web := w.run("web", "bridge", tcp(8080, 80))
	if relays := must(w.c.Relays(web.ContainerID)); len(relays) > 0 || len(web.endpoint.Ports) != 1 {
		t.Errorf("relays %v, ports %v", relays, web.endpoint.Ports)
	}
}

// Names of either family, through the container's own name server.
func TestNamesOfBothFamilies(t *testing.T) {
	w := newWorld(t)
	w.create("six", "fd00:5::/64", func(c *network.Config) { c.EnableV6 = true })
	a, b := w.run("alpha", "six"), w.run("beta", "six")
	answer := w.command(a.ns, "busybox", "nslookup", "beta", "127.0.0.11")
	for _, addr := range []string{b.addr(), "fd00:5::3"} {
		if !strings.Contains(answer, addr) {
			t.Errorf("no %s in\n%s", addr, answer)
		}
	}
	w.serve(b.ns, "tcp", ":80")
	if _, err := w.ask(a.ns, "tcp", "[fd00:5::3]:80", 3*time.Second); err != nil {
		t.Error(err)
	}
}
