package network_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"davit/kernel/netlink"
	"davit/network"
	"davit/oci/errdefs"
)

func TestNetworks(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	n := w.create("app", "10.1.0.0/16", func(c *network.Config) {
		c.Subnets[0].Range = netip.MustParsePrefix("10.1.5.0/24")
		c.Subnets[0].Aux = map[string]netip.Addr{"router": netip.MustParseAddr("10.1.5.0")}
		c.Labels = map[string]string{"a": "b"}
	})
	if got := must(w.c.Get(n.ID[:6])); got.Name != "app" || got.Labels["a"] != "b" || got.Subnets[0].Gateway.String() != "10.1.0.1" {
		t.Errorf("got %+v", got)
	}
	b := w.run("b", "app")
	if b.addr() != "10.1.5.1" {
		t.Errorf("address %s is not the first of the range", b.addr())
	}
	var names []string
	for _, n := range w.c.List() {
		names = append(names, n.Name)
	}
	if strings.Join(names, " ") != "app bridge host none" {
		t.Errorf("networks %v", names)
	}
	subnet := func(s string) []network.Subnet { return []network.Subnet{{Subnet: netip.MustParsePrefix(s)}} }
	for name, c := range map[string]struct {
		config network.Config
		class  error
		text   string
	}{
		"same name":      {network.Config{Name: "app"}, errdefs.ErrConflict, "network with name app already exists"},
		"overlap":        {network.Config{Name: "x", Subnets: subnet("10.1.7.0/24")}, errdefs.ErrForbidden, "Pool overlaps with other one on this address space"},
		"predefined":     {network.Config{Name: "bridge"}, errdefs.ErrForbidden, "operation is not permitted on predefined bridge network"},
		"host driver":    {network.Config{Name: "x", Driver: "host"}, errdefs.ErrForbidden, `only one instance of "host" network is allowed`},
		"unknown driver": {network.Config{Name: "x", Driver: "weave"}, errdefs.ErrNotFound, "could not find plugin weave"},
		"bad name":       {network.Config{Name: "-x"}, errdefs.ErrInvalid, "invalid network name"},
		"host bits":      {network.Config{Name: "x", Subnets: subnet("10.4.0.5/24")}, errdefs.ErrInvalid, "it should be 10.4.0.0/24"},
		"bad mtu":        {network.Config{Name: "x", Options: map[string]string{network.OptionMTU: "tall"}}, errdefs.ErrInvalid, "invalid value"},
		"strange gateway": {
			network.Config{Name: "x", Subnets: []network.Subnet{{Subnet: netip.MustParsePrefix("10.4.0.0/24"), Gateway: netip.MustParseAddr("10.5.0.1")}}},
			errdefs.ErrInvalid, "invalid gateway 10.5.0.1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := w.c.Create(ctx, c.config)
			if !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v", err)
			}
		})
	}
	if _, err := w.c.Remove(ctx, "app"); !errors.Is(err, errdefs.ErrForbidden) || err.Error() != "error while removing network: network app id "+n.ID+" has active endpoints" {
		t.Errorf("remove used network: %v", err)
	}
	if _, err := w.c.Remove(ctx, "bridge"); !errors.Is(err, errdefs.ErrForbidden) || err.Error() != "bridge is a pre-defined network and cannot be removed" {
		t.Errorf("remove predefined network: %v", err)
	}
	if _, err := w.c.Get("nope"); !errors.Is(err, errdefs.ErrNotFound) || err.Error() != "network nope not found" {
		t.Errorf("get unknown network: %v", err)
	}
	b.remove()
	if gone := must(w.c.Prune(ctx, func(network.Network) bool { return true })); len(gone) != 1 || gone[0].ID != n.ID {
		t.Errorf("pruned %+v", gone)
	}
	if _, err := net.InterfaceByName(n.Bridge); err == nil {
		t.Error("the bridge is left")
	}
	if strings.Contains(rules(), n.Bridge) {
		t.Error("rules are left")
	}
}

func TestAddresses(t *testing.T) {
	w := newWorld(t)
	w.create("app", "10.1.0.0/29")
	request := func(ip string) error {
		b := w.container("c")
		_, err := w.c.Allocate(context.Background(), network.EndpointRequest{NetworkID: "app", ContainerID: b.ContainerID, ContainerName: "c", IPv4: netip.MustParseAddr(ip)})
		return err
	}
	w.check(request("10.1.0.5"))
	if err := request("10.1.0.5"); err == nil || err.Error() != "Address already in use" {
		t.Errorf("used address: %v", err)
	}
	if err := request("10.2.0.5"); !errors.Is(err, errdefs.ErrInvalid) || err.Error() != "invalid address 10.2.0.5: It does not belong to any of this network's subnets" {
		t.Errorf("strange address: %v", err)
	}
	for _, want := range []string{"10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.6"} {
		if got := w.run("c", "app").addr(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	b := w.container("late")
	if _, err := w.c.Allocate(context.Background(), network.EndpointRequest{NetworkID: "app", ContainerID: b.ContainerID}); !errors.Is(err, errdefs.ErrExhausted) {
		t.Errorf("full network: %v", err)
	}
}

// Subnets keep away from what the host reaches already.
func TestFreeSubnet(t *testing.T) {
	w := newWorld(t)
	conn := must(netlink.Open())
	defer conn.Close()
	wan := must(conn.LinkIndex("wan0"))
	w.check(conn.Do(netlink.AddRoute(wan, netip.MustParsePrefix("172.18.5.0/24"), netip.MustParseAddr(outsideAddr))))
	if n := w.create("app", ""); n.Subnets[0].Subnet.String() != "172.19.0.0/16" {
		t.Errorf("got %+v", n.Subnets)
	}
	six := w.create("six", "", func(c *network.Config) { c.EnableV6 = true })
	if len(six.Subnets) != 2 || six.Subnets[0].Subnet.String() != "172.20.0.0/16" || six.Subnets[1].Subnet.Bits() != 64 {
		t.Errorf("got %+v", six.Subnets)
	}
}

func TestSeveralNetworks(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.create("one", "10.1.0.0/24")
	w.create("two", "10.2.0.0/24")
	w.create("inner", "10.3.0.0/24", func(c *network.Config) { c.Internal = true })
	b := w.run("b", "inner")
	route := func() string { return w.command(b.ns, "ip", "route", "show", "default") }
	if route() != "" {
		t.Errorf("an internal network gives a route: %s", route())
	}
	b.connect(network.EndpointRequest{NetworkID: "two"})
	if !strings.Contains(route(), "via 10.2.0.1 dev eth1") {
		t.Errorf("default route %q", route())
	}
	b.connect(network.EndpointRequest{NetworkID: "one", GwPriority: 5})
	if !strings.Contains(route(), "via 10.1.0.1 dev eth2") {
		t.Errorf("default route %q", route())
	}
	if all := w.c.ContainerEndpoints(b.ContainerID); len(all) != 3 || all[0].NetworkName != "one" || all[0].Interface != "eth2" {
		t.Errorf("endpoints %+v", all)
	}
	w.check(w.c.Disconnect(ctx, b.Sandbox, "one"))
	if !strings.Contains(route(), "via 10.2.0.1 dev eth1") {
		t.Errorf("default route %q", route())
	}
	if links := w.command(b.ns, "ip", "-o", "link"); strings.Contains(links, "eth2") || !strings.Contains(links, "eth0") {
		t.Errorf("devices\n%s", links)
	}
	if err := w.c.Disconnect(ctx, b.Sandbox, "one"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("disconnected twice: %v", err)
	}
}

// What an engine leaves behind, when it stops or is killed, is what the next one goes on with.
func TestRestart(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	app := w.create("app", "10.1.0.0/24")
	web := w.run("web", "app", tcp(8080, 80))
	w.serve(web.ns, "tcp", ":80")
	dead := w.run("dead", "app", tcp(8081, 80))
	peer := w.run("peer", "app")
	lost := w.run("lost", "app")
	w.check(w.c.Close())
	w.reaches(w.outside, "tcp", hostAddr+":8080", outsideAddr)
	must(exec.Command("rm", w.opts.RunDir+"/endpoints/"+lost.ContainerID+".json").CombinedOutput()) // as if killed before it wrote

	w.open()
	w.reaches(w.outside, "tcp", hostAddr+":8080", outsideAddr)
	w.check(w.c.Reconcile(ctx, []network.Sandbox{web.Sandbox, peer.Sandbox}))
	w.reaches(w.outside, "tcp", hostAddr+":8080", outsideAddr)
	if got := must(w.c.Get("app")); got.ID != app.ID {
		t.Errorf("got %+v", got)
	}
	if all := w.c.Endpoints(app.ID); len(all) != 2 {
		t.Errorf("endpoints %+v", all)
	}
	if seen := must(w.lookup(peer.ns, "web")); len(seen) != 1 || seen[0] != web.addr() {
		t.Errorf("web is %v", seen)
	}
	next := w.run("next", "app", tcp(8081, 80))
	if next.addr() != dead.addr() {
		t.Errorf("address %s, want the dead container's %s", next.addr(), dead.addr())
	}
	w.serve(next.ns, "tcp", ":80")
	w.reaches(w.outside, "tcp", hostAddr+":8081", outsideAddr)
	w.reaches(peer.ns, "tcp", next.addr()+":80", peer.addr())
	if _, err := w.container("x").allocate(tcp(8080, 80)); !errors.Is(err, network.ErrPortTaken) {
		t.Errorf("a port of before the restart: %v", err)
	}
	for _, l := range must(netlink.Links()) {
		if e := lostVeth(lost); l.Name == e {
			t.Errorf("%s is left", e)
		}
	}
}

func lostVeth(b *box) string { return "dv" + b.endpoint.ID[:8] }

// A host that was no router becomes one for containers only.
func TestForwarding(t *testing.T) {
	for _, free := range []bool{false, true} {
		t.Run(fmt.Sprint("no drop ", free), func(t *testing.T) { testForwarding(newWorld(t), free) })
	}
}

func testForwarding(w *world, free bool) {
	w.check(w.c.Close())
	w.sysctl(nil, "net.ipv4.ip_forward", "0")
	w.opts.RunDir += "2"
	w.opts.NoForwardDrop = free
	w.open()
	w.serve(w.outside, "tcp", ":7000")
	b := w.run("b", "bridge")
	w.reaches(b.ns, "tcp", outsideAddr+":7000", hostAddr)
	lan := w.container("lan")
	conn := must(netlink.Open())
	defer conn.Close()
	w.check(conn.Do(netlink.AddVeth(netlink.Veth{Name: "lan0", MTU: 1500, Peer: "lan0", PeerNS: lan.ns.Fd()})))
	w.command(nil, "ip", "addr", "add", "10.99.0.1/24", "dev", "lan0")
	w.command(nil, "ip", "link", "set", "lan0", "up")
	w.command(lan.ns, "ip", "addr", "add", "10.99.0.2/24", "dev", "lan0")
	w.command(lan.ns, "ip", "link", "set", "lan0", "up")
	w.command(lan.ns, "ip", "route", "add", "default", "via", "10.99.0.1")
	w.command(w.outside, "ip", "route", "add", "10.99.0.0/24", "via", hostAddr)
	if free {
		w.reaches(lan.ns, "tcp", outsideAddr+":7000", "10.99.0.2")
	} else {
		w.misses(lan.ns, "tcp", outsideAddr+":7000")
	}
}

// Many containers at once get addresses and ports of their own, and all of it is given back.
func TestCrowd(t *testing.T) {
	w := newWorld(t)
	const crowd = 40
	boxes := make([]*box, crowd)
	errs := make(chan error, crowd)
	for i := range boxes {
		boxes[i] = w.container(fmt.Sprint("c", i))
	}
	for i, b := range boxes {
		go func() {
			e, err := b.allocate(tcp(0, 80), tcp(uint16(9000+i), 81))
			if err == nil {
				b.endpoint = e
				err = w.c.Attach(context.Background(), b.Sandbox, []network.Endpoint{e})
			}
			errs <- err
		}()
	}
	for range boxes {
		w.check(<-errs)
	}
	seen := map[string]bool{}
	for _, b := range boxes {
		seen[b.addr()] = true
		seen[fmt.Sprint(b.endpoint.Ports[0].HostPort)] = true
		w.serve(b.ns, "tcp", ":81")
	}
	if len(seen) != 2*crowd {
		t.Errorf("%d different addresses and ports, want %d", len(seen), 2*crowd)
	}
	for i := range boxes {
		w.reaches(w.outside, "tcp", fmt.Sprint(hostAddr, ":", 9000+i), outsideAddr)
	}
	for _, b := range boxes {
		go func() { errs <- w.c.Detach(context.Background(), b.ContainerID) }()
	}
	for range boxes {
		w.check(<-errs)
	}
	n := must(w.c.Get("bridge"))
	if left := w.c.Endpoints(n.ID); len(left) != 0 || w.c.Usage(n.ID)[0].InUse != 3 {
		t.Errorf("left: %v, %v", left, w.c.Usage(n.ID))
	}
	if files := must(os.ReadDir(w.opts.RunDir + "/endpoints")); len(files) != 0 {
		t.Errorf("files are left: %v", files)
	}
	if strings.Contains(rules(), "elements = { tcp") {
		t.Errorf("ports are left:\n%s", rules())
	}
}

// A namespace that belongs to a container's own user namespace is attached like any other.
func TestUserNamespace(t *testing.T) {
	w := newWorld(t)
	w.create("app", "10.1.0.0/24")
	peer := w.run("peer", "app")
	sleeper := exec.Command("sleep", "60")
	sleeper.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 1 << 20, Size: 65536}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 1 << 20, Size: 65536}},
	}
	w.check(sleeper.Start())
	defer func() { sleeper.Process.Kill(); sleeper.Wait() }()
	b := w.container("mapped")
	b.ns.Close()
	b.ns = must(os.Open(fmt.Sprintf("/proc/%d/ns/net", sleeper.Process.Pid)))
	b.Sandbox.NetNS = b.ns
	b.connect(network.EndpointRequest{NetworkID: "app", Ports: []network.PortRequest{tcp(8080, 80)}})
	w.serve(b.ns, "tcp", ":80")
	w.reaches(w.outside, "tcp", hostAddr+":8080", outsideAddr)
	if seen := must(w.lookup(b.ns, "peer")); len(seen) != 1 || seen[0] != peer.addr() {
		t.Errorf("peer is %v", seen)
	}
}
