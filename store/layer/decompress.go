package layer

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"davit/internal/gunzip"
)

// Compression names how a layer blob is compressed.
type Compression string

// The compressions that Decompress recognises.
const (
	Plain Compression = "plain"
	Gzip  Compression = "gzip"
	Zstd  Compression = "zstd"
	Bzip2 Compression = "bzip2"
	Xz    Compression = "xz"
)

// Sniff tells the compression of content by its first bytes; six are enough.
func Sniff(head []byte) Compression {
	for _, c := range []struct {
		magic string
		name  Compression
	}{
		{"\x1f\x8b", Gzip},
		{"\x28\xb5\x2f\xfd", Zstd},
		{"BZh", Bzip2},
		{"\xfd7zXZ\x00", Xz},
	} {
		if bytes.HasPrefix(head, []byte(c.magic)) {
			return c.name
		}
	}
	if len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18}) {
		return Zstd // begins with a skippable frame
	}
	return Plain
}

// Decompress looks at the first bytes of r and returns its uncompressed content. Reading and
// decompressing run ahead of the caller in a goroutine, which ends at the end of r, on an error, or
// after Close: Close does not wait for a read of r under way, and does not close r.
func Decompress(r io.Reader) (io.ReadCloser, Compression, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	head, err := in.Peek(6)
	if err != nil && err != io.EOF {
		return nil, "", fmt.Errorf("decompress: %w", err)
	}
	kind := Sniff(head)
	plain, done, err := open(kind, in)
	if err != nil {
		return nil, kind, fmt.Errorf("decompress %s: %w", kind, err)
	}
	return newReadAhead(plain, done), kind, nil
}

// open returns the decompressor for in, and a function that frees it.
func open(kind Compression, in io.Reader) (io.Reader, func(), error) {
	switch kind {
	case Gzip:
		z, err := gunzip.NewReader(in)
		return z, func() {}, err
	case Zstd:
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	case Bzip2:
		return bzip2.NewReader(in), func() {}, nil
	case Xz:
		z, err := xz.NewReader(in)
		return z, func() {}, err
	}
	return in, func() {}, nil
}

const (
	chunkSize = 256 << 10
	chunks    = 4 // in flight between the two goroutines
)

// errClosed is what a reader gets after Close.
var errClosed = errors.New("read after close")

// readAhead reads a stream in a goroutine of its own.
type readAhead struct {
	full chan chunk
	free chan []byte
	quit chan struct{}
	stop sync.Once

	cur chunk // being consumed
	off int   // how far
}

type chunk struct {
	b   []byte
	err error // after b
}

// newReadAhead begins reading r. done is called when r is no longer used.
func newReadAhead(r io.Reader, done func()) *readAhead {
	a := &readAhead{full: make(chan chunk, chunks), free: make(chan []byte, chunks), quit: make(chan struct{})}
	for range chunks {
		a.free <- make([]byte, chunkSize)
	}
	go a.run(r, done)
	return a
}

func (a *readAhead) run(r io.Reader, done func()) {
	defer done()
	for {
		var b []byte
		select {
		case b = <-a.free:
		case <-a.quit:
			return
		}
		n, err := fill(r, b)
		select {
		case a.full <- chunk{b[:n], err}:
		case <-a.quit:
			return
		}
		if err != nil {
			return
		}
	}
}

// fill reads until b is full or r ends. Unlike io.ReadFull it returns the error that r ended with, so
// that a stream that was cut off does not look like one that ended.
func fill(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = r.Read(b[n:])
		n += m
	}
	return n, err
}

// Read implements io.Reader.
func (a *readAhead) Read(p []byte) (int, error) {
	for a.off == len(a.cur.b) {
		if a.cur.err != nil {
			return 0, a.cur.err
		}
		if a.cur.b != nil {
			a.free <- a.cur.b[:chunkSize]
		}
		select {
		case a.cur = <-a.full:
			a.off = 0
		case <-a.quit:
			return 0, errClosed
		}
	}
	n := copy(p, a.cur.b[a.off:])
	a.off += n
	return n, nil
}

// Close ends reading ahead.
func (a *readAhead) Close() error {
	a.stop.Do(func() { close(a.quit) })
	return nil
}
