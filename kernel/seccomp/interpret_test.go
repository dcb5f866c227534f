package seccomp

import (
	"encoding/binary"
	"fmt"
)

// data is struct seccomp_data.
type data struct {
	number, arch uint32
	args         [6]uint64
}

func (d data) word(offset uint32) uint32 {
	switch {
	case offset == 0:
		return d.number
	case offset == 4:
		return d.arch
	case offset >= 16 && offset < 64 && offset%4 == 0:
		v := d.args[(offset-16)/8]
		if (offset-16)%8 == 4 {
			v >>= 32
		}
		return uint32(v)
	}
	panic(fmt.Sprint("load at ", offset))
}

// interpret runs a filter as the kernel would, and returns its verdict and how many instructions it took.
// It knows every opcode that seccomp allows and either compiler writes.
func interpret(filter []byte, d data) (verdict uint32, steps int) {
	var a, x uint32
	var mem [16]uint32
	for pc := 0; ; steps++ {
		in := filter[8*pc:]
		op, jt, jf, k := binary.NativeEndian.Uint16(in), int(in[2]), int(in[3]), binary.NativeEndian.Uint32(in[4:])
		pc++
		branch := func(yes bool) {
			if yes {
				pc += jt
			} else {
				pc += jf
			}
		}
		switch op {
		case 0x20:
			a = d.word(k)
		case 0x05:
			pc += int(k)
		case 0x15:
			branch(a == k)
		case 0x25:
			branch(a > k)
		case 0x35:
			branch(a >= k)
		case 0x45:
			branch(a&k != 0)
		case 0x54:
			a &= k
		case 0x02:
			mem[k] = a
		case 0x60:
			a = mem[k]
		case 0x07:
			x = a
		case 0x87:
			a = x
		case 0x06:
			return k, steps
		default:
			panic(fmt.Sprintf("opcode %#x", op))
		}
	}
}
