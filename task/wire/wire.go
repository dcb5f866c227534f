// Package wire is the form in which a task client and the monitor speak: messages over a unix
// SOCK_SEQPACKET connection, with files beside them (SCM_RIGHTS).
//
// A message travels as one or more packets, never interleaved with those of another message:
//
//	offset 0  8 bytes  id, little-endian: chosen by the client, repeated in all that answers it
//	       8  1 byte   kind
//	       9  1 byte   op (requests only)
//	      10  1 byte   1 when a further packet of this message follows, else 0
//	      11  5 bytes  zero
//	      16  ...      the body's next part, at most MaxPart bytes; the parts together are JSON
//
// Files come with a message's first packet. Requests on one connection are answered in any order.
package wire

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"

	"davit/oci/errdefs"
)

// Version is the protocol's; client and monitor of different versions do not speak.
const Version = 3

// Sizes of what travels.
const (
	HeaderSize = 16
	MaxPart    = 64 << 10 // body bytes in one packet; well below the default socket buffer
	MaxBody    = 64 << 20 // body bytes of one message
	MaxFiles   = 8        // files beside one message
)

// Kind tells requests from what answers them.
type Kind byte

// The kinds of message.
const (
	KindRequest Kind = iota
	KindReply        // a request succeeded
	KindError        // a request failed; the body is an Error
	KindEvent        // something happened; the id is the subscription's
)

// Op is what a request asks for.
type Op byte

// The operations, in the vocabulary of package task.
const (
	OpHello Op = iota + 1
	OpCreate
	OpStart
	OpKill
	OpPause
	OpResume
	OpResize
	OpCloseStdin
	OpAttach
	OpExec
	OpUpdate
	OpState
	OpList
	OpDelete
	OpEvents
	OpAcknowledge
	OpUpgrade
	OpRelay
)

// Message is one message with its files. Whoever receives it owns the files.
type Message struct {
	ID    uint64
	Kind  Kind
	Op    Op
	Body  []byte
	Files []*os.File
}

// Close closes the message's files.
func (m *Message) Close() {
	for _, f := range m.Files {
		f.Close()
	}
	m.Files = nil
}

// Decode reads the body into v; nil v ignores the body.
func (m *Message) Decode(v any) error {
	if v == nil || len(m.Body) == 0 {
		return nil
	}
	if err := json.Unmarshal(m.Body, v); err != nil {
		return errdefs.New(errdefs.ErrInvalid, "decode message: %w", err)
	}
	return nil
}

// Conn is one end of a connection. Send may be called concurrently, Receive by one goroutine.
type Conn struct {
	unix *net.UnixConn
	send sync.Mutex
	out  []byte
	in   []byte
	oob  []byte
}

// NewConn returns a connection over u, a SOCK_SEQPACKET socket, which it owns from now on.
func NewConn(u *net.UnixConn) *Conn {
	return &Conn{
		unix: u,
		in:   make([]byte, HeaderSize+MaxPart),
		oob:  make([]byte, syscall.CmsgSpace(MaxFiles*4)),
	}
}

// Unix returns the socket itself, for its credentials and deadlines.
func (c *Conn) Unix() *net.UnixConn { return c.unix }

// Close ends the connection; a blocked Receive returns an error.
func (c *Conn) Close() error { return c.unix.Close() }

// Send writes m. The files stay the caller's.
func (c *Conn) Send(m Message) error {
	if len(m.Body) > MaxBody {
		return errdefs.Invalid("message of %d bytes is larger than %d", len(m.Body), MaxBody)
	}
	rights, err := rightsOf(m.Files)
	if err != nil {
		return err
	}
	c.send.Lock()
	defer c.send.Unlock()
	for body := m.Body; ; {
		part := body[:min(len(body), MaxPart)]
		body = body[len(part):]
		c.out = appendHeader(c.out[:0], m, len(body) > 0)
		c.out = append(c.out, part...)
		if _, _, err := c.unix.WriteMsgUnix(c.out, rights, nil); err != nil {
			return fmt.Errorf("send message: %w", err)
		}
		if rights = nil; len(body) == 0 {
			return nil
		}
	}
}

func appendHeader(b []byte, m Message, more bool) []byte {
	b = binary.LittleEndian.AppendUint64(b, m.ID)
	b = append(b, byte(m.Kind), byte(m.Op), 0, 0, 0, 0, 0, 0)
	if more {
		b[10] = 1
	}
	return b
}

// rightsOf makes the control message that passes files. It reads descriptors through the raw
// connection, because File.Fd would make them blocking.
func rightsOf(files []*os.File) ([]byte, error) {
	if len(files) == 0 {
		return nil, nil
	}
	fds := make([]int, 0, len(files))
	for _, f := range files {
		raw, err := f.SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) { fds = append(fds, int(fd)) })
		}
		if err != nil {
			return nil, fmt.Errorf("pass file %s: %w", f.Name(), err)
		}
	}
	return syscall.UnixRights(fds...), nil
}

// Receive reads the next message. At the end of the connection it returns io.EOF.
func (c *Conn) Receive() (Message, error) {
	m, more, err := c.receivePart(Message{})
	for more && err == nil {
		m, more, err = c.receivePart(m)
	}
	if err != nil {
		m.Close()
		return Message{}, err
	}
	return m, nil
}

// receivePart adds the next packet to m, whose ID is zero before the first.
func (c *Conn) receivePart(m Message) (_ Message, more bool, err error) {
	n, oobn, flags, _, err := c.unix.ReadMsgUnix(c.in, c.oob)
	if err != nil {
		return m, false, err
	}
	files, err := filesOf(c.oob[:oobn])
	m.Files = append(m.Files, files...)
	switch {
	case err != nil:
		return m, false, err
	case n < HeaderSize || flags&(syscall.MSG_TRUNC|syscall.MSG_CTRUNC) != 0:
		return m, false, errors.New("receive message: malformed packet")
	case len(m.Body)+n-HeaderSize > MaxBody:
		return m, false, errors.New("receive message: too long")
	}
	m.ID = binary.LittleEndian.Uint64(c.in)
	m.Kind, m.Op = Kind(c.in[8]), Op(c.in[9])
	m.Body = append(m.Body, c.in[HeaderSize:n]...)
	return m, c.in[10] == 1, nil
}

// filesOf takes the files out of a control message. They are close-on-exec: ReadMsgUnix asks for it.
func filesOf(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("receive files: %w", err)
	}
	var files []*os.File
	for i := range messages {
		fds, err := syscall.ParseUnixRights(&messages[i])
		if err != nil {
			continue // credentials or the like: nothing to own
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files, nil
}
