package relay

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"davit/internal/netnstest"
	"davit/kernel/netlink"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// bound returns a socket that is bound to a free port of ::1, as the engine hands it over.
func bound(t *testing.T, kind int) (*os.File, netip.AddrPort) {
	t.Helper()
	conn := must(netlink.Open())
	defer conn.Close()
	if err := conn.Do(netlink.SetUp(1)); err != nil {
		t.Fatal(err)
	}
	fd := must(syscall.Socket(syscall.AF_INET6, kind|syscall.SOCK_CLOEXEC, 0))
	address := netip.IPv6Loopback()
	if err := syscall.Bind(fd, &syscall.SockaddrInet6{Addr: address.As16()}); err != nil {
		t.Fatal(err)
	}
	name := must(syscall.Getsockname(fd)).(*syscall.SockaddrInet6)
	file := os.NewFile(uintptr(fd), "socket")
	t.Cleanup(func() { file.Close() })
	return file, netip.AddrPortFrom(address, uint16(name.Port))
}

// server greets each connection with its name, echoes all it gets, and says goodbye after the end.
func server(t *testing.T, name string) netip.AddrPort {
	t.Helper()
	l := must(net.Listen("tcp4", "127.0.0.1:0"))
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.WriteString(conn, name)
				io.Copy(conn, conn)
				io.WriteString(conn, "goodbye")
			}()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

func say(t *testing.T, address netip.AddrPort, words string) string {
	t.Helper()
	conn := must(net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(address)))
	defer conn.Close()
	io.WriteString(conn, words)
	conn.CloseWrite()
	return string(must(io.ReadAll(conn)))
}

func TestConnections(t *testing.T) {
	file, host := bound(t, syscall.SOCK_STREAM)
	r := must(Serve(file, server(t, "one,")))
	if answer := say(t, host, "hello,"); answer != "one,hello,goodbye" {
		t.Errorf("answer %q", answer)
	}
	r.Redirect(server(t, "two,"))
	if answer := say(t, host, ""); answer != "two,goodbye" {
		t.Errorf("answer %q", answer)
	}
	long := make([]byte, 1<<22)
	if answer := say(t, host, string(long)); len(answer) != len(long)+len("two,goodbye") {
		t.Errorf("answer of %d bytes", len(answer))
	}
}

// Close ends what does not end itself, and frees the port at once although connections linger.
func TestClose(t *testing.T) {
	file, host := bound(t, syscall.SOCK_STREAM)
	r := must(Serve(file, server(t, "here")))
	conn := must(net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(host)))
	defer conn.Close()
	must(io.ReadFull(conn, make([]byte, len("here"))))
	if err := errors.Join(r.Close(), file.Close()); err != nil {
		t.Fatal(err)
	}
	l := must(net.ListenTCP("tcp6", net.TCPAddrFromAddrPort(host)))
	defer l.Close()
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection goes on: %v", err)
	}
}

func TestNobodyListens(t *testing.T) {
	file, host := bound(t, syscall.SOCK_STREAM)
	r := must(Serve(file, netip.MustParseAddrPort("127.0.0.1:1")))
	defer r.Close()
	conn, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(host))
	if err == nil {
		defer conn.Close()
		conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, err = conn.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("not told: %v", err)
	}
}

// What is handed over goes on between two bytes, whichever way it goes and whether one end is closed.
func TestHandedOver(t *testing.T) {
	file, host := bound(t, syscall.SOCK_STREAM)
	r := must(Serve(file, server(t, "one,")))
	open := must(net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(host)))
	defer open.Close()
	must(io.ReadFull(open, make([]byte, len("one,"))))
	sent := make([]byte, 1<<20)
	flood := make(chan error, 1)
	go func() {
		_, err := open.Write(sent)
		flood <- errors.Join(err, open.CloseWrite())
	}()
	for range 3 {
		r.Pause()
		state := must(r.Pass())
		for i := range state.Pairs { // as executing a program would: other descriptors of the same sockets
			state.Pairs[i].Client, state.Pairs[i].Server = must(syscall.Dup(state.Pairs[i].Client)), must(syscall.Dup(state.Pairs[i].Server))
		}
		state.FD = must(syscall.Dup(state.FD))
		for p := range r.pairs {
			p.close()
		}
		r.Close()
		r = must(Take(state))
	}
	defer func() { r.Close() }()
	got := must(io.ReadAll(open))
	if err := <-flood; err != nil || len(got) != len(sent)+len("goodbye") {
		t.Errorf("%d bytes came back, %v", len(got), err)
	}
	if answer := say(t, host, ""); answer != "one,goodbye" {
		t.Errorf("answer %q", answer)
	}
	r.Pause()
	r.Continue()
	if answer := say(t, host, ""); answer != "one,goodbye" {
		t.Errorf("answer %q after a pause", answer)
	}
}

func TestDatagrams(t *testing.T) {
	file, host := bound(t, syscall.SOCK_DGRAM)
	target := must(net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}))
	defer target.Close()
	go func() {
		buffer := make([]byte, 100)
		for {
			n, from, err := target.ReadFromUDPAddrPort(buffer)
			if err != nil {
				return
			}
			target.WriteToUDPAddrPort(append(buffer[:n:n], '!'), from)
		}
	}()
	r := must(Serve(file, netip.MustParseAddrPort(target.LocalAddr().String())))
	defer r.Close()
	for _, word := range []string{"one", "two"} {
		conn := must(net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(host)))
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		for range 3 {
			must(conn.Write([]byte(word)))
			buffer := make([]byte, 100)
			if n, err := conn.Read(buffer); err != nil || string(buffer[:n]) != word+"!" {
				t.Errorf("answer %q, %v", buffer[:n], err)
			}
		}
	}
}
