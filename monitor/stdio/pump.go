package stdio

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"davit/kernel/sys"
	"davit/store/logs"
)

// frameHeader is the size of the header of Docker's multiplexed frames.
const frameHeader = 8

// chunk is how much is copied at once: what a pipe holds.
const chunk = 64 << 10

// Buffers lends memory to streams while they move something.
type Buffers struct{ pool sync.Pool }

// get returns a buffer of frameHeader+chunk bytes.
func (b *Buffers) get() *[]byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return p
	}
	p := make([]byte, frameHeader+chunk)
	return &p
}

func (b *Buffers) put(p *[]byte) { b.pool.Put(p) }

// read waits until f is readable and only then borrows a buffer, which the caller gives back. The data
// begins after room for a frame's header. At the end of the stream it returns io.EOF and no buffer.
func (b *Buffers) read(f *os.File) (p *[]byte, n int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, 0, err
	}
	var failure error
	err = raw.Read(func(fd uintptr) bool {
		p = b.get()
		for {
			n, failure = syscall.Read(int(fd), (*p)[frameHeader:])
			if failure != syscall.EINTR {
				break
			}
		}
		if n > 0 {
			return true
		}
		b.put(p)
		p, n = nil, 0
		return failure != syscall.EAGAIN
	})
	if err == nil && p == nil {
		if err = failure; err == nil || errors.Is(err, syscall.EIO) { // EIO: a terminal that nobody has open
			err = io.EOF
		}
	}
	return p, n, err
}

// pump copies one output until it ends, or Pause or Finish ends it.
func (s *Streams) pump(o *output) {
	defer s.pumps.Done()
	s.flushClients()
	for {
		buffer, n, err := s.config.Buffers.read(o.file)
		if err != nil {
			s.pumpStopped(o, err)
			return
		}
		s.deliver(o.stream, (*buffer)[:frameHeader+n])
		s.config.Buffers.put(buffer)
		if end := s.finishing.Load(); end != 0 {
			o.file.SetReadDeadline(earlier(time.Now().Add(grace), time.Unix(0, end)))
		}
	}
}

// pumpStopped notes that an output has ended, unless the pump is only paused.
func (s *Streams) pumpStopped(o *output, err error) {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if s.finishing.Load() == 0 {
			return
		}
		s.drain(o)
	}
	s.mu.Lock()
	o.ended = true
	s.mu.Unlock()
}

// drain copies what is in an output when Finish gives up waiting for more: on a busy machine the time
// may be over before the pump has run.
func (s *Streams) drain(o *output) {
	buffer := s.config.Buffers.get()
	defer s.config.Buffers.put(buffer)
	for time.Now().UnixNano() < s.finishing.Load() {
		n, err := sys.ReadNow(o.file, (*buffer)[frameHeader:])
		if n <= 0 || err != nil {
			return
		}
		s.deliver(o.stream, (*buffer)[:frameHeader+n])
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// deliver hands output to the log and the clients. frame has room for a header at its beginning.
func (s *Streams) deliver(stream logs.Stream, frame []byte) {
	payload := frame[frameHeader:]
	if s.config.Log != nil {
		s.config.Log.Write(stream, payload)
	}
	s.mu.Lock()
	clients := s.clients
	s.mu.Unlock()
	if len(clients) == 0 {
		return
	}
	out := payload
	if !s.config.Terminal {
		clear(frame[:frameHeader])
		if frame[0] = 1; stream == logs.Stderr {
			frame[0] = 2
		}
		binary.BigEndian.PutUint32(frame[4:], uint32(len(payload)))
		out = frame
	}
	for _, c := range clients {
		if c.wants(stream) {
			s.send(c, out)
		}
	}
}

// send writes to a client, and drops it when that fails.
func (s *Streams) send(c *client, p []byte) {
	if err := c.write(p, &s.paused); err != nil {
		s.drop(c)
	}
}

// flushClients writes what Pause kept from the clients.
func (s *Streams) flushClients() {
	s.mu.Lock()
	clients := s.clients
	s.mu.Unlock()
	for _, c := range clients {
		s.send(c, nil)
	}
}
