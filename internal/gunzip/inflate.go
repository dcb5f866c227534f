package gunzip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	windowSize = 32 << 10
	// outputSize is the window and what is decoded before it is handed out.
	outputSize = windowSize + 128<<10
	// outputSlack is how much one step may write: the longest match, and the overshoot of copying words.
	outputSlack = 258 + 16
	inputSize   = 64 << 10
	// inputSlack is how much one step may look at: two words.
	inputSlack = 16
	// inputPad is how many zeros follow the end of the input: a step may begin on up to a word of them.
	inputPad = 2 * inputSlack
	// lookBack is how many bytes before pos may be in bits, and be given back.
	lookBack = 8
)

var (
	errBlock    = errors.New("invalid block type")
	errStored   = errors.New("invalid stored block")
	errLengths  = errors.New("invalid code lengths")
	errDistance = errors.New("invalid distance")
)

// inflater decodes one deflate stream after the other (RFC 1951).
type inflater struct {
	src io.Reader

	in       []byte // what was read of src; the inputPad bytes after end are zeros once src has ended
	pos, end int
	eof      bool
	bits     uint64 // the next count bits of the input, lowest first; those above may be anything that follows
	count    uint

	out         [outputSize + outputSlack]byte
	read, write int // out[read:write] is decoded and not handed out yet
	start       int // how far back matches may reach: the beginning of the stream, if that is in out

	state  func(*inflater) error // what comes next; nil: the stream has ended
	last   bool                  // the present block is the last one
	stored int                   // bytes left of a stored block

	literals  table
	distances table
}

func (d *inflater) reset() {
	d.state, d.last = (*inflater).block, false
	d.read, d.write, d.start = 0, 0, 0
}

// fill makes at least inputSlack bytes available behind pos, at the end of src padded with zeros.
func (d *inflater) fill() error {
	if d.end-d.pos >= inputSlack || d.eof {
		return nil
	}
	moved := max(0, d.pos-lookBack)
	copy(d.in, d.in[moved:d.end])
	d.pos, d.end = d.pos-moved, d.end-moved
	for empty := 0; d.end-d.pos < inputSlack; {
		n, err := d.src.Read(d.in[d.end : len(d.in)-inputPad])
		d.end += n
		if errors.Is(err, io.EOF) {
			d.eof = true
			clear(d.in[d.end : d.end+inputPad])
			return nil
		}
		if err != nil {
			return err
		}
		if n > 0 {
			empty = 0
		} else if empty++; empty == 100 {
			return io.ErrNoProgress
		}
	}
	return nil
}

// need makes n bits available, n at most 32.
func (d *inflater) need(n uint) error {
	for d.count < n {
		if d.pos >= d.end {
			if err := d.fill(); err != nil {
				return err
			}
			if d.pos >= d.end {
				return io.ErrUnexpectedEOF
			}
		}
		d.bits = d.bits&(1<<d.count-1) | uint64(d.in[d.pos])<<d.count
		d.pos++
		d.count += 8
	}
	return nil
}

func (d *inflater) take(n uint) (int, error) {
	if err := d.need(n); err != nil {
		return 0, err
	}
	v := d.bits & (1<<n - 1)
	d.bits >>= n
	d.count -= n
	return int(v), nil
}

// align drops the rest of a byte, and gives whole bytes back to the input.
func (d *inflater) align() {
	d.pos -= int(d.count / 8)
	d.bits, d.count = 0, 0
}

// more decodes until there is something to hand out or the stream ends.
func (d *inflater) more() error {
	for d.state != nil && d.read == d.write {
		if d.write >= outputSize {
			keep := copy(d.out[:], d.out[d.write-windowSize:d.write])
			d.start = max(0, d.start-(d.write-keep))
			d.read, d.write = keep, keep
		}
		if err := d.state(d); err != nil {
			return err
		}
	}
	return nil
}

// block reads a block's header.
func (d *inflater) block() error {
	if d.last {
		d.state = nil
		return nil
	}
	header, err := d.take(3)
	if err != nil {
		return err
	}
	d.last = header&1 == 1
	switch header >> 1 {
	case 0:
		return d.storedHeader()
	case 1:
		d.fixed()
	case 2:
		if err := d.dynamic(); err != nil {
			return err
		}
	default:
		return errBlock
	}
	d.state = (*inflater).decode
	return nil
}

func (d *inflater) storedHeader() error {
	d.align()
	size, err := d.take(16)
	if err != nil {
		return err
	}
	complement, err := d.take(16)
	if err != nil {
		return err
	}
	if size != complement^0xffff {
		return errStored
	}
	d.align()
	d.stored, d.state = size, (*inflater).copyStored
	return nil
}

func (d *inflater) copyStored() error {
	for d.stored > 0 && d.write < outputSize {
		if d.pos >= d.end {
			if err := d.fill(); err != nil {
				return err
			}
			if d.pos >= d.end {
				return io.ErrUnexpectedEOF
			}
		}
		n := copy(d.out[d.write:outputSize], d.in[d.pos:min(d.end, d.pos+d.stored)])
		d.pos, d.write, d.stored = d.pos+n, d.write+n, d.stored-n
	}
	if d.stored == 0 {
		d.state = (*inflater).block
	}
	return nil
}

// fixed sets up the codes of RFC 1951, section 3.2.6.
func (d *inflater) fixed() {
	var lengths [288]uint8
	for i := range lengths {
		switch {
		case i < 144, i >= 280:
			lengths[i] = 8
		case i < 256:
			lengths[i] = 9
		default:
			lengths[i] = 7
		}
	}
	_ = d.literals.build(lengths[:], literalBits, literalOrLength) // it is complete
	var five [32]uint8
	for i := range five {
		five[i] = 5
	}
	_ = d.distances.build(five[:], distanceBits, distance)
}

// lengthOrder is in which order the lengths of the code of code lengths are given. RFC 1951, section 3.2.7.
var lengthOrder = [...]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// dynamic reads a block's own codes.
func (d *inflater) dynamic() error {
	counts, err := d.take(14)
	if err != nil {
		return err
	}
	literals, distances := counts&31+257, counts>>5&31+1
	if literals > 286 {
		return errLengths
	}
	var precode [19]uint8
	for _, symbol := range lengthOrder[:counts>>10+4] {
		n, err := d.take(3)
		if err != nil {
			return err
		}
		precode[symbol] = uint8(n)
	}
	if err := d.literals.build(precode[:], lengthBits, codeLength); err != nil {
		return err
	}
	var lengths [286 + 32]uint8
	if err := d.lengths(lengths[:literals+distances]); err != nil {
		return err
	}
	if err := d.literals.build(lengths[:literals], literalBits, literalOrLength); err != nil {
		return err
	}
	return d.distances.build(lengths[literals:literals+distances], distanceBits, distance)
}

// lengths decodes code lengths with the code that is in literals.
func (d *inflater) lengths(into []uint8) error {
	for i := 0; i < len(into); {
		symbol, err := d.lengthSymbol()
		if err != nil {
			return err
		}
		var value uint8
		repeat := 1
		switch symbol {
		case 16:
			if i == 0 {
				return errLengths
			}
			value = into[i-1]
			repeat, err = d.take(2)
			repeat += 3
		case 17:
			repeat, err = d.take(3)
			repeat += 3
		case 18:
			repeat, err = d.take(7)
			repeat += 11
		default:
			value = uint8(symbol)
		}
		if err != nil {
			return err
		}
		if i+repeat > len(into) {
			return errLengths
		}
		for range repeat {
			into[i] = value
			i++
		}
	}
	return nil
}

// lengthSymbol decodes one symbol. Near the end of the input there may be fewer bits than the longest
// code has.
func (d *inflater) lengthSymbol() (int, error) {
	for {
		e := d.literals[d.bits&(1<<d.count-1)&(1<<lengthBits-1)]
		n := uint(e & 255)
		if e&isLiteral != 0 && n <= d.count {
			d.bits >>= n
			d.count -= n
			return int(e >> 16), nil
		}
		if d.count >= lengthBits {
			return 0, errCode
		}
		if err := d.need(d.count + 1); err != nil {
			return 0, err
		}
	}
}

// decode decodes symbols until the block ends or out is full. Each turn of its loop is free to look at
// inputSlack bytes and to write outputSlack.
func (d *inflater) decode() error {
	for d.write < outputSize {
		if err := d.fill(); err != nil {
			return err
		}
		ended, err := d.run()
		if d.eof && d.pos-int(d.count/8) > d.end {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		if ended {
			d.state = (*inflater).block
			return nil
		}
	}
	return nil
}

// run is decode's inner loop, with the state in registers. Bits beyond the end of the input are zeros.
func (d *inflater) run() (ended bool, err error) {
	in, out := d.in, &d.out
	pos, write, have, count := d.pos, d.write, d.bits, d.count
	limit := d.end - inputSlack
	if d.eof {
		limit = d.end + lookBack // where bits cannot be any but those of the padding
	}
	literals, distances := &d.literals, &d.distances
	have &= 1<<count - 1
symbols:
	for pos <= limit && write < outputSize {
		have, pos, count = refill(in, pos, have, count)
		e := literals[have&(1<<literalBits-1)]
		if e&isLiteral != 0 { // three literals take no more bits than there are
			have, count, write = literal(out, e, have, count, write)
			e = literals[have&(1<<literalBits-1)]
			if e&isLiteral != 0 {
				have, count, write = literal(out, e, have, count, write)
				e = literals[have&(1<<literalBits-1)]
				if e&isLiteral != 0 {
					have, count, write = literal(out, e, have, count, write)
					continue
				}
			}
			have, pos, count = refill(in, pos, have, count)
		}
		if e&isSpecial != 0 {
			if e&isLink != 0 {
				have, count = have>>literalBits, count-literalBits
				e = literals[(e>>16+uint32(have)&(1<<(e>>8&15)-1))&(1<<12-1)]
				if e&isLiteral != 0 {
					have, count, write = literal(out, e, have, count, write)
					continue
				}
			}
			if e&isEnd != 0 {
				have, count = have>>(e&15), count-uint(e&15)
				if ended = e>>16 == 0 && e&15 != 0; !ended {
					err = errCode
				}
				break symbols
			}
		}
		length := int(e>>16 + uint32(have)&(1<<(e&31)-1)>>(e>>8&15))
		have, count = have>>(e&31), count-uint(e&31)
		// At least 56 - 15 - 5 bits are left; a distance takes 28 at most.
		e = distances[have&(1<<distanceBits-1)]
		if e&isSpecial != 0 {
			if e&isLink != 0 {
				have, count = have>>distanceBits, count-distanceBits
				e = distances[(e>>16+uint32(have)&(1<<(e>>8&15)-1))&(1<<12-1)]
			}
			if e&isEnd != 0 {
				err = errCode
				break symbols
			}
		}
		back := int(e>>16 + uint32(have)&(1<<(e&31)-1)>>(e>>8&15))
		have, count = have>>(e&31), count-uint(e&31)
		if back > write-d.start {
			err = errDistance
			break symbols
		}
		write = repeat(out, write, back, length)
	}
	d.pos, d.write, d.bits, d.count = pos, write, have, count
	return ended, err
}

// refill makes 56 bits available, and more above them that are the input's too.
func refill(in []byte, pos int, have uint64, count uint) (uint64, int, uint) {
	return have | binary.LittleEndian.Uint64(in[pos:])<<(count&63), pos + int((63-count)>>3), count | 56
}

// literal takes the symbol of an entry off the bits and writes its byte.
func literal(out *[outputSize + outputSlack]byte, e uint32, have uint64, count uint, write int) (uint64, uint, int) {
	n := e & 15
	out[write] = byte(e >> 16)
	return have >> n, count - uint(n), write + 1
}

// repeat copies length bytes from back bytes before write, and returns the end. It may write a word more.
func repeat(out *[outputSize + outputSlack]byte, write, back, length int) int {
	end := write + length
	if back >= 8 {
		for from := write - back; write < end; from, write = from+8, write+8 {
			binary.LittleEndian.PutUint64(out[write:], binary.LittleEndian.Uint64(out[from:]))
		}
		return end
	}
	if back == 1 {
		word := uint64(out[write-1]) * 0x0101010101010101
		for ; write < end; write += 8 {
			binary.LittleEndian.PutUint64(out[write:], word)
		}
		return end
	}
	for from := write - back; write < end; from, write = from+1, write+1 {
		out[write] = out[from]
	}
	return end
}

// corrupt says where in the plain text the input stopped making sense.
func corrupt(at int64, err error) error {
	return fmt.Errorf("corrupt gzip data after %d bytes of output: %w", at, err)
}
