package seccomp

import (
	"cmp"
	"maps"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/oci/errdefs"
)

// filter is a profile for one architecture, by number.
type filter struct {
	arch      *arch
	otherwise uint32 // the default action
	unknown   uint32 // the action for numbers above highest
	highest   uint32 // of the calls that the profile names
	rules     map[uint32]*rules
}

// rules are what a profile says of one call.
type rules struct {
	conditional []rule
	plain       *uint32 // action without conditions
}

// rule is an action under conditions, all of which must hold.
type rule struct {
	args   []specs.LinuxSeccompArg
	action uint32
}

// resolve splits a profile into one filter for each architecture that it lists and this kernel runs. The
// native one is always among them.
func resolve(profile *specs.LinuxSeccomp, family []*arch) (filters []*filter, notify bool, err error) {
	if profile.DefaultAction == specs.ActNotify {
		return nil, false, errdefs.Invalid("SCMP_ACT_NOTIFY cannot be the default action of a seccomp profile")
	}
	otherwise, err := actionValue(profile.DefaultAction, profile.DefaultErrnoRet)
	if err != nil {
		return nil, false, err
	}
	for i, a := range family {
		if i > 0 && !slices.Contains(profile.Architectures, a.name) {
			continue
		}
		f := &filter{arch: a, otherwise: otherwise, unknown: unknownAction(profile.DefaultAction, otherwise), rules: map[uint32]*rules{}}
		for _, s := range profile.Syscalls {
			used, err := f.add(s)
			if err != nil {
				return nil, false, err
			}
			notify = notify || used
		}
		filters = append(filters, f)
	}
	return filters, notify, nil
}

// unknownAction answers calls that the profile's author could not know. A permissive default permits
// them, and a tracer decides by itself.
func unknownAction(a specs.LinuxSeccompAction, otherwise uint32) uint32 {
	switch a {
	case specs.ActAllow, specs.ActLog, specs.ActTrace:
		return otherwise
	}
	return retErrno | errnoENOSYS
}

// add takes up one entry of the profile; notify tells that it asks the listener.
func (f *filter) add(s specs.LinuxSyscall) (notify bool, err error) {
	action, err := actionValue(s.Action, s.ErrnoRet)
	if err != nil {
		return false, err
	}
	for _, c := range s.Args {
		if err := checkArg(c); err != nil {
			return false, err
		}
	}
	for _, name := range s.Names {
		if s.Action == specs.ActNotify && name == "write" {
			return false, errdefs.Invalid("SCMP_ACT_NOTIFY cannot be used for the write system call: the runtime itself needs it")
		}
		n, known := f.arch.number(name)
		if known {
			f.highest = max(f.highest, n)
		}
		if action == f.otherwise {
			continue
		}
		if known {
			f.put(n, action, s.Args)
		}
		f.putMultiplexed(name, action, s.Args)
	}
	return s.Action == specs.ActNotify, nil
}

func checkArg(c specs.LinuxSeccompArg) error {
	if c.Index > 5 {
		return errdefs.Invalid("invalid argument index %d in a seccomp profile: it is 0 to 5", c.Index)
	}
	switch c.Op {
	case specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual,
		specs.OpGreaterThan, specs.OpMaskedEqual:
		return nil
	}
	return errdefs.Invalid("unknown seccomp operator %q", c.Op)
}

// put adds a rule for a number.
func (f *filter) put(n uint32, action uint32, args []specs.LinuxSeccompArg) {
	f.highest = max(f.highest, n)
	r := f.rules[n]
	if r == nil {
		r = &rules{}
		f.rules[n] = r
	}
	switch {
	case len(args) == 0:
		if r.plain == nil {
			r.plain = &action
		}
	case repeats(args):
		for _, c := range args {
			r.conditional = append(r.conditional, rule{[]specs.LinuxSeccompArg{c}, action})
		}
	default:
		r.conditional = append(r.conditional, rule{args, action})
	}
}

// putMultiplexed adds the rule for the old way to make the call. Its arguments lie in memory there, out
// of a filter's sight: a rule with conditions is left out.
func (f *filter) putMultiplexed(name string, action uint32, args []specs.LinuxSeccompArg) {
	m, ok := f.arch.multiplexed(name)
	if !ok || len(args) > 0 {
		return
	}
	n, ok := f.arch.number(m.name)
	if !ok {
		return
	}
	f.put(n, action, []specs.LinuxSeccompArg{{Index: 0, Value: m.sub, Op: specs.OpEqualTo}})
}

// repeats reports conditions that share an argument.
func repeats(args []specs.LinuxSeccompArg) bool {
	seen := [6]bool{}
	for _, c := range args {
		if seen[c.Index] {
			return true
		}
		seen[c.Index] = true
	}
	return false
}

// span is a run of numbers, from first to the next span's first, that are treated alike.
type span struct {
	first  uint32
	action uint32
	rules  []rule // looked at before action
}

// spans cuts all numbers into runs: the leaves of the search tree, in order.
func (f *filter) spans() []span {
	out := []span{{first: 0, action: f.otherwise}}
	push := func(s span) {
		last := &out[len(out)-1]
		switch {
		case last.first == s.first:
			*last = s
		case len(last.rules) == 0 && len(s.rules) == 0 && last.action == s.action:
		default:
			out = append(out, s)
		}
		if n := len(out); n > 1 && len(out[n-2].rules) == 0 && len(out[n-1].rules) == 0 && out[n-2].action == out[n-1].action {
			out = out[:n-1]
		}
	}
	for _, n := range slices.SortedFunc(maps.Keys(f.rules), cmp.Compare[uint32]) {
		r := f.rules[n]
		s := span{first: n, action: f.otherwise, rules: r.conditional}
		if r.plain != nil {
			s.action = *r.plain
		}
		push(s)
		push(span{first: n + 1, action: f.otherwise})
	}
	if f.unknown != f.otherwise && f.highest > 0 {
		push(span{first: f.highest + 1, action: f.unknown})
		// What a tracer set to -1, to skip the call, is not a new call.
		push(span{first: 1<<32 - 1, action: f.otherwise})
	}
	return out
}
