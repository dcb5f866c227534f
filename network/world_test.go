package network_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"davit/internal/netnstest"
	"davit/kernel/netlink"
	"davit/kernel/sys"
	"davit/network"
	"davit/network/firewall"
	"davit/store/metadata"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

const (
	hostAddr    = "192.0.2.1"
	outsideAddr = "192.0.2.9"
)

// world is this test's namespace as a host with an engine, and a neighbour outside on a wire:
//
//	host 192.0.2.1 ── 192.0.2.9 outside
type world struct {
	testing.TB
	opts    network.Options
	c       *network.Controller
	outside *os.File
}

// box is a container as far as networks are concerned.
type box struct {
	network.Sandbox
	w        *world
	ns       *os.File
	name     string
	endpoint network.Endpoint
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (w *world) check(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func newWorld(t testing.TB) *world {
	t.Helper()
	dir := t.TempDir()
	db := must(metadata.Open(filepath.Join(dir, "davit.db")))
	w := &world{TB: t, opts: network.Options{DB: db, RunDir: filepath.Join(dir, "run"), ResolvConf: filepath.Join(dir, "resolv.conf")}}
	w.check(os.WriteFile(w.opts.ResolvConf, []byte("nameserver 127.0.0.1\n"), 0o644))
	w.wire()
	w.open()
	t.Cleanup(func() {
		w.check(w.c.Close())
		w.sweep()
		w.check(db.Close())
	})
	return w
}

// open starts an engine's controller.
func (w *world) open() {
	w.Helper()
	c, err := network.Open(context.Background(), w.opts)
	w.check(err)
	w.c = c
}

// wire makes the neighbour outside and the cable to it.
func (w *world) wire() {
	w.Helper()
	w.outside = must(sys.NewNetNS())
	conn := must(netlink.Open())
	defer conn.Close()
	w.check(conn.Do(netlink.SetUp(1), netlink.AddVeth(netlink.Veth{Name: "wan0", MTU: 1500, Peer: "wan0", PeerNS: w.outside.Fd()})))
	address := func(conn *netlink.Conn, v4, v6 string) error {
		index := must(conn.LinkIndex("wan0"))
		return conn.Do(netlink.AddAddr(index, netip.MustParsePrefix(v4+"/24")), netlink.AddAddr(index, netip.MustParsePrefix(v6+"/64")), netlink.SetUp(index))
	}
	w.check(address(conn, hostAddr, "2001:db8::1"))
	w.check(sys.InNetNS(w.outside.Fd(), func() error {
		conn := must(netlink.Open())
		defer conn.Close()
		w.check(conn.Do(netlink.SetUp(1)))
		return address(conn, outsideAddr, "2001:db8::9")
	}))
}

// sweep leaves the host as it was: other tests use it too.
func (w *world) sweep() {
	w.check(w.outside.Close())
	conn := must(netlink.Open())
	defer conn.Close()
	for _, l := range must(netlink.Links()) {
		if l.Kind == "bridge" || l.Kind == "veth" {
			if err := conn.Do(netlink.DelLink(l.Name)); err != nil {
				w.Log(err) // the other end took it along
			}
		}
	}
	rules := must(firewall.Open("davit"))
	w.check(rules.Delete())
	w.check(rules.Close())
	w.check(os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0))
}

// create makes a network, with the subnet unless it is empty.
func (w *world) create(name, subnet string, change ...func(*network.Config)) network.Network {
	w.Helper()
	config := network.Config{Name: name}
	if subnet != "" {
		config.Subnets = []network.Subnet{{Subnet: netip.MustParsePrefix(subnet)}}
	}
	for _, f := range change {
		f(&config)
	}
	n, err := w.c.Create(context.Background(), config)
	w.check(err)
	return n
}

// container makes a namespace that is not attached to anything yet.
func (w *world) container(name string) *box {
	w.Helper()
	id := make([]byte, 32)
	must(rand.Read(id))
	b := &box{w: w, ns: must(sys.NewNetNS()), name: name}
	b.Sandbox = network.Sandbox{ContainerID: hex.EncodeToString(id), NetNS: b.ns}
	w.Cleanup(func() { b.ns.Close() })
	return b
}

// run makes a container in a network.
func (w *world) run(name, net string, ports ...network.PortRequest) *box {
	w.Helper()
	b := w.container(name)
	b.connect(network.EndpointRequest{NetworkID: net, Ports: ports})
	return b
}

func (b *box) connect(req network.EndpointRequest) {
	b.w.Helper()
	req.ContainerID, req.ContainerName = b.ContainerID, b.name
	e, err := b.w.c.Allocate(context.Background(), req)
	b.w.check(err)
	b.w.check(b.w.c.Attach(context.Background(), b.Sandbox, []network.Endpoint{e}))
	b.endpoint = e
}

// remove ends the container as the engine does: its namespace is gone, or about to be.
func (b *box) remove() {
	b.w.Helper()
	b.w.check(b.w.c.Detach(context.Background(), b.ContainerID))
	b.ns.Close()
}

func (b *box) addr() string { return b.endpoint.IPv4.Addr().String() }

// serve answers each connection, or datagram, in the namespace (nil: the host) with the peer's address.
func (w *world) serve(ns *os.File, proto, address string) {
	w.Helper()
	var listener net.Listener
	var packets net.PacketConn
	open := func() (err error) {
		if strings.HasPrefix(proto, "udp") {
			packets, err = net.ListenPacket(proto, address)
		} else {
			listener, err = net.Listen(proto, address)
		}
		return err
	}
	w.check(inside(ns, open))
	if packets != nil {
		go answerPackets(packets)
		w.Cleanup(func() { packets.Close() })
		return
	}
	go answerConns(listener)
	w.Cleanup(func() { listener.Close() })
}

func answerConns(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		fmt.Fprint(conn, conn.RemoteAddr().(*net.TCPAddr).IP)
		conn.Close()
	}
}

func answerPackets(packets net.PacketConn) {
	buf := make([]byte, 1500)
	for {
		_, from, err := packets.ReadFrom(buf)
		if err != nil {
			return
		}
		packets.WriteTo([]byte(from.(*net.UDPAddr).IP.String()), from)
	}
}

func inside(ns *os.File, f func() error) error {
	if ns == nil {
		return f()
	}
	return sys.InNetNS(ns.Fd(), f)
}

// ask connects from the namespace (nil: the host) and returns the source address the server saw.
func (w *world) ask(ns *os.File, proto, address string, patience time.Duration) (seen string, err error) {
	err = inside(ns, func() error {
		conn, err := net.DialTimeout(proto, address, patience)
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		if strings.HasPrefix(proto, "udp") {
			if _, err := conn.Write([]byte("?")); err != nil {
				return err
			}
			buf := make([]byte, 100)
			n, err := conn.Read(buf)
			seen = string(buf[:n])
			return err
		}
		answer, err := io.ReadAll(conn)
		seen = string(answer)
		return err
	})
	return seen, err
}

// reaches fails the test unless the server answers and saw the source address.
func (w *world) reaches(ns *os.File, proto, address, source string) {
	w.Helper()
	seen, err := w.ask(ns, proto, address, 3*time.Second)
	if err != nil || source != "" && seen != source {
		w.Errorf("%s %s: source %q, %v; want source %q\n%s", proto, address, seen, err, source, rules())
	}
}

// misses fails the test if the server answers.
func (w *world) misses(ns *os.File, proto, address string) {
	w.Helper()
	if seen, err := w.ask(ns, proto, address, 250*time.Millisecond); err == nil {
		w.Errorf("%s %s was reached, from %s\n%s", proto, address, seen, rules())
	}
}

// rules shows the rules, for those who read a failure.
func rules() string {
	out, _ := exec.Command("nft", "list", "ruleset").CombinedOutput()
	return string(out)
}

// sysctl sets a kernel parameter in a namespace (nil: the host).
func (w *world) sysctl(ns *os.File, name, value string) {
	w.Helper()
	w.check(inside(ns, func() error {
		return os.WriteFile("/proc/sys/"+strings.ReplaceAll(name, ".", "/"), []byte(value), 0)
	}))
}

// command runs a command in a namespace and returns its output.
func (w *world) command(ns *os.File, args ...string) string {
	w.Helper()
	var out []byte
	w.check(inside(ns, func() (err error) {
		out, err = exec.Command(args[0], args[1:]...).CombinedOutput()
		return err
	}))
	return string(out)
}

func tcp(host, container uint16) network.PortRequest {
	return network.PortRequest{Proto: "tcp", HostPort: host, ContainerPort: container}
}
