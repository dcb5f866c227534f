package firewall

import (
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
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
