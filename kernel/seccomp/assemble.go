package seccomp

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// instruction is a struct sock_filter.
type instruction struct {
	op     uint16
	jt, jf uint8
	k      uint32
}

// Opcodes of linux/bpf_common.h, those that seccomp allows and this compiler needs.
const (
	opLoad = 0x20 // LD|W|ABS
	opJump = 0x05 // JMP|JA
	opJEQ  = 0x15 // JMP|JEQ|K
	opJGT  = 0x25
	opJGE  = 0x35
	opAnd  = 0x54 // ALU|AND|K
	opRet  = 0x06 // RET|K
)

// Offsets in struct seccomp_data. Both supported architectures are little-endian.
const (
	dataNumber = 0
	dataArch   = 4
	dataArgs   = 16
)

// assembler writes a program backwards, from its last instruction to its first, because BPF jumps only
// forward and so every target is known when its jump is written. A position counts from the end.
type assembler struct {
	code []instruction  // reversed
	rets map[uint32]int // the latest return of each value
	wide bool           // arguments have 64 bits in the architecture being written
}

func (a *assembler) emit(in instruction) int {
	a.code = append(a.code, in)
	return len(a.code) - 1
}

// distance is how many instructions lie between one emitted now and the target.
func (a *assembler) distance(target int) int { return len(a.code) - 1 - target }

const farthest = 255

// near returns a position at most a short jump away, with room for further instructions in between, that
// leads to target.
func (a *assembler) near(target int, room int) int {
	if a.distance(target)+room <= farthest {
		return target
	}
	if in := a.code[target]; in.op == opRet {
		return a.emit(in)
	}
	return a.emit(instruction{op: opJump, k: uint32(a.distance(target))})
}

// jump writes a conditional jump.
func (a *assembler) jump(op uint16, k uint32, yes, no int) int {
	yes, no = a.near(yes, 2), a.near(no, 1)
	return a.emit(instruction{op: op, k: k, jt: uint8(a.distance(yes)), jf: uint8(a.distance(no))})
}

// ret returns the position of an instruction that ends the filter with the value, one in reach if there
// is one.
func (a *assembler) ret(value uint32) int {
	if p, ok := a.rets[value]; ok && a.distance(p) < farthest-8 {
		return p
	}
	p := a.emit(instruction{op: opRet, k: value})
	a.rets[value] = p
	return p
}

// assemble links the filters behind a look at the architecture.
func assemble(filters []*filter) []instruction {
	a := &assembler{rets: map[uint32]int{}}
	next := a.ret(retKillThread) // an architecture that is not listed
	var x32 *filter
	for _, f := range filters {
		if f.arch.x32 {
			x32 = f
		}
	}
	for _, f := range slices.Backward(filters) {
		if f.arch.x32 {
			continue // entered from x86-64, whose audit value it shares
		}
		entry := a.numbers(f, x32)
		next = a.jump(opJEQ, f.arch.audit, entry, next)
	}
	a.load(dataArch, next)
	slices.Reverse(a.code)
	return a.code
}

// numbers writes the part for one architecture and returns its entry.
func (a *assembler) numbers(f, x32 *filter) int {
	tree := func(f *filter) int {
		a.wide = f.arch.wide
		return a.search(f.spans())
	}
	if f.arch.audit != auditX86_64 {
		return a.load(dataNumber, tree(f))
	}
	// Without a filter of its own, x32 is an architecture that is not listed. A number of -1 is a call
	// that a tracer skipped.
	other := a.ret(retKillThread)
	if x32 != nil {
		other = tree(x32)
	}
	high := a.jump(opJEQ, 1<<32-1, a.ret(f.otherwise), other)
	return a.load(dataNumber, a.jump(opJGE, x32Bit, high, tree(f)))
}

// auditX86_64 is AUDIT_ARCH_X86_64.
const auditX86_64 = 0xc000003e

// search writes a binary tree over spans, of which the accumulator's number is in one.
func (a *assembler) search(spans []span) int {
	if len(spans) == 1 {
		return a.leaf(spans[0])
	}
	half := len(spans) / 2
	high := a.search(spans[half:])
	low := a.search(spans[:half])
	return a.jump(opJGE, spans[half].first, high, low)
}

// leaf writes a span's conditional rules, in order, before its plain action.
func (a *assembler) leaf(s span) int {
	next := a.ret(s.action)
	for _, r := range slices.Backward(s.rules) {
		next = a.rule(r, next)
	}
	return next
}

// rule writes the conditions of a rule: the first that fails leads to next.
func (a *assembler) rule(r rule, next int) int {
	yes := a.ret(r.action)
	for _, c := range slices.Backward(r.args) {
		yes = a.condition(c, yes, next)
	}
	return yes
}

// condition compares one argument, high half first.
func (a *assembler) condition(c specs.LinuxSeccompArg, yes, no int) int {
	switch c.Op {
	case specs.OpNotEqual:
		return a.compare(opJEQ, c, ^uint64(0), c.Value, no, yes)
	case specs.OpEqualTo:
		return a.compare(opJEQ, c, ^uint64(0), c.Value, yes, no)
	case specs.OpMaskedEqual:
		return a.compare(opJEQ, c, c.Value, c.ValueTwo, yes, no)
	case specs.OpGreaterThan:
		return a.compare(opJGT, c, ^uint64(0), c.Value, yes, no)
	case specs.OpGreaterEqual:
		return a.compare(opJGE, c, ^uint64(0), c.Value, yes, no)
	case specs.OpLessThan:
		return a.compare(opJGE, c, ^uint64(0), c.Value, no, yes)
	default: // specs.OpLessEqual: checkArg has let no other through
		return a.compare(opJGT, c, ^uint64(0), c.Value, no, yes)
	}
}

// compare writes "(argument & mask) op value" for 64 bits: the high half decides, or when it is equal the
// low half.
func (a *assembler) compare(op uint16, c specs.LinuxSeccompArg, mask, value uint64, yes, no int) int {
	low := a.jump(op, uint32(value), yes, no)
	low = a.loadArg(c.Index, 0, uint32(mask), low)
	if !a.wide {
		return low
	}
	high := a.jump(opJEQ, uint32(value>>32), low, no)
	if op != opJEQ {
		high = a.jump(opJGT, uint32(value>>32), yes, high)
	}
	return a.loadArg(c.Index, 4, uint32(mask>>32), high)
}

// loadArg loads half an argument, masked.
func (a *assembler) loadArg(index uint, half uint32, mask uint32, then int) int {
	if mask != 1<<32-1 {
		then = a.follow(instruction{op: opAnd, k: mask}, then)
	}
	return a.load(dataArgs+8*uint32(index)+half, then)
}

// load loads a word of seccomp_data and goes on at then.
func (a *assembler) load(offset uint32, then int) int {
	return a.follow(instruction{op: opLoad, k: offset}, then)
}

// follow writes an instruction that cannot jump, before then.
func (a *assembler) follow(in instruction, then int) int {
	if a.distance(then) != 0 {
		a.emit(instruction{op: opJump, k: uint32(a.distance(then))})
	}
	return a.emit(in)
}
