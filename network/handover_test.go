package network_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"davit/network"
)

// announce answers each connection in the box's namespace with its name.
func (b *box) announce(port string) {
	b.w.Helper()
	var listener net.Listener
	b.w.check(inside(b.ns, func() (err error) {
		listener, err = net.Listen("tcp", port)
		return err
	}))
	b.w.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(conn, b.name)
			conn.Close()
		}
	}()
}

func handover(from, to *box, net string, ports ...network.PortRequest) network.Handover {
	return network.Handover{
		From: from.ContainerID, To: to.ContainerID,
		FromNames: []network.EndpointRequest{{NetworkID: net, ContainerID: from.ContainerID, ContainerName: "web.old"}},
		ToNames:   []network.EndpointRequest{{NetworkID: net, ContainerID: to.ContainerID, ContainerName: "web", Aliases: []string{"shop"}, Ports: ports}},
	}
}

// successor runs a container that is to take over.
func (w *world) successor(net string) *box {
	w.Helper()
	b := w.container("web.next")
	b.connect(network.EndpointRequest{NetworkID: net, PortsLater: true})
	return b
}

// While ports move back and forth, nobody is refused, from outside or from the host.
func TestHandOverRefusesNobody(t *testing.T) {
	w := newWorld(t)
	w.create("app", "10.1.0.0/24")
	port := tcp(8080, 80)
	boxes := []*box{w.run("web", "app", port), w.successor("app")}
	for _, b := range boxes {
		b.announce(":80")
	}
	answers := make(chan struct{})
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for _, from := range []*os.File{w.outside, nil} {
		clients.Go(func() {
			for {
				if seen, err := w.ask(from, "tcp", hostAddr+":8080", time.Second); err != nil || seen == "" {
					t.Errorf("answer %q, %v", seen, err)
				}
				select {
				case answers <- struct{}{}:
				case <-stop:
					return
				}
			}
		})
	}
	for i := range 40 {
		for range 6 {
			<-answers
		}
		w.check(w.c.HandOver(t.Context(), handover(boxes[i%2], boxes[1-i%2], "app", port)))
	}
	close(stop)
	clients.Wait()
}

func TestHandOverMovesAll(t *testing.T) {
	w := newWorld(t)
	w.create("app", "10.1.0.0/24")
	free := network.PortRequest{Proto: "tcp", ContainerPort: 81} // some port of the host
	web, next, client := w.run("web", "app", tcp(8080, 80), free), w.successor("app"), w.run("client", "app")
	next.announce(":80")
	next.announce(":82")
	before := w.c.ContainerEndpoints(web.ContainerID)[0].Ports
	w.check(w.c.HandOver(t.Context(), handover(web, next, "app", tcp(8080, 80), free, tcp(8082, 82))))
	for _, port := range []string{":8080", ":8082"} {
		if seen, err := w.ask(w.outside, "tcp", hostAddr+port, time.Second); seen != "web.next" {
			t.Errorf("port %s: %q, %v", port, seen, err)
		}
	}
	after := w.c.ContainerEndpoints(next.ContainerID)[0].Ports
	for _, p := range before {
		if !slices.Contains(after, p) {
			t.Errorf("port %+v did not move along: %+v", p, after)
		}
	}
	for name, want := range map[string]*box{"web": next, "shop": next, "web.old": web} {
		if got, err := w.lookup(client.ns, name); len(got) != 1 || got[0] != want.addr() {
			t.Errorf("%s is %v, %v; want %s", name, got, err, want.addr())
		}
	}
	// Without port 82 it is given back; a predecessor that is gone is no hindrance.
	web.remove()
	w.check(w.c.HandOver(t.Context(), handover(web, next, "app", tcp(8080, 80), free)))
	w.misses(w.outside, "tcp", hostAddr+":8082")
	w.run("other", "app", tcp(8082, 80)).announce(":80")
	w.reaches(w.outside, "tcp", hostAddr+":8082", "")
	w.reaches(w.outside, "tcp", hostAddr+":8080", "")
}

// An engine that died between the two files of a handover left ports with both: the next one takes the
// younger claim.
func TestHandOverHalfRecorded(t *testing.T) {
	w := newWorld(t)
	w.create("app", "10.1.0.0/24")
	web, next := w.run("web", "app", tcp(8080, 80)), w.successor("app")
	next.announce(":80")
	file := filepath.Join(w.opts.RunDir, "endpoints", web.ContainerID+".json")
	old := must(os.ReadFile(file))
	w.check(w.c.HandOver(t.Context(), handover(web, next, "app", tcp(8080, 80))))
	w.check(os.WriteFile(file, old, 0o600))
	w.check(w.c.Close())
	w.open()
	w.check(w.c.Reconcile(t.Context(), []network.Sandbox{web.Sandbox, next.Sandbox}))
	if ports := w.c.ContainerEndpoints(web.ContainerID)[0].Ports; len(ports) != 0 {
		t.Errorf("the predecessor still has %+v", ports)
	}
	if seen, err := w.ask(w.outside, "tcp", hostAddr+":8080", time.Second); seen != "web.next" {
		t.Errorf("got %q, %v", seen, err)
	}
}

// A client whose first packet the old container has dropped gets to the new one.
func TestLetGo(t *testing.T) {
	w := newWorld(t)
	w.create("app", "10.1.0.0/24")
	port := tcp(8080, 80)
	old, next := w.run("web", "app", port), w.successor("app")
	next.announce(":80")
	old.ignore(80)
	answer := make(chan string)
	go func() {
		seen, err := w.ask(w.outside, "tcp", hostAddr+":8080", 20*time.Second)
		answer <- fmt.Sprint(seen, err)
	}()
	for !strings.Contains(w.command(nil, "cat", "/proc/net/nf_conntrack"), "SYN_SENT") {
		time.Sleep(10 * time.Millisecond)
	}
	w.check(w.c.HandOver(t.Context(), handover(old, next, "app", port)))
	w.check(w.c.LetGo(old.ContainerID))
	if got := <-answer; got != "web.next<nil>" {
		t.Errorf("answer %s", got)
	}
}

// ignore has the box drop what comes to a port.
func (b *box) ignore(port int) {
	b.w.Helper()
	b.w.command(b.ns, "nft", fmt.Sprintf("add table ip deaf; add chain ip deaf in { type filter hook input priority 0; }; add rule ip deaf in tcp dport %d drop", port))
}
