package gunzip

import (
	"errors"
	"math/bits"
)

// An entry of a decoding table says what the next bits of the input mean. From its lowest bit:
//
//	 0-7   how many bits it consumes, those of a value's extra bits included
//	 8-11  how many of them are the code itself; of a link, how many bits index its subtable
//	12-14  what it is: literal, link, end; none of them: a length or distance
//	16-31  the literal, the base of the length or distance, or where the subtable begins
type entry = uint32

const (
	isLiteral entry = 1 << 12
	isLink    entry = 1 << 13 // longer codes go on in a subtable
	isEnd     entry = 1 << 14 // end of block, or with no bits to consume: a code that does not exist
	isSpecial       = isLink | isEnd
)

const (
	maxCode      = 15 // bits of the longest code
	literalBits  = 11 // that index the first table of literals and lengths
	distanceBits = 8
	lengthBits   = 7 // of the code of code lengths: its longest
)

// table decodes one code: 2^11 entries and then all subtables that a code of 288 symbols of up to 15 bits
// can need. A subtable of 2^k entries stands for at least 2^(k-1) + 1 symbols, so that they have 576
// entries at most. The size is a power of two, so that masked indexes need no bounds check.
type table [4096]entry

var errCode = errors.New("invalid code")

// build makes the table of the code with these lengths in bits, by symbol; 0 is a symbol without a code.
// meaning gives each symbol's entry without its lengths; extra bits are in its lowest byte. A code must be
// complete; as zlib and others do we accept a single code of one bit, and no code at all.
func (t *table) build(lengths []uint8, first int, meaning func(symbol int) entry) error {
	var count [maxCode + 1]int
	for _, n := range lengths {
		count[n]++
	}
	count[0] = 0
	longest := 0
	var next [maxCode + 1]uint32 // the next code of each length
	code := uint32(0)
	for n := 1; n <= maxCode; n++ {
		code <<= 1
		next[n] = code
		code += uint32(count[n])
		if count[n] > 0 {
			longest = n
		}
	}
	if longest > 0 && code != 1<<maxCode && (longest != 1 || count[1] != 1) {
		return errCode
	}
	for i := range 1 << first {
		t[i] = isEnd
	}
	if longest == 0 {
		return nil
	}
	free := uint32(1) << first // where the next subtable goes
	for n := 1; n <= longest; n++ {
		for symbol, length := range lengths {
			if int(length) != n {
				continue
			}
			reversed := bits.Reverse32(next[n]) >> (32 - n)
			next[n]++
			e := meaning(symbol)
			if n <= first {
				e += entry(n)<<8 | entry(n)
				for i := reversed; i < 1<<first; i += 1 << n {
					t[i] = e
				}
			} else {
				free = t.addLong(reversed, n, first, e, &count, free)
			}
			count[n]--
		}
	}
	return nil
}

// addLong puts a code that is longer than the first table's index into its subtable, and returns where
// the next subtable goes. Codes come in the order of their lengths, so that the first of a prefix says how
// large its subtable must be: it holds all codes that share the prefix. count is of those that are left.
func (t *table) addLong(reversed uint32, n, first int, e entry, count *[maxCode + 1]int, free uint32) uint32 {
	prefix := reversed & (1<<first - 1)
	if t[prefix]&isLink == 0 {
		width := n - first
		for room := 1<<width - count[n]; room > 0 && first+width < maxCode; {
			width++
			room = room<<1 - count[first+width]
		}
		t[prefix] = isLink | entry(free)<<16 | entry(width)<<8 | entry(first)
		for i := range uint32(1) << width {
			t[free+i] = isEnd
		}
		free += 1 << width
	}
	link := t[prefix]
	start, width := link>>16, link>>8&15
	e += entry(n-first)<<8 | entry(n-first)
	for i := reversed >> first; i < 1<<width; i += 1 << (n - first) {
		t[start+i] = e
	}
	return free
}

// The bases and extra bits of lengths (symbols 257-285) and distances. RFC 1951, section 3.2.5.
var (
	lengthBase = [...]uint16{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	lengthMore = [...]uint8{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}

	distanceBase = [...]uint16{1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577}
	distanceMore = [...]uint8{0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13}
)

// literalOrLength is the meaning of a symbol of the first code. Symbols 286 and 287 have codes in the
// fixed code and mean nothing.
func literalOrLength(symbol int) entry {
	switch {
	case symbol < 256:
		return isLiteral | entry(symbol)<<16
	case symbol == 256:
		return isEnd
	case symbol-257 < len(lengthBase):
		return entry(lengthBase[symbol-257])<<16 | entry(lengthMore[symbol-257])
	}
	return noSuchSymbol
}

func distance(symbol int) entry {
	if symbol < len(distanceBase) {
		return entry(distanceBase[symbol])<<16 | entry(distanceMore[symbol])
	}
	return noSuchSymbol
}

// noSuchSymbol is an entry that consumes bits, ends, and is not the end of a block.
const noSuchSymbol = isEnd | 1<<16

func codeLength(symbol int) entry { return isLiteral | entry(symbol)<<16 }
