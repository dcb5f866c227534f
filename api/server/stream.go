package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"davit/oci/errdefs"
)

const (
	rawStream   = "application/vnd.docker.raw-stream"
	multiplexed = "application/vnd.docker.multiplexed-stream"
)

// client is the far end of a connection that was taken over from HTTP: raw bytes both ways.
type client struct {
	net.Conn
	buffered *bufio.Reader // what arrived already comes first
}

func (c *client) Read(p []byte) (int, error) { return c.buffered.Read(p) }

// closeWrite ends the output; what the client sends still arrives.
func (c *client) closeWrite() {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // the client may be gone
	}
}

// takeOver answers a request to switch to a raw stream. Clients that ask for an upgrade get one;
// old ones get 200. The answer has the fields of more, which may be nil.
func takeOver(w http.ResponseWriter, r *request, kind string, more http.Header) (*client, error) {
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		return nil, errdefs.Invalid("this connection cannot be taken over")
	}
	conn, rw, err := hijacker.Hijack()
	if err != nil {
		return nil, fmt.Errorf("take over connection: %w", err)
	}
	var answer bytes.Buffer
	if strings.EqualFold(r.Header.Get("Upgrade"), "tcp") {
		answer.WriteString("HTTP/1.1 101 UPGRADED\r\nContent-Type: " + kind + "\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nApi-Version: " + NewestVersion + "\r\n")
	} else {
		answer.WriteString("HTTP/1.1 200 OK\r\nContent-Type: " + kind + "\r\n")
	}
	_ = more.Write(&answer) // a buffer takes everything
	answer.WriteString("\r\n")
	if _, err := conn.Write(answer.Bytes()); err != nil {
		conn.Close()
		return nil, fmt.Errorf("take over connection: %w", err)
	}
	return &client{conn, rw.Reader}, nil
}

// streamKind is the media type of a container's or exec's output.
func streamKind(r *request, tty bool) string {
	if tty || r.version.before(42) {
		return rawStream
	}
	return multiplexed
}

// errDetached says that a client left by its detach keys.
var errDetached = errors.New("read escape sequence")

// bridge joins a client with a stream of the monitor until the stream ends, or the client leaves.
// keys end the client's input when it types them; empty for none.
func bridge(c *client, stream *net.UnixConn, stdin bool, keys []byte) error {
	return bridgeUntil(c, stream, stdin, keys, func() {})
}

// bridgeUntil is bridge that calls over after the last byte of output, before the client is told of
// the end.
func bridgeUntil(c *client, stream *net.UnixConn, stdin bool, keys []byte, over func()) error {
	defer stream.Close()
	input := make(chan error, 1)
	go func() { input <- feed(c, stream, stdin, keys) }()
	output := make(chan struct{})
	go func() {
		defer close(output)
		_, _ = io.Copy(c.Conn, stream) // either end may go; both are closed after
		over()
		c.closeWrite()
	}()
	for {
		select {
		case <-output:
			return nil
		case err := <-input:
			if errors.Is(err, errDetached) || errors.Is(err, errGone) {
				stream.Close()
				<-output
				return err
			}
			input = nil // the input ended in good order; the output goes on
		}
	}
}

// errGone says that the client's connection broke.
var errGone = errors.New("client went away")

// feed copies the client's input, and notices when it goes away.
func feed(c *client, stream *net.UnixConn, stdin bool, keys []byte) error {
	if !stdin {
		if _, err := io.Copy(io.Discard, c); err != nil {
			return errGone
		}
		return nil
	}
	var from io.Reader = c
	if len(keys) > 0 {
		from = &escapes{r: c, keys: keys}
	} else if tcp := c.buffered; tcp.Buffered() == 0 {
		from = c.Conn // lets the kernel splice
	}
	_, err := io.Copy(stream, from)
	if errors.Is(err, errDetached) {
		return errDetached
	}
	_ = stream.CloseWrite() // the program may be gone
	return nil
}

// escapes reads through until the detach keys are typed; what comes before them is still read.
type escapes struct {
	r     io.Reader
	keys  []byte
	typed int    // how many of the keys were just typed
	held  []byte // input that is to be read yet
	over  bool   // the keys were typed
}

func (e *escapes) Read(p []byte) (int, error) {
	for len(e.held) == 0 {
		if e.over {
			return 0, errDetached
		}
		input := make([]byte, len(p))
		n, err := e.r.Read(input)
		e.scan(input[:n])
		if err != nil && len(e.held) == 0 && !e.over {
			return 0, err
		}
	}
	n := copy(p, e.held)
	e.held = e.held[n:]
	return n, nil
}

// scan sorts input into what is to be read and what may be the keys.
func (e *escapes) scan(input []byte) {
	for _, b := range input {
		if b != e.keys[e.typed] {
			e.held = append(e.held, e.keys[:e.typed]...)
			e.typed = 0
		}
		if b != e.keys[e.typed] {
			e.held = append(e.held, b)
			continue
		}
		if e.typed++; e.typed == len(e.keys) {
			e.over = true
			return
		}
	}
}

// detachKeys reads a sequence like "ctrl-p,ctrl-q" or "a"; empty is Docker's default.
func detachKeys(text string) ([]byte, error) {
	if text == "" {
		return []byte{16, 17}, nil
	}
	var keys []byte
	for key := range strings.SplitSeq(text, ",") {
		control, isControl := strings.CutPrefix(key, "ctrl-")
		switch {
		case isControl && len(control) == 1 && control[0] >= 'a' && control[0] <= 'z':
			keys = append(keys, control[0]-'a'+1)
		case isControl && len(control) == 1 && strings.Contains("@[\\]^_", control):
			keys = append(keys, control[0]&0x1f)
		case len(key) == 1:
			keys = append(keys, key[0])
		default:
			return nil, errdefs.Invalid("invalid detach keys (%s) provided", text)
		}
	}
	return keys, nil
}

// frame writes one piece of output with the header of a multiplexed stream (task.AttachRequest).
func frame(w io.Writer, stream byte, payload []byte) error {
	b := make([]byte, 8, 8+len(payload))
	b[0] = stream
	binary.BigEndian.PutUint32(b[4:], uint32(len(payload)))
	_, err := w.Write(append(b, payload...))
	return err
}

// gone is ctx for work on a taken-over connection, which net/http no longer watches.
func gone(r *request) context.Context { return context.WithoutCancel(r.Context()) }
