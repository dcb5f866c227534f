package stdio

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"davit/kernel/sys"
	"davit/oci/errdefs"
	"davit/store/logs"
)

// Wants are the streams that a client asks for.
type Wants struct {
	Stdin  bool `json:"stdin,omitempty"`
	Stdout bool `json:"stdout,omitempty"`
	Stderr bool `json:"stderr,omitempty"`
}

// client is an attached stream.
type client struct {
	want Wants
	file *os.File // our end of the socket

	writing sync.Mutex
	unsent  []byte // output that Pause kept back

	unfed  []byte // input that Pause kept back; the feed goroutine's own
	ended  bool   // the input has ended; the feed goroutine's own
	closed atomic.Bool
}

func (c *client) wants(stream logs.Stream) bool {
	if stream == logs.Stderr {
		return c.want.Stderr
	}
	return c.want.Stdout
}

// write sends p, or keeps it for later when paused. An error means that the client is gone.
func (c *client) write(p []byte, paused *atomic.Bool) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if len(c.unsent) > 0 {
		p = append(c.unsent, p...)
		c.unsent = nil
	}
	if len(p) == 0 {
		return nil
	}
	n, err := c.file.Write(p)
	if err != nil && errors.Is(err, os.ErrDeadlineExceeded) && paused.Load() {
		c.unsent = append([]byte(nil), p[n:]...)
		return nil
	}
	return err
}

// end closes the client's stream after what was written to it.
func (c *client) end() {
	if c.closed.CompareAndSwap(false, true) {
		c.file.Close()
	}
}

// Attach connects one more client and returns its end of the stream. Streams whose process is gone are
// an errdefs.ErrConflict.
func (s *Streams) Attach(want Wants) (*os.File, error) {
	blocking, far, err := sys.StreamPair()
	if err != nil {
		return nil, fmt.Errorf("make stream: %w", err)
	}
	defer blocking.Close()
	near, err := sys.Pollable(blocking)
	if err != nil {
		far.Close()
		return nil, fmt.Errorf("make stream: %w", err)
	}
	c := &client{want: want, file: near}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.finished {
		near.Close()
		far.Close()
		return nil, errdefs.Conflict("its process has exited")
	}
	s.add(c)
	return far, nil
}

// add takes a client in. s.mu is held.
func (s *Streams) add(c *client) {
	s.clients = append(slices.Clip(s.clients), c)
	s.feeds.Add(1)
	go s.feed(c)
}

// drop forgets a client.
func (s *Streams) drop(c *client) {
	s.mu.Lock()
	s.clients = slices.DeleteFunc(slices.Clone(s.clients), func(other *client) bool { return other == c })
	s.mu.Unlock()
	c.end()
}

// feed copies a client's input to the process until the client is gone, or Pause or Finish ends it.
func (s *Streams) feed(c *client) {
	defer s.feeds.Done()
	if c.want.Stdin {
		<-s.ready
	}
	if !s.feedRest(c) {
		return
	}
	for !c.ended {
		buffer, n, err := s.config.Buffers.read(c.file)
		if err == nil {
			c.unfed = (*buffer)[frameHeader : frameHeader+n]
			again := s.feedRest(c)
			if !again {
				c.unfed = slices.Clone(c.unfed)
			}
			s.config.Buffers.put(buffer)
			if again {
				continue
			}
			return
		}
		if !errors.Is(err, io.EOF) {
			s.feedStopped(c, err)
			return
		}
		c.ended = true
		s.inputEnded(c)
	}
	s.feedStopped(c, awaitHangUp(c.file))
}

// feedRest gives the process the input that is at hand. It returns false when paused in the middle.
func (s *Streams) feedRest(c *client) bool {
	if len(c.unfed) == 0 || !c.want.Stdin {
		c.unfed = nil
		return true
	}
	s.feeding.Lock()
	defer s.feeding.Unlock()
	s.mu.Lock()
	stdin := s.stdin
	s.mu.Unlock()
	if stdin == nil {
		c.unfed = nil
		return true
	}
	n, err := stdin.Write(c.unfed)
	c.unfed = c.unfed[n:]
	if errors.Is(err, os.ErrDeadlineExceeded) && s.paused.Load() {
		return false
	}
	c.unfed = nil // taken, or the process wants no more
	return true
}

// inputEnded closes the process's stdin when the client's input was all there is to be. A client that
// closed its stream altogether, rather than end its input, may come back.
func (s *Streams) inputEnded(c *client) {
	if c.want.Stdin && s.config.StdinOnce && !hungUp(c.file) {
		s.CloseStdin()
	}
}

// feedStopped drops the client, unless the feed is only paused.
func (s *Streams) feedStopped(c *client, err error) {
	if errors.Is(err, os.ErrDeadlineExceeded) && s.paused.Load() {
		return
	}
	s.drop(c)
}

// awaitHangUp waits until the peer has closed its end.
func awaitHangUp(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(sys.HungUp)
}

func hungUp(f *os.File) (gone bool) {
	raw, err := f.SyscallConn()
	if err != nil {
		return true
	}
	err = raw.Control(func(fd uintptr) { gone = sys.HungUp(fd) })
	return gone || err != nil
}
