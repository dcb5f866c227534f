package bridge

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"davit/internal/netnstest"
	"davit/kernel/netlink"
	"davit/kernel/sys"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func testBridge(t *testing.T, name string) *Driver {
	t.Helper()
	d := must(Open())
	if err := d.Ensure(Device{Name: name, MTU: 1400, Addrs: []netip.Prefix{netip.MustParsePrefix("10.7.0.1/24")}, Loopback: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Delete(name); err != nil {
			t.Error(err)
		}
		d.Close()
	})
	return d
}

func testLink(bridge string, n byte) Link {
	return Link{
		Veth: fmt.Sprintf("dv%08x", n), Bridge: bridge, Interface: "eth0", MTU: 1400, MAC: []byte{2, 0x42, 10, 7, 0, n},
		Addrs:    []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 7, 0, n}), 24)},
		Gateways: []netip.Addr{netip.MustParseAddr("10.7.0.1")},
	}
}

func TestEnsureAgain(t *testing.T) {
	d := testBridge(t, "br-again")
	before := must(net.InterfaceByName("br-again"))
	ns := must(sys.NewNetNS())
	defer ns.Close()
	must(d.Connect(ns.Fd(), []Link{testLink("br-again", 12)}, nil))
	moved := Device{Name: "br-again", MTU: 1400, Addrs: []netip.Prefix{netip.MustParsePrefix("10.7.0.9/24")}}
	if err := d.Ensure(moved); err != nil {
		t.Fatal(err)
	}
	after := must(net.InterfaceByName("br-again"))
	if before.Index != after.Index || before.HardwareAddr.String() != after.HardwareAddr.String() {
		t.Errorf("the bridge changed: %v, %v", before, after)
	}
	if addrs := must(netlink.AddrsOf(after.Index)); !slices.Equal(addrs, moved.Addrs) {
		t.Errorf("addresses %v, want %v", addrs, moved.Addrs)
	}
}

func TestConnect(t *testing.T) {
	d := testBridge(t, "br-test")
	ns := must(sys.NewNetNS())
	defer ns.Close()
	l := testLink("br-test", 2)
	ran := false
	ports, err := d.Connect(ns.Fd(), []Link{l}, func() error {
		ran = true
		eth := must(net.InterfaceByName("eth0"))
		if eth.HardwareAddr.String() != "02:42:0a:07:00:02" || eth.MTU != 1400 || eth.Flags&net.FlagRunning == 0 {
			t.Errorf("device inside: %+v", eth)
		}
		if addrs := must(eth.Addrs()); len(addrs) != 1 || addrs[0].String() != "10.7.0.2/24" {
			t.Errorf("addresses inside: %v", addrs)
		}
		if routes := string(must(os.ReadFile("/proc/thread-self/net/route"))); !strings.Contains(routes, "eth0\t00000000\t0100070A") {
			t.Errorf("no default route:\n%s", routes)
		}
		return nil
	})
	if err != nil || !ran || len(ports) != 1 {
		t.Fatal(ports, err, ran)
	}
	state := func() string {
		out := string(must(exec.Command("ip", "-d", "link", "show", "dev", l.Veth).CombinedOutput()))
		_, rest, _ := strings.Cut(out, "bridge_slave state ")
		return strings.Fields(rest)[0]
	}
	if state() != "forwarding" {
		t.Errorf("the port is %s", state())
	}
	if err := d.Silence(ports); err != nil || state() != "disabled" {
		t.Errorf("silenced port is %s, %v", state(), err)
	}
	if err := d.Silence([]int{ports[0] + 1000}); err != nil {
		t.Errorf("silence a port that is gone: %v", err)
	}
}

func TestConnectUndone(t *testing.T) {
	d := testBridge(t, "br-undo")
	ns := must(sys.NewNetNS())
	defer ns.Close()
	bad := testLink("br-none", 23)
	bad.Interface = "eth1"
	good := testLink("br-undo", 22)
	if _, err := d.Connect(ns.Fd(), []Link{good, bad}, nil); err == nil {
		t.Fatal("connected to a bridge that is not there")
	}
	for _, l := range must(netlink.Links()) {
		if l.Name == good.Veth || l.Name == bad.Veth {
			t.Errorf("%s is left", l.Name)
		}
	}
}

func TestOrphans(t *testing.T) {
	d := testBridge(t, "br-orphan")
	ns := must(sys.NewNetNS())
	defer ns.Close()
	a, b := testLink("br-orphan", 32), testLink("br-orphan", 33)
	b.Interface, b.Gateways = "eth1", nil
	foreign := testLink("br-orphan", 34)
	foreign.Veth, foreign.Interface, foreign.Gateways = "veth1234567", "eth2", nil
	must(d.Connect(ns.Fd(), []Link{a, b, foreign}, nil))
	gone, err := d.Orphans([]string{"br-orphan"}, func(name string) bool { return name == a.Veth })
	if err != nil || !slices.Equal(gone, []string{b.Veth}) {
		t.Errorf("removed %v, %v", gone, err)
	}
}
