package monitor_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"

	"davit/task"
)

// greeter answers every connection with a word.
func (e *env) greeter(word string) netip.AddrPort {
	e.Helper()
	server, err := net.Listen("tcp4", "127.0.0.1:0")
	e.must(err)
	e.Cleanup(func() { server.Close() })
	go func() {
		for {
			conn, err := server.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(conn, word)
			conn.Close()
		}
	}()
	return netip.MustParseAddrPort(server.Addr().String())
}

// socketFor makes a relay with a socket that is bound to a free port.
func (e *env) socketFor(to netip.AddrPort) task.Relay {
	e.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	e.must(err)
	socket := os.NewFile(uintptr(fd), "socket")
	e.Cleanup(func() { socket.Close() })
	e.must(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	name, err := syscall.Getsockname(fd)
	e.must(err)
	host := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(name.(*syscall.SockaddrInet4).Port))
	return task.Relay{Proto: "tcp", Host: host, To: to, File: socket}
}

func (e *env) greeted(host netip.AddrPort, word string) {
	e.Helper()
	conn, err := net.Dial("tcp", host.String())
	e.must(err)
	defer conn.Close()
	if answer, err := io.ReadAll(conn); string(answer) != word {
		e.Errorf("answer of %s: %q, %v; want %q", host, answer, err, word)
	}
}

// relay gives a task a relay and returns what checks that it works.
func (e *env) relay(id string) (check func()) {
	e.Helper()
	r := e.socketFor(e.greeter("served"))
	e.must(e.client.Relay(e.ctx, id, []task.Relay{r}))
	e.must(r.File.Close())
	check = func() {
		e.Helper()
		e.greeted(r.Host, "served")
	}
	check()
	return check
}

// A task has as many relays as it was last told; one can move to another task, and they end with it.
func TestRelays(t *testing.T) {
	e := newEnv(t)
	e.run(e.request("one", "sleep", "1000"))
	e.run(e.request("two", "sleep", "1000"))
	here, there := e.greeter("here"), e.greeter("there")
	var relays []task.Relay
	for range 20 {
		relays = append(relays, e.socketFor(here))
	}
	e.must(e.client.Relay(e.ctx, "one", relays))
	for i, r := range relays {
		e.greeted(r.Host, "here")
		e.must(r.File.Close())
		relays[i].File, relays[i].To = nil, there
	}
	e.must(e.client.Relay(e.ctx, "one", relays[:15]))
	e.greeted(relays[14].Host, "there")
	if conn, err := net.Dial("tcp", relays[15].Host.String()); err == nil {
		conn.Close()
		t.Error("a relay is left that the task shall not have")
	}
	if err := e.client.Relay(e.ctx, "one", relays); err == nil {
		t.Error("no error for relays without socket")
	}
	e.must(e.client.Relay(e.ctx, "two", relays[:1]))
	e.must(e.client.Kill(e.ctx, "one", "", syscall.SIGKILL, false))
	e.awaitExit("one")
	e.greeted(relays[0].Host, "there")
	if conn, err := net.Dial("tcp", relays[1].Host.String()); err == nil {
		conn.Close()
		t.Error("a relay outlives its task")
	}
}
