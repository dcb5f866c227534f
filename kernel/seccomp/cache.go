package seccomp

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Cache compiles each profile once. Nearly all containers of a host have the same one. The zero value is
// ready; it may be used concurrently.
type Cache struct {
	mu       sync.Mutex
	programs map[[sha256.Size]byte]Program
}

// cacheSize bounds a cache that is fed ever new profiles; it starts anew when it is full.
const cacheSize = 64

// Compile is the function Compile, remembered. The Program's bytes are shared: do not write to them.
func (c *Cache) Compile(profile *specs.LinuxSeccomp) (Program, error) {
	key := fingerprint(profile)
	c.mu.Lock()
	p, ok := c.programs[key]
	c.mu.Unlock()
	if ok {
		return p, nil
	}
	p, err := Compile(profile)
	if err != nil {
		return p, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.programs == nil || len(c.programs) >= cacheSize {
		c.programs = map[[sha256.Size]byte]Program{}
	}
	c.programs[key] = p
	return p, nil
}

// fingerprint hashes all that Compile looks at. Each string goes with its length and each list with its
// count, so that no two profiles are written alike.
func fingerprint(p *specs.LinuxSeccomp) [sha256.Size]byte {
	buf := make([]byte, 0, 16<<10)
	number := func(n uint64) { buf = binary.AppendUvarint(buf, n) }
	text := func(s string) { number(uint64(len(s))); buf = append(buf, s...) }
	optional := func(n *uint) {
		if n == nil {
			number(0)
			return
		}
		number(uint64(*n) + 1)
	}
	text(string(p.DefaultAction))
	optional(p.DefaultErrnoRet)
	number(uint64(len(p.Architectures)))
	for _, a := range p.Architectures {
		text(string(a))
	}
	if p.Flags == nil {
		number(0)
	} else {
		number(uint64(len(p.Flags)) + 1)
	}
	for _, f := range p.Flags {
		text(string(f))
	}
	for _, s := range p.Syscalls {
		text(string(s.Action))
		optional(s.ErrnoRet)
		number(uint64(len(s.Names)))
		for _, n := range s.Names {
			text(n)
		}
		number(uint64(len(s.Args)))
		for _, a := range s.Args {
			number(uint64(a.Index))
			number(a.Value)
			number(a.ValueTwo)
			text(string(a.Op))
		}
	}
	return sha256.Sum256(buf)
}
