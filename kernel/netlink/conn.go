package netlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
)

// Conn is one rtnetlink socket. It speaks to the network namespace of the thread that opened it. Its
// methods may be called concurrently.
type Conn struct {
	mu  sync.Mutex
	fd  int
	seq uint32
	buf []byte
}

// Open opens a Conn to the current thread's network namespace.
func Open() (*Conn, error) {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("open netlink socket", err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		syscall.Close(fd)
		return nil, os.NewSyscallError("bind netlink socket", err)
	}
	return &Conn{fd: fd, buf: make([]byte, 32<<10)}, nil
}

// Close closes the socket.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return os.NewSyscallError("close netlink socket", syscall.Close(c.fd))
}

// Do sends all requests at once; the kernel carries them out in order, also those behind one that
// fails. The error joins what failed, each as a syscall.Errno below its description.
func (c *Conn) Do(requests ...Request) error {
	if len(requests) == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	first := c.seq + 1
	var batch []byte
	for _, r := range requests {
		c.seq++
		batch = r.appendTo(batch, c.seq)
	}
	if err := syscall.Sendto(c.fd, batch, 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return os.NewSyscallError("send netlink batch", err)
	}
	return c.acknowledged(requests, first)
}

// acknowledged reads one acknowledgement for each request.
func (c *Conn) acknowledged(requests []Request, first uint32) error {
	var failed []error
	for missing := len(requests); missing > 0; {
		n, err := c.receive()
		if err != nil {
			return err
		}
		messages, err := syscall.ParseNetlinkMessage(c.buf[:n])
		if err != nil {
			return fmt.Errorf("parse netlink answer: %w", err)
		}
		for _, m := range messages {
			i := int(m.Header.Seq - first)
			if m.Header.Type != syscall.NLMSG_ERROR || i < 0 || i >= len(requests) {
				continue
			}
			missing--
			if errno := -int32(binary.NativeEndian.Uint32(m.Data)); errno != 0 {
				failed = append(failed, fmt.Errorf("%s: %w", requests[i].describe, syscall.Errno(errno)))
			}
		}
	}
	return errors.Join(failed...)
}

func (c *Conn) receive() (int, error) {
	for {
		n, _, err := syscall.Recvfrom(c.fd, c.buf, 0)
		if !errors.Is(err, syscall.EINTR) {
			return n, os.NewSyscallError("receive netlink answer", err)
		}
	}
}

// LinkIndex finds the index of a link by its name; syscall.ENODEV when there is none.
func (c *Conn) LinkIndex(name string) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	m := linkHeader(0, 0, 0, 0).text(syscall.IFLA_IFNAME, name)
	request := Request{syscall.RTM_GETLINK, 0, m, ""}
	if err := syscall.Sendto(c.fd, request.appendTo(nil, c.seq), 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return 0, os.NewSyscallError("send netlink request", err)
	}
	index, acknowledged := 0, false
	for !acknowledged {
		n, err := c.receive()
		if err != nil {
			return 0, err
		}
		messages, err := syscall.ParseNetlinkMessage(c.buf[:n])
		if err != nil {
			return 0, fmt.Errorf("parse netlink answer: %w", err)
		}
		for _, m := range messages {
			switch {
			case m.Header.Seq != c.seq:
			case m.Header.Type == syscall.RTM_NEWLINK && len(m.Data) >= 8:
				index = int(int32(binary.NativeEndian.Uint32(m.Data[4:])))
			case m.Header.Type == syscall.NLMSG_ERROR:
				acknowledged = true
				if errno := -int32(binary.NativeEndian.Uint32(m.Data)); errno != 0 {
					return 0, fmt.Errorf("find link %s: %w", name, syscall.Errno(errno))
				}
			}
		}
	}
	return index, nil
}

// appendTo appends the request as a netlink message that asks for an acknowledgement.
func (r Request) appendTo(b []byte, seq uint32) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(syscall.SizeofNlMsghdr+len(r.body)))
	b = binary.NativeEndian.AppendUint16(b, r.kind)
	b = binary.NativeEndian.AppendUint16(b, r.flags|syscall.NLM_F_REQUEST|syscall.NLM_F_ACK)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, r.body...)
	return message(b).align()
}
