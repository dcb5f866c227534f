// Package delta is the form in which a layer travels to somebody who has similar ones: which stretches of
// its tar archive are stretches of theirs, and the bytes of the rest. It is a zstd stream of
//
//	"davit delta 1\n"
//	uvarint(size of the archive)
//	uvarint(n), n times uvarint(length) DiffID     the layers it copies from
//	'C' uvarint(layer) uvarint(offset) uvarint(n)  n bytes of that layer's archive
//	'L' uvarint(n) n bytes                         bytes as they are
//	'E'                                            the end
//
// Nothing in it is to be trusted: the archive that comes out is the layer when it has the layer's DiffID.
package delta

import (
	"davit/oci"
	"davit/store/chunk"
)

// MediaType is the media type of the form.
const MediaType = "application/vnd.davit.layer.delta.v1+zstd"

const (
	magic = "davit delta 1\n"

	opCopy    = 'C'
	opLiteral = 'L'
	opEnd     = 'E'
)

// Worthwhile is the size of a compressed layer, in bytes, below which a delta saves too little to ask for it.
const Worthwhile = 128 << 10

// MaxBases is how many layers one delta may copy from.
const MaxBases = 64

// Base is a layer to copy from.
type Base struct {
	DiffID oci.DiffID
	Chunks chunk.List
}

// Op makes the next Size bytes of the archive: out of a base, or (Base < 0) of the chunks of the wanted list
// from First on, which are sent.
type Op struct {
	Base   int
	Offset int64 // in the base
	Size   int64
	First  int // of the wanted list's chunks
	Chunks int // how many of them it makes
}

// Plan says how the wanted list is made of the bases, which are numbered as given.
func Plan(want chunk.List, bases []Base) []Op {
	p := planner{bases: bases, known: map[chunk.Sum]place{}, offsets: make([][]int64, len(bases))}
	p.index()
	var ops []Op
	for i, c := range want {
		at, ok := p.find(c)
		op := Op{Base: -1, Size: int64(c.Size), First: i, Chunks: 1}
		if ok {
			op.Base, op.Offset = at.base, p.offsets[at.base][at.chunk]
		}
		if n := len(ops); n > 0 && ops[n-1].continues(op) {
			ops[n-1].Size += op.Size
			ops[n-1].Chunks++
		} else {
			ops = append(ops, op)
		}
	}
	return ops
}

// continues says whether next makes what follows on o from where o ended.
func (o Op) continues(next Op) bool {
	return o.Base == next.Base && (o.Base < 0 || o.Offset+o.Size == next.Offset)
}

// place is where a chunk of a base is.
type place struct{ base, chunk int }

type planner struct {
	bases   []Base
	known   map[chunk.Sum]place
	offsets [][]int64 // of each base's chunks
	last    place     // where the last chunk was found
}

func (p *planner) index() {
	p.last = place{base: -1}
	for i, base := range p.bases {
		p.offsets[i] = make([]int64, len(base.Chunks))
		var at int64
		for n, c := range base.Chunks {
			p.offsets[i][n] = at
			at += int64(c.Size)
			if _, ok := p.known[c.Sum]; !ok {
				p.known[c.Sum] = place{i, n}
			}
		}
	}
}

// find looks first at what follows the last one: chunks that occur more than once (zeros) do not break a
// stretch.
func (p *planner) find(c chunk.Chunk) (place, bool) {
	if p.last.base >= 0 {
		next := place{p.last.base, p.last.chunk + 1}
		if chunks := p.bases[next.base].Chunks; next.chunk < len(chunks) && chunks[next.chunk] == c {
			p.last = next
			return next, true
		}
	}
	at, ok := p.known[c.Sum]
	if !ok || p.bases[at.base].Chunks[at.chunk].Size != c.Size {
		return place{}, false
	}
	p.last = at
	return at, true
}

// Sent returns how many bytes of the archive a plan sends.
func Sent(ops []Op) int64 {
	var n int64
	for _, op := range ops {
		if op.Base < 0 {
			n += op.Size
		}
	}
	return n
}

// Used returns the plan over the bases that it uses only, and those.
func Used(ops []Op, bases []Base) ([]Op, []oci.DiffID) {
	numbers := map[int]int{}
	used := []oci.DiffID{}
	renumbered := make([]Op, len(ops))
	for i, op := range ops {
		if op.Base >= 0 {
			n, ok := numbers[op.Base]
			if !ok {
				n = len(used)
				numbers[op.Base] = n
				used = append(used, bases[op.Base].DiffID)
			}
			op.Base = n
		}
		renumbered[i] = op
	}
	return renumbered, used
}
