package delta

import (
	"context"
	"encoding/binary"

	"github.com/klauspost/compress/zstd"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/store/chunk"
)

// A pack is a zstd frame of uvarint(length) and a chunk list, and then the chunks themselves.

// maxPack bounds a pack's bytes before compression.
const maxPack = 16 << 20

// packing gathers the chunks that nobody knew.
type packing struct {
	known  map[chunk.Sum]bool
	shared bool // some chunk was known
	list   chunk.List
	bytes  []byte
}

func newPacking(known map[chunk.Sum]bool) *packing {
	p := &packing{known: make(map[chunk.Sum]bool, len(known))}
	for sum := range known {
		p.known[sum] = true
	}
	return p
}

func (p *packing) add(c chunk.Chunk, b []byte) {
	if p.known[c.Sum] {
		p.shared = true
		return
	}
	p.known[c.Sum] = true
	p.list = append(p.list, c)
	if len(p.bytes) <= maxPack {
		p.bytes = append(p.bytes, b...)
	}
}

// encode returns the pack, or nil when it would hold more than limit bytes, or when all is new.
func (p *packing) encode(limit int64) ([]byte, error) {
	if !p.shared || len(p.list) == 0 || int64(len(p.bytes)) > min(limit, maxPack) {
		return nil, nil
	}
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	list := p.list.Encode()
	plain := binary.AppendUvarint(nil, uint64(len(list)))
	plain = append(append(plain, list...), p.bytes...)
	return z.EncodeAll(plain, nil), z.Close()
}

// unpack adds the wanted chunks of a pack to those found.
func (s *Service) unpack(ctx context.Context, pack oci.Digest, wanted map[chunk.Sum]bool, found map[chunk.Sum][]byte) error {
	b, err := s.small(ctx, pack)
	if err != nil {
		return err
	}
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(2*maxPack))
	if err != nil {
		return err
	}
	defer z.Close()
	plain, err := z.DecodeAll(b, nil)
	if err != nil {
		return err
	}
	length, n := binary.Uvarint(plain)
	if n <= 0 || length > uint64(len(plain)-n) {
		return errdefs.Invalid("the pack is damaged")
	}
	list, err := chunk.Decode(plain[n : n+int(length)])
	if err != nil {
		return err
	}
	rest := plain[n+int(length):]
	if int64(len(rest)) != list.Bytes() {
		return errdefs.Invalid("the pack has %d bytes for chunks of %d", len(rest), list.Bytes())
	}
	for _, c := range list {
		if wanted[c.Sum] {
			found[c.Sum] = rest[:c.Size:c.Size]
		}
		rest = rest[c.Size:]
	}
	return nil
}
