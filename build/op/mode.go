package op

import (
	"io/fs"
	"strconv"
	"strings"

	"davit/oci/errdefs"
)

// chmod changes a file's mode; the zero value keeps it.
type chmod func(mode fs.FileMode) fs.FileMode

// parseChmod reads the value of --chmod: octal, or symbolic as chmod(1) takes it (u+x,go-w).
func parseChmod(s string) (chmod, error) {
	if s == "" {
		return nil, nil
	}
	if bits, err := strconv.ParseUint(s, 8, 32); err == nil {
		if bits > 0o7777 {
			return nil, errdefs.Invalid("invalid chmod parameter: %q: it is more than 7777", s)
		}
		return func(mode fs.FileMode) fs.FileMode { return withBits(mode, uint32(bits)) }, nil
	}
	var clauses []clause
	for text := range strings.SplitSeq(s, ",") {
		parsed, ok := parseClause(text)
		if !ok {
			return nil, errdefs.Invalid("invalid chmod parameter: %q: it should be octal or symbolic, such as 0755 or u+x,go-w", s)
		}
		clauses = append(clauses, parsed...)
	}
	return func(mode fs.FileMode) fs.FileMode {
		for _, c := range clauses {
			mode = c.apply(mode)
		}
		return mode
	}, nil
}

// bitsOf returns the twelve bits of chmod(2).
func bitsOf(mode fs.FileMode) uint32 {
	bits := uint32(mode.Perm())
	for flag, bit := range specialBits() {
		if mode&flag != 0 {
			bits |= bit
		}
	}
	return bits
}

func withBits(mode fs.FileMode, bits uint32) fs.FileMode {
	mode = mode&fs.ModeType | fs.FileMode(bits&0o777)
	for flag, bit := range specialBits() {
		if bits&bit != 0 {
			mode |= flag
		}
	}
	return mode
}

func specialBits() map[fs.FileMode]uint32 {
	return map[fs.FileMode]uint32{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000}
}

// clause is one operation of a symbolic mode.
type clause struct {
	who    string // of u, g, o; empty: all
	op     byte   // '+', '-', '='
	rights string // of r, w, x, X, s, t, u, g, o
}

// parseClause reads WHO and one or more OP RIGHTS.
func parseClause(text string) ([]clause, bool) {
	i := strings.IndexAny(text, "+-=")
	if i < 0 || strings.Trim(text[:i], "ugoa") != "" {
		return nil, false
	}
	who := text[:i]
	if strings.Contains(who, "a") {
		who = "ugo"
	}
	var clauses []clause
	for text = text[i:]; text != ""; {
		end := strings.IndexAny(text[1:], "+-=") + 1
		if end == 0 {
			end = len(text)
		}
		c := clause{who: who, op: text[0], rights: text[1:end]}
		if strings.Trim(c.rights, "rwxXstugo") != "" {
			return nil, false
		}
		clauses, text = append(clauses, c), text[end:]
	}
	return clauses, true
}

func (c clause) apply(mode fs.FileMode) fs.FileMode {
	old := bitsOf(mode)
	who := c.who
	if who == "" {
		who = "ugo"
	}
	var mask, bits uint32
	for _, class := range []byte(who) {
		shift := map[byte]uint32{'u': 6, 'g': 3, 'o': 0}[class]
		mask |= 7 << shift
		bits |= c.classBits(mode, old) << shift
		special := map[byte]uint32{'u': 0o4000, 'g': 0o2000, 'o': 0o1000}[class]
		mask |= special
		if class != 'o' && strings.Contains(c.rights, "s") {
			bits |= special
		}
	}
	if strings.Contains(c.rights, "t") {
		mask, bits = mask|0o1000, bits|0o1000
	}
	switch c.op {
	case '+':
		return withBits(mode, old|bits)
	case '-':
		return withBits(mode, old&^bits)
	}
	if mode.IsDir() {
		mask &^= 0o6000 &^ bits // chmod(1) keeps a directory's setuid and setgid bits
	}
	return withBits(mode, old&^mask|bits)
}

// classBits returns the three bits that the rights mean for one class of users.
func (c clause) classBits(mode fs.FileMode, old uint32) (bits uint32) {
	for _, right := range []byte(c.rights) {
		switch right {
		case 'r':
			bits |= 4
		case 'w':
			bits |= 2
		case 'x':
			bits |= 1
		case 'X':
			if mode.IsDir() || old&0o111 != 0 {
				bits |= 1
			}
		case 'u':
			bits |= old >> 6 & 7
		case 'g':
			bits |= old >> 3 & 7
		case 'o':
			bits |= old & 7
		}
	}
	return bits
}
