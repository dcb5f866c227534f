// Package gunzip reads gzip (RFC 1952), and little else quickly: layers are bound by it. It decodes from
// whole words of the input into its own window, where general readers go byte by byte, and takes half
// their time (docs/adr). What it returns is checked against gzip's own sum, and by its callers against a
// digest.
package gunzip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Reader reads the concatenated members of a gzip file as one. It may read its source beyond the end of
// the last member.
type Reader struct {
	d     *inflater
	sum   uint32
	size  int64 // of the present member's text
	total int64
	err   error
}

// NewReader returns a Reader of src, having read the first member's header: an error says that src is no
// gzip file.
func NewReader(src io.Reader) (*Reader, error) {
	r := &Reader{d: &inflater{src: src, in: make([]byte, inputSize)}}
	if err := r.begin(); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return r, nil
}

// Read implements io.Reader. Data that is not well-formed, ends early or has another sum than it says
// ends in an error; what was returned before is to be thrown away.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for r.err == nil {
		if n := copy(p, r.d.out[r.d.read:r.d.write]); n > 0 {
			r.sum = crc32.Update(r.sum, crc32.IEEETable, p[:n])
			r.d.read += n
			r.size += int64(n)
			r.total += int64(n)
			return n, nil
		}
		if r.d.state != nil {
			if err := r.d.more(); err != nil {
				r.err = corrupt(r.total+int64(r.d.write-r.d.read), err)
			}
			continue
		}
		if r.err = r.trailer(); r.err == nil {
			r.err = r.begin()
		}
	}
	return 0, r.err
}

// trailer checks the sum and size at a member's end.
func (r *Reader) trailer() error {
	r.d.align()
	var b [8]byte
	if err := r.d.bytes(b[:]); err != nil {
		return corrupt(r.total, noEOF(err))
	}
	if binary.LittleEndian.Uint32(b[:]) != r.sum {
		return corrupt(r.total, errors.New("wrong checksum"))
	}
	if binary.LittleEndian.Uint32(b[4:]) != uint32(r.size) {
		return corrupt(r.total, errors.New("wrong size"))
	}
	return nil
}

// Flags of a member's header. RFC 1952, section 2.3.1.
const (
	hasHeaderSum = 1 << 1
	hasExtra     = 1 << 2
	hasName      = 1 << 3
	hasComment   = 1 << 4
)

// begin reads a member's header; io.EOF says that there is none more.
func (r *Reader) begin() error {
	var head [10]byte
	if err := r.d.bytes(head[:]); err != nil {
		return err
	}
	if head[0] != 0x1f || head[1] != 0x8b || head[2] != 8 {
		return corrupt(r.total, errors.New("no gzip header"))
	}
	sum := crc32.ChecksumIEEE(head[:])
	skipped, err := r.optional(head[3])
	if err != nil {
		return corrupt(r.total, noEOF(err))
	}
	if head[3]&hasHeaderSum != 0 {
		var b [2]byte
		if err := r.d.bytes(b[:]); err != nil {
			return corrupt(r.total, noEOF(err))
		}
		if binary.LittleEndian.Uint16(b[:]) != uint16(crc32.Update(sum, crc32.IEEETable, skipped)) {
			return corrupt(r.total, errors.New("wrong checksum of header"))
		}
	}
	r.sum, r.size = 0, 0
	r.d.reset()
	return nil
}

// maxText is how long a header's name or comment may be, in bytes.
const maxText = 64 << 10

// optional reads the fields of a header that its flags announce.
func (r *Reader) optional(flags byte) (read []byte, err error) {
	if flags&hasExtra != 0 {
		var size [2]byte
		if err := r.d.bytes(size[:]); err != nil {
			return nil, err
		}
		extra := make([]byte, binary.LittleEndian.Uint16(size[:]))
		if err := r.d.bytes(extra); err != nil {
			return nil, err
		}
		read = append(append(read, size[:]...), extra...)
	}
	for _, flag := range []byte{hasName, hasComment} {
		if flags&flag == 0 {
			continue
		}
		for b := [1]byte{1}; b[0] != 0; {
			if err := r.d.bytes(b[:]); err != nil {
				return nil, err
			}
			if read = append(read, b[0]); len(read) > maxText {
				return nil, fmt.Errorf("header of more than %d bytes", maxText)
			}
		}
	}
	return read, nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// bytes reads whole bytes outside of a deflate stream. At the end of the input it returns io.EOF, or when
// some have come io.ErrUnexpectedEOF.
func (d *inflater) bytes(into []byte) error {
	for n := 0; n < len(into); {
		if d.pos >= d.end {
			if err := d.fill(); err != nil {
				return err
			}
			if d.pos >= d.end && n == 0 {
				return io.EOF
			} else if d.pos >= d.end {
				return io.ErrUnexpectedEOF
			}
		}
		m := copy(into[n:], d.in[d.pos:d.end])
		n, d.pos = n+m, d.pos+m
	}
	return nil
}
