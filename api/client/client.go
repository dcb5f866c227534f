// Package client speaks the Docker Engine API for the davit command: requests, JSON, streams and hijacked
// connections over HTTP/1.1.
//
// It is written for a short life. net/http and crypto/tls take 3 ms to load and initialise, longer than
// most commands take; a client of one server, with one request after the other, needs little of them.
// A TLS connection is made by a helper process (see dial.go).
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"sync"

	"davit/oci/errdefs"
)

// Client talks to one engine. Methods may be called concurrently.
type Client struct {
	dialer Dialer
	mu     sync.Mutex
	idle   []*conn
}

// New returns a client of the engine that the dialer reaches. Nothing is dialled yet.
func New(dialer Dialer) *Client { return &Client{dialer: dialer} }

// Header is a request's or response's header; names are in canonical form ("Content-Type").
type Header map[string]string

// Request is one API call. Path begins with a slash and has no version: the engine's own is meant.
type Request struct {
	Method string
	Path   string
	Query  url.Values
	Header Header
	JSON   any       // encoded as the body, if not nil
	Body   io.Reader // else sent as it comes, chunked
}

// Response is an answer with a status below 400. Body must be closed; read to its end, the connection is
// used again.
type Response struct {
	Status int
	Header Header
	Body   io.ReadCloser
}

// Error is an answer with a status of 400 or more, with the message of its body.
type Error struct {
	Status  int
	Message string
	Header  Header
}

func (e *Error) Error() string { return e.Message }

// Is gives the error the class of its status, so that errors.Is works with errdefs's.
func (e *Error) Is(class error) bool {
	switch e.Status {
	case 304:
		return class == errdefs.ErrNotModified
	case 400:
		return class == errdefs.ErrInvalid
	case 401:
		return class == errdefs.ErrUnauthorized
	case 403:
		return class == errdefs.ErrForbidden
	case 404:
		return class == errdefs.ErrNotFound
	case 409:
		return class == errdefs.ErrConflict
	case 501:
		return class == errdefs.ErrNotImplemented
	}
	return false
}

// Do sends a request and returns the answer; an *Error for a status of 400 or more.
func (c *Client) Do(ctx context.Context, r Request) (*Response, error) {
	conn, response, err := c.send(ctx, r)
	if err != nil {
		return nil, err
	}
	if response.Status < 400 {
		return response, nil
	}
	defer conn.Close()
	return nil, readError(response)
}

func readError(response *Response) error {
	const longest = 64 << 10 // bytes; more is no message
	body, _ := io.ReadAll(io.LimitReader(response.Body, longest))
	var message struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &message) != nil || message.Message == "" {
		message.Message = strings.TrimSpace(string(body))
	}
	if message.Message == "" {
		message.Message = fmt.Sprintf("the engine answered with status %d", response.Status)
	}
	return &Error{response.Status, message.Message, response.Header}
}

// Call sends in as JSON, if it is not nil, and decodes the answer into out, if it is not nil.
func (c *Client) Call(ctx context.Context, method, path string, query url.Values, in, out any) error {
	response, err := c.Do(ctx, Request{Method: method, Path: path, Query: query, JSON: in})
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if out == nil {
		_, err = io.Copy(io.Discard, response.Body)
		return err
	}
	if err := json.NewDecoder(response.Body).Decode(out); err != nil {
		return fmt.Errorf("decode the engine's answer to %s %s: %w", method, path, err)
	}
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

// Get decodes the answer to a GET into out.
func (c *Client) Get(ctx context.Context, path string, query url.Values, out any) error {
	return c.Call(ctx, "GET", path, query, nil, out)
}

// Post posts in and decodes the answer into out; both may be nil.
func (c *Client) Post(ctx context.Context, path string, query url.Values, in, out any) error {
	return c.Call(ctx, "POST", path, query, in, out)
}

// Delete sends a DELETE and decodes the answer into out, if it is not nil.
func (c *Client) Delete(ctx context.Context, path string, query url.Values, out any) error {
	return c.Call(ctx, "DELETE", path, query, nil, out)
}

// Messages decodes a stream of JSON values, calling f for each, until the stream ends or f fails.
func Messages[T any](body io.Reader, f func(T) error) error {
	for decoder := json.NewDecoder(body); ; {
		var message T
		if err := decoder.Decode(&message); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("read the engine's stream: %w", err)
		}
		if err := f(message); err != nil {
			return err
		}
	}
}

// Stream is a hijacked connection: output comes in, input goes out.
type Stream struct {
	*conn
	Header Header
	// Multiplexed says that output is in frames with a stream number, not raw bytes of a terminal.
	Multiplexed bool
}

const multiplexedType = "application/vnd.docker.multiplexed-stream"

// Hijack sends a request that turns the connection into a stream in both directions.
func (c *Client) Hijack(ctx context.Context, r Request) (*Stream, error) {
	r.Header = Header{"Connection": "Upgrade", "Upgrade": "tcp"}
	conn, response, err := c.send(ctx, r)
	if err != nil {
		return nil, err
	}
	if response.Status >= 400 {
		return nil, errors.Join(readError(response), conn.Close())
	}
	if response.Status != 101 && response.Status != 200 {
		return nil, errors.Join(fmt.Errorf("%s %s: the engine answered with status %d instead of a stream", r.Method, r.Path, response.Status), conn.Close())
	}
	return &Stream{conn, response.Header, response.Header["Content-Type"] == multiplexedType}, nil
}

// send writes the request on an idle or new connection and reads the head of the answer. An idle
// connection that the engine has closed meanwhile is replaced, once.
func (c *Client) send(ctx context.Context, r Request) (*conn, *Response, error) {
	var body []byte
	if r.JSON != nil {
		var err error
		if body, err = json.Marshal(r.JSON); err != nil {
			return nil, nil, fmt.Errorf("encode request: %w", err)
		}
	}
	if conn := c.takeIdle(); conn != nil && r.Body == nil {
		if response, err := conn.exchange(ctx, c, r, body); err == nil {
			return conn, response, nil
		} else if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		_ = conn.Close() // it was dead already
	}
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, nil, err
	}
	response, err := conn.exchange(ctx, c, r, body)
	if err != nil {
		err = errors.Join(fmt.Errorf("talk to the engine: %w", err), conn.Close())
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, nil, err
	}
	return conn, response, nil
}

func (c *Client) takeIdle() *conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.idle) == 0 {
		return nil
	}
	last := c.idle[len(c.idle)-1]
	c.idle = c.idle[:len(c.idle)-1]
	return last
}

func (c *Client) putIdle(conn *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = append(c.idle, conn)
}

// head is a request's first lines.
func (r Request) head(host string, length int) []byte {
	var b bytes.Buffer
	target := r.Path
	if len(r.Query) > 0 {
		target += "?" + r.Query.Encode()
	}
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: davit\r\n", r.Method, target, host)
	switch {
	case r.Body != nil:
		b.WriteString("Transfer-Encoding: chunked\r\n")
	case length > 0:
		fmt.Fprintf(&b, "Content-Type: application/json\r\nContent-Length: %d\r\n", length)
	case r.Method != "GET" && r.Method != "HEAD":
		b.WriteString("Content-Length: 0\r\n")
	}
	for name, value := range r.Header {
		fmt.Fprintf(&b, "%s: %s\r\n", name, value)
	}
	b.WriteString("\r\n")
	return b.Bytes()
}
