package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strconv"
	"strings"
)

// conn is one connection to the engine.
type conn struct {
	net.Conn
	r *bufio.Reader
	// stop ends the watch on the request's context.
	stop func() bool
}

func (c *Client) dial(ctx context.Context) (*conn, error) {
	raw, err := c.dialer.Dial(ctx)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: raw, r: bufio.NewReaderSize(raw, 32<<10)}, nil
}

// Read reads what the engine sends after the head of its answer.
func (c *conn) Read(p []byte) (int, error) { return c.r.Read(p) }

// CloseWrite says that no more input comes; output goes on.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

func (c *conn) Close() error {
	if c.stop != nil {
		c.stop()
	}
	return c.Conn.Close()
}

// exchange writes a request and reads the head of the answer. When ctx ends, now or while the body is
// read, the connection is closed under whoever waits for it.
func (c *conn) exchange(ctx context.Context, client *Client, r Request, body []byte) (*Response, error) {
	c.stop = context.AfterFunc(ctx, func() { _ = c.Conn.Close() })
	if _, err := c.Conn.Write(append(r.head("davit", len(body)), body...)); err != nil {
		return nil, err
	}
	sent := make(chan error, 1)
	if r.Body == nil {
		sent <- nil
	} else { // an engine that refuses answers before it has read all
		go func() {
			err := writeChunks(c.Conn, r.Body)
			sent <- err
			if errors.Is(err, errBody) { // it cannot be ended, and the engine waits for its end
				_ = c.Conn.Close()
			}
		}()
	}
	response, err := c.readHead(r.Method, client)
	if err != nil {
		select {
		case writeErr := <-sent:
			err = errors.Join(writeErr, err)
		default:
		}
	}
	return response, err
}

// errBody is the class of failures to read what is to be sent.
var errBody = errors.New("read what is to be sent")

func writeChunks(w io.Writer, body io.Reader) error {
	buffer := make([]byte, 64<<10)
	for {
		n, err := body.Read(buffer)
		if n > 0 {
			if _, err := fmt.Fprintf(w, "%x\r\n%s\r\n", n, buffer[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			_, err := io.WriteString(w, "0\r\n\r\n")
			return err
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errBody, err)
		}
	}
}

// readHead reads status and header, and finds how the body ends (RFC 9112, section 6.3).
func (c *conn) readHead(method string, client *Client) (*Response, error) {
	text := textproto.NewReader(c.r)
	line, err := text.ReadLine()
	if err != nil {
		return nil, err
	}
	_, rest, ok := strings.Cut(line, " ")
	code, _, _ := strings.Cut(rest, " ")
	status, err := strconv.Atoi(code)
	if !ok || err != nil || !strings.HasPrefix(line, "HTTP/1.") {
		return nil, fmt.Errorf("this is no engine: it answered %q", line)
	}
	fields, err := text.ReadMIMEHeader()
	if err != nil {
		return nil, err
	}
	header := Header{}
	for name := range fields {
		header[name] = fields.Get(name)
	}
	response := &Response{Status: status, Header: header}
	body := &body{conn: c, client: client, reuse: header["Connection"] != "close"}
	switch length := header["Content-Length"]; {
	case method == "HEAD" || status == 204 || status == 304:
		body.r = strings.NewReader("")
	case status == 101:
		return response, nil
	case header["Transfer-Encoding"] == "chunked":
		body.r = &chunked{r: c.r}
	case length != "":
		n, err := strconv.ParseInt(length, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("the engine sent Content-Length %q", length)
		}
		body.r = &exactly{r: c.r, left: n}
	default:
		body.r, body.reuse = c.r, false
	}
	response.Body = body
	return response, nil
}

// body is a response's body; at its end the connection is idle again.
type body struct {
	r      io.Reader
	conn   *conn
	client *Client
	reuse  bool
	done   bool
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if errors.Is(err, io.EOF) && !b.done {
		b.done = true
		if b.reuse && b.conn.stop() {
			b.client.putIdle(b.conn)
		} else {
			_ = b.conn.Close() // all of the answer is here
		}
	}
	return n, err
}

func (b *body) Close() error {
	if b.done {
		return nil
	}
	b.done = true
	return b.conn.Close()
}

// exactly reads a known number of bytes; fewer are an error.
type exactly struct {
	r    io.Reader
	left int64
}

func (e *exactly) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n, err := e.r.Read(p[:min(int64(len(p)), e.left)])
	e.left -= int64(n)
	if errors.Is(err, io.EOF) && e.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// chunked reads the chunked transfer coding (RFC 9112, section 7.1).
type chunked struct {
	r    *bufio.Reader
	left int64 // of the current chunk
	open bool  // a chunk's data is being read, its line end is to come
	done bool
}

func (c *chunked) Read(p []byte) (int, error) {
	if c.done {
		return 0, io.EOF
	}
	if c.left == 0 {
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// next reads a chunk's size; the last one has none, and trailers that nobody needs.
func (c *chunked) next() error {
	text := textproto.NewReader(c.r)
	if c.open {
		if line, err := text.ReadLine(); err != nil || line != "" {
			return errors.Join(fmt.Errorf("malformed chunk end %q", line), err)
		}
	}
	line, err := text.ReadLine()
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	if err != nil {
		return err
	}
	size, _, _ := strings.Cut(line, ";")
	c.left, err = strconv.ParseInt(strings.TrimSpace(size), 16, 64)
	if err != nil || c.left < 0 {
		return fmt.Errorf("malformed chunk size %q", line)
	}
	c.open = true
	if c.left > 0 {
		return nil
	}
	c.done = true
	if _, err := text.ReadMIMEHeader(); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return io.EOF
}
