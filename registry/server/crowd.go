package server

import (
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// crowd is a listener that accepts no more connections than it has places for; others wait in the kernel's
// queue until one ends. The connections are not wrapped, so that files can be sent by the kernel.
type crowd struct {
	net.Listener
	places chan struct{}
	closed chan struct{}
	close  func() error
	log    *slog.Logger
	said   time.Time // that it is full; only Accept uses it
}

func newCrowd(l net.Listener, most int, log *slog.Logger) *crowd {
	c := &crowd{Listener: l, places: make(chan struct{}, most), closed: make(chan struct{}), log: log}
	c.close = sync.OnceValue(func() error {
		close(c.closed)
		return l.Close()
	})
	return c
}

// Accept implements net.Listener.
func (c *crowd) Accept() (net.Conn, error) {
	select {
	case c.places <- struct{}{}:
	default:
		if time.Since(c.said) > time.Minute {
			c.said = time.Now()
			c.log.Warn("no more connections are accepted until some end", "connections", cap(c.places))
		}
		select {
		case c.places <- struct{}{}:
		case <-c.closed:
			return nil, net.ErrClosed
		}
	}
	conn, err := c.Listener.Accept()
	if err != nil {
		<-c.places
	}
	return conn, err
}

// Close implements net.Listener.
func (c *crowd) Close() error { return c.close() }

// leave is an http.Server's ConnState: a connection that has ended frees its place.
func (c *crowd) leave(_ net.Conn, state http.ConnState) {
	if state == http.StateClosed || state == http.StateHijacked {
		<-c.places
	}
}

// mostConnections is how many the limit of descriptors (RLIMIT_NOFILE) allows, when each may need four: for
// itself, a blob, an upstream, and a file that is fetched from there.
func mostConnections() int {
	const others, each, least, most = 128, 4, 64, 1 << 16
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return least
	}
	files := min(limit.Cur, others+each*most)
	return max(least, (int(files)-others)/each)
}
