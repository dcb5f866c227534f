package relay

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// pair is a client's connection and the one to the container that belongs to it.
type pair struct {
	client, server  *net.TCPConn
	asked, answered bool // that direction has ended

	// Guarded by the relay's mutex.
	busy bool // somebody is in stream
	cut  bool // bytes may be lost: it cannot go on
}

func (p *pair) ended() bool { return p.asked && p.answered }

func (p *pair) deadline(at time.Time) {
	p.client.SetDeadline(at)
	p.server.SetDeadline(at)
}

// interrupt makes stream return once all it has read is written.
func (p *pair) interrupt() {
	p.client.SetReadDeadline(past())
	p.server.SetReadDeadline(past())
}

func past() time.Time { return time.Unix(1, 0) }

func (p *pair) close() {
	p.client.Close()
	p.server.Close()
}

// stream passes bytes both ways, until both have ended or are interrupted.
func (p *pair) stream() {
	var back sync.WaitGroup
	back.Go(func() { p.answered = p.answered || p.copy(p.client, p.server) })
	p.asked = p.asked || p.copy(p.server, p.client)
	back.Wait()
}

// copy passes bytes one way, and the end too, and tells whether it has come to that. The kernel moves them
// (splice(2)); an interrupted copy has none left between the two. After a failure nothing more can come the
// other way either.
func (p *pair) copy(to, from *net.TCPConn) (ended bool) {
	_, err := to.ReadFrom(from)
	switch {
	case err == nil:
		to.CloseWrite()
		return true
	case errors.Is(err, os.ErrDeadlineExceeded):
		return false
	}
	p.close()
	return true
}
