// Package chunk cuts byte streams into chunks at places that the content decides, so that streams with a
// common stretch have chunks in common there, whatever was inserted or removed before it.
//
// A boundary lies where a rolling hash of the last 64 bytes is small (a "gear" hash: Xia et al., "FastCDC:
// a Fast and Efficient Content-Defined Chunking Approach", USENIX ATC 2016). It has to be smaller before the
// average size than after it, so that sizes stay close to the average. The parameters are part of the format:
// lists made with others have no chunk in common.
package chunk

import (
	"crypto/sha256"
	"errors"
	"io"
)

// The sizes of chunks, in bytes. The last chunk of a stream may be smaller than Min.
const (
	Min     = 4 << 10
	Average = 16 << 10
	Max     = 64 << 10
)

const (
	// The hash is 64 bits; one in 2^n values lies below 1<<(64-n).
	below = 1 << (64 - 16) // a boundary before the average size: one in 64 Ki places
	above = 1 << (64 - 12) // a boundary after it: one in 4 Ki

	bufferSize = 512 << 10
)

// Sum is the first half of a chunk's SHA-256: what chunks are told apart by. Whoever puts content together by
// it verifies the whole against a full digest.
type Sum [16]byte

// SumOf returns the sum of a chunk.
func SumOf(b []byte) Sum {
	full := sha256.Sum256(b)
	return Sum(full[:16])
}

// Cutter finds boundaries. The zero value is not usable; see NewCutter.
type Cutter struct{ gear [256]uint64 }

// NewCutter returns a Cutter.
func NewCutter() *Cutter {
	c := &Cutter{}
	state := uint64(0x64617669742d3031) // the table is this seed's splitmix64 sequence
	for i := range c.gear {
		state += 0x9e3779b97f4a7c15
		z := state
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		c.gear[i] = z ^ z>>31
	}
	return c
}

// next returns the length of the first chunk of b, which holds Max bytes or all that is left.
func (c *Cutter) next(b []byte) int {
	if len(b) <= Min {
		return len(b)
	}
	b = b[:min(len(b), Max)]
	var h uint64
	i := Min - 64 // the hash has forgotten what is more than 64 bytes ago
	for ; i < Min; i++ {
		h = h<<1 + c.gear[b[i]]
	}
	for end := min(len(b), Average); i < end; i++ {
		h = h<<1 + c.gear[b[i]]
		if h < below {
			return i + 1
		}
	}
	for ; i < len(b); i++ {
		h = h<<1 + c.gear[b[i]]
		if h < above {
			return i + 1
		}
	}
	return len(b)
}

// Cut calls f with each chunk of r, in order. The bytes are f's only until it returns.
func Cut(r io.Reader, f func(b []byte) error) error {
	c := NewCutter()
	buf := make([]byte, bufferSize)
	have, ended := 0, false
	for {
		for !ended && have < len(buf) {
			n, err := r.Read(buf[have:])
			have += n
			if errors.Is(err, io.EOF) {
				ended = true
			} else if err != nil {
				return err
			}
		}
		at := 0
		for have-at >= Max || ended && at < have {
			n := c.next(buf[at:have])
			if err := f(buf[at : at+n]); err != nil {
				return err
			}
			at += n
		}
		if ended {
			return nil
		}
		have = copy(buf, buf[at:have])
	}
}
