package firewall

import (
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"

	"davit/internal/netnstest"
	"davit/kernel/nft"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func testFirewall(t *testing.T) *Firewall {
	t.Helper()
	f, err := Open("davit-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Delete(); err != nil {
			t.Error(err)
		}
		f.Close()
	})
	if err := f.Apply([]Net{testNet("davit0", "172.17.0.0/16")}, nil); err != nil {
		t.Fatal(err)
	}
	return f
}

func testNet(bridge string, subnets ...string) Net {
	n := Net{Bridge: bridge, Masquerade: true}
	for _, s := range subnets {
		n.Subnets = append(n.Subnets, netip.MustParsePrefix(s))
	}
	return n
}

func testPorts(n int) []Mapping {
	ports := make([]Mapping, n)
	for i := range ports {
		ports[i] = Mapping{6, netip.IPv4Unspecified(), uint16(10000 + i), netip.MustParseAddrPort("172.17.0.2:80")}
	}
	return ports
}

// count returns how many elements the kernel has in a set.
func (f *Firewall) count(t *testing.T, set *nftables.Set) int {
	t.Helper()
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	elements, err := c.GetSetElements(set)
	if err != nil {
		t.Fatal(err)
	}
	return len(elements)
}

func TestPublish(t *testing.T) {
	f := testFirewall(t)
	any4 := f.table.families[0].any
	ports := testPorts(1000)
	if err := f.Publish(ports); err != nil {
		t.Fatal(err)
	}
	if n := f.count(t, any4); n != 1000 {
		t.Errorf("%d ports in the kernel", n)
	}
	if err := f.Unpublish(append(slices.Clone(ports[:400]), testPorts(1)...)); err != nil {
		t.Fatal(err)
	}
	if n := f.count(t, any4); n != 600 {
		t.Errorf("%d ports in the kernel", n)
	}
}

func TestNets(t *testing.T) {
	f := testFirewall(t)
	n := testNet("br-a", "10.1.0.0/24", "fd00:1::/64")
	n.Internal, n.Open6 = true, true
	if err := f.AddNet(n); err != nil {
		t.Fatal(err)
	}
	six := f.table.families[1]
	for _, c := range []struct {
		set  *nftables.Set
		want int
	}{{f.table.bridges, 2}, {f.table.internal, 1}, {six.open, 1}, {six.masq, 0}} {
		if got := f.count(t, c.set); got != c.want {
			t.Errorf("set %s has %d elements, want %d", c.set.Name, got, c.want)
		}
	}
	if f.count(t, six.subnets) == 0 {
		t.Error("no IPv6 subnet")
	}
	if err := f.RemoveNet("br-a"); err != nil {
		t.Fatal(err)
	}
	if f.count(t, f.table.bridges) != 1 || f.count(t, f.table.internal) != 0 {
		t.Error("the network is still there")
	}
}

// Somebody who flushes all rules breaks published ports until the next change, not for ever.
func TestHeals(t *testing.T) {
	f := testFirewall(t)
	if err := f.Publish(testPorts(3)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("nft", "flush", "ruleset").CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	if err := f.Unpublish(testPorts(1)); err != nil {
		t.Fatal(err)
	}
	if n := f.count(t, f.table.families[0].any); n != 2 {
		t.Errorf("%d ports in the kernel", n)
	}
	if n := f.count(t, f.table.bridges); n != 1 {
		t.Errorf("%d bridges in the kernel", n)
	}
}

func BenchmarkPublish(b *testing.B) {
	for _, present := range []int{0, 1000, 10000} {
		b.Run(fmt.Sprint(present), func(b *testing.B) {
			f, err := Open("davit-test")
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			defer f.Delete()
			if err := f.Apply([]Net{testNet("davit0", "172.17.0.0/16")}, testPorts(present)); err != nil {
				b.Fatal(err)
			}
			one := []Mapping{{17, netip.IPv4Unspecified(), 53, netip.MustParseAddrPort("172.17.0.2:53")}}
			for b.Loop() {
				if err := f.Publish(one); err != nil {
					b.Fatal(err)
				}
				if err := f.Unpublish(one); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A failed transaction leaves nothing behind, in the kernel or on the socket.
func TestFailedTransaction(t *testing.T) {
	f := testFirewall(t)
	err := f.conn.Do(func(c *nftables.Conn) error {
		if err := f.table.addPorts(c, testPorts(2)); err != nil {
			return err
		}
		return nft.DeleteElements(c, f.table.bridges, []nftables.SetElement{{Key: nft.IfName("nobody")}})
	})
	if err == nil {
		t.Fatal("removed an element that is not there")
	}
	if n := f.count(t, f.table.families[0].any); n != 0 {
		t.Errorf("%d ports of a failed transaction", n)
	}
	if err := f.Publish(testPorts(1)); err != nil {
		t.Error(err)
	}
}

// Where a firewall's rules cannot be followed, published ports are closed until they can, or it is gone.
func TestClosedWhenInDoubt(t *testing.T) {
	f := testFirewall(t)
	source := sources()[0]
	if err := f.shut(source.guard(f.table.Name)); err != nil {
		t.Fatal(err)
	}
	if out := ruleset(t); !strings.Contains(out, "meta mark & 0x02000000 == 0x02000000 counter packets 0 bytes 0 drop") {
		t.Errorf("not closed:\n%s", out)
	}
	if _, err := f.Coexist(); err != nil {
		t.Fatal(err)
	}
	if out := ruleset(t); strings.Contains(out, "davit-test-firewalld") {
		t.Errorf("a guard without its firewall:\n%s", out)
	}
}

// A guard has all that the rules refer to: chains, sets with ranges, maps to verdicts, matches of iptables.
func TestGuardCopies(t *testing.T) {
	f := testFirewall(t)
	rules := `table inet firewalld {
	set allowed { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 192.0.2.0/24 }; }
	map zones { type ifname : verdict; elements = { "lan0" : goto trusted, "wan0" : jump public }; }
	set seen { type ipv4_addr; flags dynamic,timeout; timeout 1m; size 100; }
	ct helper ftp { type "ftp" protocol tcp; }
	chain unused { tcp dport 1 accept; }
	chain trusted { accept; }
	chain public {
		tcp dport 21 ct helper set "ftp"
		tcp dport { 22, 8000-8080 } ip saddr @allowed accept
		ct state new add @seen { ip saddr limit rate 3/minute burst 5 packets } accept
		icmp type vmap { echo-request : accept, echo-reply : drop }
	}
	chain filter_INPUT {
		type filter hook input priority 10; policy drop;
		ct state vmap { established : accept, invalid : drop }
		iifname vmap @zones
		reject with icmpx admin-prohibited
	}
}`
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	defer exec.Command("nft", "delete", "table", "inet", "firewalld").Run()
	others, err := f.Coexist()
	if err != nil || !others.Firewalld {
		t.Fatalf("%+v, %v", others, err)
	}
	_, guard, _ := strings.Cut(ruleset(t), "table inet davit-test-firewalld {")
	for _, want := range []string{
		"ip saddr @allowed accept", "elements = { 10.0.0.0/8, 192.0.2.0/24 }", `"lan0" : goto trusted`, "iifname vmap @zones",
		"jump filter_INPUT", "8000-8080", "limit rate 3/minute", "echo-reply : drop", "reject with icmpx admin-prohibited",
	} {
		if !strings.Contains(guard, want) {
			t.Errorf("no %q in\n%s", want, guard)
		}
	}
	if strings.Contains(guard, "unused") {
		t.Errorf("a chain that nothing leads to:\n%s", guard)
	}
}

func ruleset(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
