package chunk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"davit/oci/errdefs"
)

// Chunk is one chunk of a stream.
type Chunk struct {
	Size int // bytes; 1 to Max
	Sum  Sum
}

// List is a stream's chunks in order.
type List []Chunk

// ListOf cuts a stream.
func ListOf(r io.Reader) (List, error) {
	var l List
	err := Cut(r, func(b []byte) error {
		l = append(l, Chunk{len(b), SumOf(b)})
		return nil
	})
	return l, err
}

// Bytes returns the size of the stream.
func (l List) Bytes() int64 {
	var n int64
	for _, c := range l {
		n += int64(c.Size)
	}
	return n
}

// listMagic begins an encoded list. For each chunk follow uvarint(size) and the 16 bytes of its sum.
const listMagic = "davit chunk list 1\n"

// Encode returns the list in its form on disk: about 19 bytes for each chunk.
func (l List) Encode() []byte {
	b := make([]byte, 0, len(listMagic)+19*len(l))
	b = append(b, listMagic...)
	for _, c := range l {
		b = binary.AppendUvarint(b, uint64(c.Size))
		b = append(b, c.Sum[:]...)
	}
	return b
}

// Decode reads an encoded list; anything else is errdefs.ErrInvalid.
func Decode(b []byte) (List, error) {
	rest, ok := bytes.CutPrefix(b, []byte(listMagic))
	if !ok {
		return nil, errdefs.Invalid("this is not a chunk list of this version")
	}
	l := make(List, 0, len(rest)/18)
	for len(rest) > 0 {
		size, n := binary.Uvarint(rest)
		if n <= 0 || size == 0 || size > Max || len(rest) < n+len(Sum{}) {
			return nil, errdefs.Invalid("the chunk list is damaged: %w", fmt.Errorf("chunk %d", len(l)))
		}
		l = append(l, Chunk{int(size), Sum(rest[n : n+16])})
		rest = rest[n+16:]
	}
	return l, nil
}
