package step

import "errors"

// The control socket is a unix stream socket. Both directions carry frames
//
//	kind (1 byte) | length (4 bytes, little-endian) | payload
//
// and descriptors travel with a frame's first bytes. From the runtime comes one Program, and one Go for
// each frame that waits for an answer. See package stage for who says what when.

// Kind is a frame's kind.
type Kind byte

// The frames.
const (
	Program Kind = 'P' // to init: steps (Encode); descriptors as the plan numbers them
	Go      Kind = 'G' // to init: go on
	Warning Kind = 'W' // from init: a soft step failed (EncodeFailure)
	Failed  Kind = 'F' // from init: a step failed, init exits (EncodeFailure)
	Master  Kind = 'M' // from init: the terminal's master, as a descriptor
	Hooks   Kind = 'H' // from init: waits for Go after the hooks outside
	Notify  Kind = 'N' // from init: seccomp listener, as a descriptor; waits for Go
	Grant   Kind = 'L' // from init: waits for Go after the runtime has set its resource limits
	Ready   Kind = 'R' // from init: parked
)

// HeaderSize is the size of a frame's header in bytes.
const HeaderSize = 5

// Frame returns a frame with its header.
func Frame(kind Kind, payload []byte) []byte {
	frame := make([]byte, 0, HeaderSize+len(payload))
	frame = append(frame, byte(kind))
	frame = appendWord32(frame, uint32(len(payload)))
	return append(frame, payload...)
}

// Header reads a frame's header of HeaderSize bytes.
func Header(b []byte) (Kind, int) {
	return Kind(b[0]), int(uint32(b[1]) | uint32(b[2])<<8 | uint32(b[3])<<16 | uint32(b[4])<<24)
}

func appendWord32(b []byte, v uint32) []byte {
	return append(b, byte(v), byte(v>>8), byte(v>>16), byte(v>>24))
}

// Failure is a step that failed in init.
type Failure struct {
	Op     Op
	Name   string // the step as String names it; for Find and the Runs the program
	Errno  int    // 0: Detail says all
	Detail string // beyond the name; may be empty
}

// EncodeFailure is the payload of Warning and Failed.
func EncodeFailure(f Failure) []byte {
	b := appendUint([]byte{byte(f.Op)}, uint64(f.Errno))
	b = appendString(b, f.Name)
	return append(b, f.Detail...)
}

// DecodeFailure reads the payload of Warning and Failed.
func DecodeFailure(b []byte) (Failure, error) {
	r := reader{b: b}
	f := Failure{Op: Op(r.byte()), Errno: int(r.uint()), Name: r.string()}
	f.Detail = string(r.b)
	return f, r.err
}

// Encode is the payload of Program: the number of descriptors that come with it, and the steps.
func Encode(files int, steps []Step) []byte {
	b := appendUint(make([]byte, 0, 16<<10), uint64(files))
	b = appendUint(b, uint64(len(steps)))
	for i := range steps {
		b = appendStep(b, &steps[i])
	}
	return b
}

// Decode reads the payload of Program.
func Decode(b []byte) (files int, steps []Step, err error) {
	r := reader{b: b}
	files = int(r.uint())
	steps = make([]Step, r.count())
	for i := range steps {
		steps[i] = r.step()
	}
	if r.err == nil && len(r.b) > 0 {
		r.err = errTrailing
	}
	return files, steps, r.err
}

var (
	errShort    = errors.New("program is cut short")
	errTrailing = errors.New("program has trailing bytes")
)

func appendStep(b []byte, s *Step) []byte {
	soft := byte(0)
	if s.Soft {
		soft = 1
	}
	b = append(b, byte(s.Op), soft)
	b = appendUint(b, uint64(s.File))
	b = appendString(b, s.Path)
	b = appendString(b, s.Source)
	b = appendString(b, s.Type)
	b = appendStrings(b, s.List)
	b = appendStrings(b, s.Env)
	b = appendUint(b, uint64(len(s.Words)))
	for _, w := range s.Words {
		b = appendUint(b, w)
	}
	return appendString(b, string(s.Data))
}

func appendUint(b []byte, v uint64) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func appendString(b []byte, s string) []byte {
	return append(appendUint(b, uint64(len(s))), s...)
}

func appendStrings(b []byte, list []string) []byte {
	b = appendUint(b, uint64(len(list)))
	for _, s := range list {
		b = appendString(b, s)
	}
	return b
}

// reader takes values off b until it is empty; after an error all further values are zero.
type reader struct {
	b   []byte
	err error
}

func (r *reader) step() Step {
	var s Step
	s.Op = Op(r.byte())
	s.Soft = r.byte() == 1
	s.File = int(r.uint())
	s.Path, s.Source, s.Type = r.string(), r.string(), r.string()
	s.List, s.Env = r.strings(), r.strings()
	if n := r.count(); n > 0 {
		s.Words = make([]uint64, n)
		for i := range s.Words {
			s.Words[i] = r.uint()
		}
	}
	if data := r.string(); data != "" {
		s.Data = []byte(data)
	}
	return s
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.err = errShort
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) uint() (v uint64) {
	for shift := 0; shift < 64; shift += 7 {
		b := r.byte()
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v
		}
	}
	return v
}

// count reads a length, which can never exceed the bytes that are left.
func (r *reader) count() int {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.err, r.b = errShort, nil
		return 0
	}
	return int(n)
}

func (r *reader) string() string {
	n := r.count()
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

func (r *reader) strings() []string {
	n := r.count()
	if n == 0 {
		return nil
	}
	list := make([]string, n)
	for i := range list {
		list[i] = r.string()
	}
	return list
}
