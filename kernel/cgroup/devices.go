package cgroup

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/oci/errdefs"
)

// DefaultDevices returns the rules for the devices that every container has (runtime-spec,
// config-linux.md, "Default Devices"), for making any node, and for its terminals. They come after a
// rule that denies everything.
func DefaultDevices() []specs.LinuxDeviceCgroup {
	rule := func(kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
		r := specs.LinuxDeviceCgroup{Allow: true, Type: kind, Access: access, Major: &major, Minor: &minor}
		if major == anyNumber {
			r.Major = nil
		}
		if minor == anyNumber {
			r.Minor = nil
		}
		return r
	}
	return []specs.LinuxDeviceCgroup{
		rule("c", anyNumber, anyNumber, "m"),
		rule("b", anyNumber, anyNumber, "m"),
		rule("c", 1, 3, "rwm"),           // null
		rule("c", 1, 5, "rwm"),           // zero
		rule("c", 1, 7, "rwm"),           // full
		rule("c", 1, 8, "rwm"),           // random
		rule("c", 1, 9, "rwm"),           // urandom
		rule("c", 5, 0, "rwm"),           // tty
		rule("c", 5, 1, "rwm"),           // console
		rule("c", 5, 2, "rwm"),           // ptmx
		rule("c", 136, anyNumber, "rwm"), // pts
	}
}

const anyNumber = -1

// access is a set of ways to use a device, in the numbering of struct bpf_cgroup_dev_ctx.
type access uint8

const (
	accessMknod access = 1 << iota
	accessRead
	accessWrite

	accessAll = accessMknod | accessRead | accessWrite
)

// device names one device, or many by anyNumber.
type device struct {
	kind         byte // 'b' or 'c'
	major, minor int64
}

// deviceList is the state that a sequence of rules leads to, by the rules of v1's device controller
// (cgroup-v1/devices.rst): everything is allowed except, or nothing is except.
type deviceList struct {
	allow  bool
	except map[device]access
	rank   map[device]int // when a device was first mentioned
}

// resolveDevices plays the rules through from "nothing is allowed".
func resolveDevices(rules []specs.LinuxDeviceCgroup) (deviceList, error) {
	l := deviceList{except: map[device]access{}, rank: map[device]int{}}
	for _, r := range rules {
		if err := l.add(r); err != nil {
			return l, err
		}
	}
	return l, nil
}

func (l *deviceList) add(r specs.LinuxDeviceCgroup) error {
	bits, err := parseAccess(r.Access)
	if err != nil {
		return err
	}
	d := device{major: number(r.Major), minor: number(r.Minor)}
	kinds := r.Type
	switch r.Type {
	case "", "a":
		if d.major == anyNumber && d.minor == anyNumber && bits == accessAll {
			l.allow = r.Allow
			clear(l.except)
			return nil
		}
		kinds = "bc"
	case "b", "c":
	case "u":
		kinds = "c"
	default:
		return errdefs.Invalid("invalid device type %q in a device rule: it is a, b, c or u", r.Type)
	}
	for _, kind := range []byte(kinds) {
		d.kind = kind
		if _, known := l.rank[d]; !known {
			l.rank[d] = len(l.rank)
		}
		if r.Allow == l.allow {
			l.except[d] &^= bits
		} else {
			l.except[d] |= bits
		}
		if l.except[d] == 0 {
			delete(l.except, d)
		}
	}
	return nil
}

func number(n *int64) int64 {
	if n == nil || *n < 0 {
		return anyNumber
	}
	return *n
}

func parseAccess(s string) (access, error) {
	if s == "" {
		return accessAll, nil
	}
	var bits access
	for _, c := range s {
		switch c {
		case 'r':
			bits |= accessRead
		case 'w':
			bits |= accessWrite
		case 'm':
			bits |= accessMknod
		default:
			return 0, errdefs.Invalid("invalid device access %q: it is made of r, w and m", s)
		}
	}
	return bits, nil
}

// sorted returns the exceptions in the order of the rules, or where there were none by name.
func (l deviceList) sorted() []device {
	return slices.SortedFunc(maps.Keys(l.except), func(a, b device) int {
		return cmp.Or(cmp.Compare(l.rank[a], l.rank[b]), strings.Compare(a.String(), b.String()))
	})
}

// String is the device as v1's files write it: "c 136:*".
func (d device) String() string {
	part := func(n int64) string {
		if n == anyNumber {
			return "*"
		}
		return itoa(n)
	}
	return fmt.Sprintf("%c %s:%s", d.kind, part(d.major), part(d.minor))
}

func (a access) String() string {
	s := ""
	for _, l := range []struct {
		bit  access
		name string
	}{{accessRead, "r"}, {accessWrite, "w"}, {accessMknod, "m"}} {
		if a&l.bit != 0 {
			s += l.name
		}
	}
	return s
}
