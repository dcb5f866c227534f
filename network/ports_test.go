package network_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"davit/network"
)

// allocate asks for an endpoint on the default network with the ports.
func (b *box) allocate(ports ...network.PortRequest) (network.Endpoint, error) {
	return b.w.c.Allocate(context.Background(), network.EndpointRequest{NetworkID: "bridge", ContainerID: b.ContainerID, ContainerName: b.name, Ports: ports})
}

func TestPortTaken(t *testing.T) {
	w := newWorld(t)
	at := func(ip string, p network.PortRequest) network.PortRequest {
		p.HostIP = netip.MustParseAddr(ip)
		return p
	}
	w.run("first", "bridge", tcp(8080, 80), at("127.0.0.1", tcp(8082, 80)))
	listener := must(net.Listen("tcp", hostAddr+":8081"))
	defer listener.Close()
	for name, c := range map[string]struct {
		port network.PortRequest
		want string
	}{
		"same port":           {tcp(8080, 81), "Bind for 0.0.0.0:8080 failed: port is already allocated"},
		"one address of all":  {at("127.0.0.1", tcp(8080, 81)), "Bind for 127.0.0.1:8080 failed: port is already allocated"},
		"all when one is out": {tcp(8082, 81), "Bind for 0.0.0.0:8082 failed: port is already allocated"},
		"process of the host": {tcp(8081, 81), "failed to bind host port for 0.0.0.0:8081:172.17.0.3:81/tcp: address already in use"},
		"foreign address":     {at("198.51.100.1", tcp(8090, 81)), "failed to bind host port for 198.51.100.1:8090:172.17.0.3:81/tcp: cannot assign requested address"},
	} {
		t.Run(name, func(t *testing.T) {
			b := w.container("second")
			_, err := b.allocate(tcp(9000, 90), c.port)
			if err == nil || !strings.HasPrefix(err.Error(), "driver failed programming external connectivity on endpoint second (") || !strings.HasSuffix(err.Error(), "): "+c.want) {
				t.Errorf("got %v; want %s", err, c.want)
			}
			if errors.Is(err, network.ErrPortTaken) == (name == "foreign address") {
				t.Errorf("class of %v", err)
			}
			if all := w.c.ContainerEndpoints(b.ContainerID); len(all) != 0 {
				t.Errorf("left: %+v", all)
			}
		})
	}
	free := w.container("free")
	e, err := free.allocate(at("127.0.0.2", tcp(8082, 81)), tcp(9000, 90))
	if err != nil || len(e.Ports) != 3 {
		t.Errorf("another address: %+v, %v", e, err)
	}
	if _, err := net.Listen("tcp", ":9000"); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a process of the host takes a published port: %v", err)
	}
	free.remove()
	must(net.Listen("tcp", ":9000")).Close()
}

func TestPortChoice(t *testing.T) {
	w := newWorld(t)
	w.sysctl(nil, "net.ipv4.ip_local_port_range", "41000 41002")
	defer w.sysctl(nil, "net.ipv4.ip_local_port_range", "32768 60999")
	any := w.container("any")
	e := must(any.allocate(tcp(0, 80), tcp(0, 81), tcp(0, 82)))
	seen := map[uint16]bool{}
	for _, p := range e.Ports {
		seen[p.HostPort] = p.HostPort >= 41000 && p.HostPort <= 41002
	}
	if len(seen) != 3 || !seen[41000] || !seen[41001] || !seen[41002] {
		t.Errorf("ports %+v", e.Ports)
	}
	if _, err := w.container("more").allocate(tcp(0, 80)); err == nil || !strings.Contains(err.Error(), "all ports are allocated") {
		t.Errorf("range used up: %v", err)
	}
	ranged := network.PortRequest{Proto: "tcp", ContainerPort: 80, HostPort: 8000, HostPortEnd: 8001}
	for _, want := range []uint16{8000, 8001} {
		if e := must(w.container("ranged").allocate(ranged)); e.Ports[0].HostPort != want {
			t.Errorf("got %+v, want %d", e.Ports, want)
		}
	}
	if _, err := w.container("ranged").allocate(ranged); err == nil || !strings.HasSuffix(err.Error(), "Bind for 0.0.0.0:8001 failed: port is already allocated") {
		t.Errorf("range used up: %v", err)
	}
}

// A client whose datagrams began before the port was published, or were for the container before, must
// not be stuck with the old translation.
func TestDatagramsFollow(t *testing.T) {
	w := newWorld(t)
	udp := network.PortRequest{Proto: "udp", HostPort: 5353, ContainerPort: 53}
	var client net.Conn
	w.check(inside(w.outside, func() (err error) {
		client, err = net.Dial("udp", hostAddr+":5353")
		return err
	}))
	defer client.Close()
	ask := func() error {
		buf := make([]byte, 100)
		deadline := time.Now().Add(3 * time.Second)
		for time.Now().Before(deadline) {
			if _, err := client.Write([]byte("?")); err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
				return err
			}
			client.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			if _, err := client.Read(buf); err == nil {
				return nil
			}
		}
		return errors.New("no answer")
	}
	if _, err := client.Write([]byte("?")); err != nil { // nobody is there: the host notes an untranslated flow
		t.Fatal(err)
	}
	first := w.run("first", "bridge", udp)
	w.serve(first.ns, "udp", ":53")
	if err := ask(); err != nil {
		t.Fatalf("after publishing: %v\n%s", err, rules())
	}
	keep := w.container("keep") // takes the next address, so that the second container has another
	must(keep.allocate())
	first.remove()
	must(w.container("in the way").allocate())
	second := w.run("second", "bridge", udp)
	w.serve(second.ns, "udp", ":53")
	if second.addr() == first.addr() {
		t.Fatal("the second container has the first one's address")
	}
	if err := ask(); err != nil {
		t.Errorf("after the second container took over: %v", err)
	}
}
