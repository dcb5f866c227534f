package dns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// attemptTimeout is how long one upstream server has before the next is asked.
const attemptTimeout = 3 * time.Second

// Servers asks name servers in order until one answers. List gives them anew for each question, so that
// a host which changes networks takes its containers along.
type Servers struct {
	List func() []netip.Addr
}

// Ask implements Upstream. A server's refusal to work (SERVFAIL, REFUSED) is passed on when no other
// server does better.
func (s Servers) Ask(ctx context.Context, network string, query []byte) ([]byte, error) {
	var refusal []byte
	var failed []error
	for _, server := range s.List() {
		reply, err := exchange(ctx, network, netip.AddrPortFrom(server, 53), query)
		switch {
		case err != nil:
			failed = append(failed, fmt.Errorf("ask %s: %w", server, err))
		case refused(reply):
			refusal = reply
		default:
			return reply, nil
		}
	}
	if refusal != nil {
		return refusal, nil
	}
	if len(failed) == 0 {
		return nil, errors.New("no upstream name server")
	}
	return nil, errors.Join(failed...)
}

// refused tells whether the reply's code is SERVFAIL, NOTIMP or REFUSED: RFC 1035, 4.1.1.
func refused(reply []byte) bool {
	code := reply[3] & 0xf
	return code == 2 || code == 4 || code == 5
}

func exchange(ctx context.Context, network string, server netip.AddrPort, query []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if network == "tcp" {
		return exchangeTCP(conn, query)
	}
	if _, err := conn.Write(query); err != nil {
		return nil, err
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, err
		}
		if answers(buf[:n], query) {
			return bytes.Clone(buf[:n]), nil
		}
	}
}

func exchangeTCP(conn net.Conn, query []byte) ([]byte, error) {
	if err := writeFramed(conn, query); err != nil {
		return nil, err
	}
	reply, err := readFramed(conn)
	if err != nil {
		return nil, err
	}
	if !answers(reply, query) {
		return nil, errors.New("the answer is to another question")
	}
	return reply, nil
}

// answers tells whether reply is a response with the query's id.
func answers(reply, query []byte) bool {
	const header = 12
	return len(reply) >= header && len(query) >= header && reply[2]&0x80 != 0 && bytes.Equal(reply[:2], query[:2])
}
