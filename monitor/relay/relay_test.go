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

// deaf returns the address of a listener whose queue is full: who calls it gets no answer.
func deaf(t *testing.T) netip.AddrPort {
	t.Helper()
	fd := must(syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0))
	t.Cleanup(func() { syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	address := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(must(syscall.Getsockname(fd)).(*syscall.SockaddrInet4).Port))
	for {
		conn, err := net.DialTimeout("tcp", address.String(), 100*time.Millisecond)
		if err != nil {
			return address
		}
		t.Cleanup(func() { conn.Close() })
	}
}

// Who waits for an answer of the one that goes is answered by the one that comes.
func TestRedirectUnanswered(t *testing.T) {
	file, host := bound(t, syscall.SOCK_STREAM)
	r := must(Serve(file, deaf(t)))
	defer r.Close()
	conn := must(net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(host)))
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%d bytes, %v, before anybody answers", n, err)
	}
	r.Redirect(server(t, "two,"))
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	conn.CloseWrite()
	if answer := string(must(io.ReadAll(conn))); answer != "two,goodbye" {
		t.Errorf("answer %q", answer)
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

// echo answers datagrams with what they said and a mark of its own.
func echo(t *testing.T, mark byte) netip.AddrPort {
	t.Helper()
	socket := must(net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}))
	t.Cleanup(func() { socket.Close() })
	go func() {
		buffer := make([]byte, 100)
		for {
			n, from, err := socket.ReadFromUDPAddrPort(buffer)
			if err != nil {
				return
			}
			socket.WriteToUDPAddrPort(append(buffer[:n:n], mark), from)
		}
	}()
	return netip.MustParseAddrPort(socket.LocalAddr().String())
}

// ask sends a datagram and returns the answer, which may be none.
func ask(t *testing.T, conn *net.UDPConn, word string, patience time.Duration) string {
	t.Helper()
	conn.SetDeadline(time.Now().Add(patience))
	must(conn.Write([]byte(word)))
	buffer := make([]byte, 100)
	n, _ := conn.Read(buffer)
	return string(buffer[:n])
}

func TestDatagrams(t *testing.T) {
	file, host := bound(t, syscall.SOCK_DGRAM)
	r := must(Serve(file, echo(t, '!')))
	defer r.Close()
	var conns []*net.UDPConn
	for _, word := range []string{"one", "two"} {
		conn := must(net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(host)))
		defer conn.Close()
		conns = append(conns, conn)
		for range 3 {
			if answer := ask(t, conn, word, 10*time.Second); answer != word+"!" {
				t.Errorf("answer %q", answer)
			}
		}
	}
	r.Redirect(echo(t, '?'))
	for _, conn := range conns { // a datagram may get lost, as they do
		for answer := ""; answer != "three?"; {
			if answer = ask(t, conn, "three", time.Second); answer != "" && answer != "three?" {
				t.Errorf("answer %q after the redirection", answer)
			}
		}
	}
}
