package seccomp

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/oci/errdefs"
)

func ptr[T any](v T) *T { return &v }

func compile(t testing.TB, p *specs.LinuxSeccomp, goarch string) Program {
	t.Helper()
	prog, err := compileFor(p, native(goarch))
	if err != nil {
		t.Fatal(err)
	}
	return prog
}

func number(t testing.TB, a *arch, name string) uint32 {
	t.Helper()
	n, ok := a.number(name)
	if !ok {
		t.Fatalf("%s has no system call %s", a.name, name)
	}
	return n
}

func dockerDefault(t testing.TB, caps ...string) *specs.LinuxSeccomp {
	t.Helper()
	p, err := Default(caps)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestOracle compares every verdict with those of a filter that libseccomp made of the same profile, for
// all numbers of all three architectures and arguments around the values that the profile names.
func TestOracle(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Fatal("the oracle's profiles are x86-64's")
	}
	oracle := filepath.Join(t.TempDir(), "oracle")
	if out, err := exec.Command("gcc", "-Wall", "-Werror", "-o", oracle, "testdata/oracle.c", "-lseccomp").CombinedOutput(); err != nil {
		t.Fatalf("compile the oracle (needs gcc and libseccomp-dev): %v\n%s", err, out)
	}
	arches := []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}
	profiles := map[string]*specs.LinuxSeccomp{
		"docker":            dockerDefault(t, "CAP_CHOWN"),
		"docker privileged": dockerDefault(t, "CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_BPF", "CAP_SYS_CHROOT"),
		"one architecture":  {DefaultAction: specs.ActKill, Architectures: arches[:1], Syscalls: []specs.LinuxSyscall{{Names: []string{"read", "socket"}, Action: specs.ActAllow}}},
		"kill some":         {DefaultAction: specs.ActAllow, Architectures: arches, Syscalls: []specs.LinuxSyscall{{Names: []string{"mount", "shmat", "socket", "ptrace"}, Action: specs.ActKillProcess}}},
		"everything":        {DefaultAction: specs.ActLog, Architectures: arches},
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 40 {
		profiles[fmt.Sprintf("random %d", i)] = randomProfile(rnd, arches)
	}
	for name, p := range profiles {
		t.Run(name, func(t *testing.T) {
			want := libseccomp(t, oracle, p)
			got := compile(t, p, "amd64").Filter
			compareVerdicts(t, p, got, want)
		})
	}
}

// randomProfile makes rules of all operators and actions, one rule a call: what libseccomp makes of
// several that overlap depends on their order in ways of its own.
func randomProfile(rnd *rand.Rand, arches []specs.Arch) *specs.LinuxSeccomp {
	actions := []specs.LinuxSeccompAction{specs.ActAllow, specs.ActErrno, specs.ActTrap, specs.ActLog, specs.ActTrace, specs.ActKillProcess}
	ops := []specs.LinuxSeccompOperator{
		specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual,
	}
	values := []uint64{0, 1, 5, 0xffff, 1 << 31, 1<<32 - 1, 1 << 32, 1<<32 + 5, 1 << 63, 1<<64 - 1}
	p := &specs.LinuxSeccomp{DefaultAction: actions[rnd.IntN(len(actions))], DefaultErrnoRet: ptr(uint(38)), Architectures: arches[:1+rnd.IntN(len(arches))]}
	for _, c := range callsX86_64 {
		if rnd.IntN(3) > 0 || c.number > 400 || multiplexedName(c.name) {
			continue
		}
		s := specs.LinuxSyscall{Names: []string{c.name}, Action: actions[rnd.IntN(len(actions))], ErrnoRet: ptr(uint(rnd.IntN(50) + 1))}
		for i := range uint(6) {
			if rnd.IntN(6) == 0 {
				a := specs.LinuxSeccompArg{Index: i, Op: ops[rnd.IntN(len(ops))], Value: values[rnd.IntN(len(values))]}
				if a.Op == specs.OpMaskedEqual {
					a.ValueTwo = a.Value & values[rnd.IntN(len(values))]
				}
				s.Args = append(s.Args, a)
			}
		}
		p.Syscalls = append(p.Syscalls, s)
	}
	return p
}

func multiplexedName(name string) bool {
	_, ok := (&arch{demux: true}).multiplexed(name)
	return ok
}

var oracleOps = map[specs.LinuxSeccompOperator]int{
	specs.OpNotEqual: 1, specs.OpLessThan: 2, specs.OpLessEqual: 3, specs.OpEqualTo: 4, specs.OpGreaterEqual: 5, specs.OpGreaterThan: 6, specs.OpMaskedEqual: 7,
}

// libseccomp has the oracle compile a profile, with the reading of it that the package comment states.
func libseccomp(t *testing.T, oracle string, p *specs.LinuxSeccomp) []byte {
	t.Helper()
	var in bytes.Buffer
	otherwise, _ := actionValue(p.DefaultAction, p.DefaultErrnoRet)
	fmt.Fprintln(&in, "default", otherwise)
	for _, a := range p.Architectures {
		fmt.Fprintln(&in, "arch", strings.ToLower(strings.TrimPrefix(string(a), "SCMP_ARCH_")))
	}
	for _, s := range p.Syscalls {
		action, err := actionValue(s.Action, s.ErrnoRet)
		if err != nil {
			t.Fatal(err)
		}
		if action == otherwise {
			continue
		}
		for _, name := range s.Names {
			if !repeats(s.Args) {
				writeRule(&in, action, name, s.Args)
				continue
			}
			for i := range s.Args {
				writeRule(&in, action, name, s.Args[i:i+1])
			}
		}
	}
	c := exec.Command(oracle)
	c.Stdin = &in
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("the oracle refused the profile: %v\n%s", err, stderr.String())
	}
	return out
}

func writeRule(in *bytes.Buffer, action uint32, name string, args []specs.LinuxSeccompArg) {
	fmt.Fprint(in, "rule ", action, " ", name, " ", len(args))
	for _, a := range args {
		fmt.Fprint(in, " ", a.Index, " ", oracleOps[a.Op], " ", a.Value, " ", a.ValueTwo)
	}
	fmt.Fprintln(in)
}

// compareVerdicts runs both filters. Calls that Debian's libseccomp does not know, and those above the
// profile's newest, where davit answers ENOSYS, are its own business and left out.
func compareVerdicts(t *testing.T, p *specs.LinuxSeccomp, got, want []byte) {
	t.Helper()
	for _, a := range native("amd64") {
		f := resolved(t, p, a)
		interesting := map[uint][]uint64{}
		for _, s := range p.Syscalls {
			for _, c := range s.Args {
				for _, v := range []uint64{c.Value, c.ValueTwo} {
					interesting[c.Index] = append(interesting[c.Index], v-1, v, v+1, v^1<<40, v|1<<32)
				}
			}
		}
		base := uint32(0)
		if a.x32 {
			base = x32Bit
		}
		for n := base; n < base+450; n++ {
			if f != nil && (n > f.highest && f.unknown != f.otherwise || oracleLacks(f, n)) {
				continue
			}
			for _, args := range argumentSets(f, n, interesting, a.wide && !a.x32) {
				d := data{number: n, arch: a.audit, args: args}
				g, _ := interpret(got, d)
				w, _ := interpret(want, d)
				if g != w {
					t.Fatalf("%s number %d args %x: %#x, libseccomp says %#x", a.name, n, args, g, w)
				}
			}
		}
	}
	foreign := data{number: 1, arch: 0xc00000b7}
	if g, _ := interpret(got, foreign); g != retKillThread {
		t.Errorf("a foreign architecture gets %#x", g)
	}
}

// oracleLacks tells of the calls where the two differ on purpose: uretprobe and uprobe are newer than the
// oracle, and on x32 it looks at the low halves of arguments only, where davit looks at both.
func oracleLacks(f *filter, n uint32) bool {
	if n == 335 || n == 336 {
		return f.arch.name == specs.ArchX86_64
	}
	if r := f.rules[n]; r != nil && f.arch.x32 {
		for _, r := range r.conditional {
			for _, c := range r.args {
				if c.Value>>32 != 0 || c.ValueTwo>>32 != 0 {
					return true
				}
			}
		}
	}
	return false
}

// resolved returns the profile's filter for one architecture, nil when it does not list it.
func resolved(t *testing.T, p *specs.LinuxSeccomp, a *arch) *filter {
	t.Helper()
	filters, _, err := resolve(p, native("amd64"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range filters {
		if f.arch.name == a.name {
			return f
		}
	}
	return nil
}

// argumentSets varies one argument at a time, and all at once, where a rule looks at them.
func argumentSets(f *filter, n uint32, interesting map[uint][]uint64, wide bool) [][6]uint64 {
	sets := [][6]uint64{{}}
	if f == nil || f.rules[n] == nil || len(f.rules[n].conditional) == 0 {
		return sets
	}
	for _, r := range f.rules[n].conditional {
		base := [6]uint64{}
		for _, c := range r.args {
			base[c.Index] = c.Value
			if c.Op == specs.OpMaskedEqual {
				base[c.Index] = c.ValueTwo
			}
		}
		sets = append(sets, base)
		for _, c := range r.args {
			for _, v := range interesting[c.Index] {
				set := base
				set[c.Index] = v
				sets = append(sets, set)
			}
		}
	}
	for i := range sets {
		for j := range sets[i] {
			if !wide {
				sets[i][j] &= 1<<32 - 1
			}
		}
	}
	return sets
}

func TestMeaning(t *testing.T) {
	x86_64, x86, x32 := native("amd64")[0], native("amd64")[1], native("amd64")[2]
	all := []specs.Arch{specs.ArchX86, specs.ArchX32, specs.ArchMIPS}
	prog := compile(t, &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno,
		Architectures: all,
		Syscalls: []specs.LinuxSyscall{
			{Names: []string{"read", "socket", "no_such_call", "listns"}, Action: specs.ActAllow},
			{Names: []string{"clone"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 0, Value: 0x7e020000, ValueTwo: 0, Op: specs.OpMaskedEqual}}},
			{Names: []string{"openat"}, Action: specs.ActNotify},
			{Names: []string{"mmap"}, Action: specs.ActErrno, ErrnoRet: ptr(uint(12)), Args: []specs.LinuxSeccompArg{{Index: 2, Value: 7, Op: specs.OpEqualTo}}},
			{Names: []string{"mmap"}, Action: specs.ActAllow},
		},
	}, "amd64")
	if !prog.Notify {
		t.Error("a profile with a listener does not say so")
	}
	for _, tc := range []struct {
		what string
		a    *arch
		n    uint32
		args [6]uint64
		want uint32
	}{
		{"allowed", x86_64, number(t, x86_64, "read"), [6]uint64{}, retAllow},
		{"allowed on x86", x86, number(t, x86, "read"), [6]uint64{}, retAllow},
		{"allowed on x32", x32, number(t, x32, "read"), [6]uint64{}, retAllow},
		{"default", x86_64, number(t, x86_64, "write"), [6]uint64{}, retErrno | 1},
		{"socket through socketcall", x86, number(t, x86, "socketcall"), [6]uint64{1}, retAllow},
		{"bind through socketcall", x86, number(t, x86, "socketcall"), [6]uint64{2}, retErrno | 1},
		{"clone of a thread", x86_64, number(t, x86_64, "clone"), [6]uint64{0x3d0f00}, retAllow},
		{"clone of a user namespace", x86_64, number(t, x86_64, "clone"), [6]uint64{0x10000000}, retErrno | 1},
		{"listener", x86_64, number(t, x86_64, "openat"), [6]uint64{}, retNotify},
		{"a condition before none", x86_64, number(t, x86_64, "mmap"), [6]uint64{2: 7}, retErrno | 12},
		{"none after a condition", x86_64, number(t, x86_64, "mmap"), [6]uint64{2: 3}, retAllow},
		{"high half matters", x86_64, number(t, x86_64, "mmap"), [6]uint64{2: 7 | 1<<32}, retAllow},
		{"newer than the profile", x86_64, number(t, x86_64, "listns") + 1, [6]uint64{}, retErrno | 38},
		{"newer than the profile on x32", x32, number(t, x32, "listns") + 1, [6]uint64{}, retErrno | 38},
		{"skipped by a tracer", x86_64, 1<<32 - 1, [6]uint64{}, retErrno | 1},
		{"foreign architecture", &arch{audit: 0xc00000b7}, 0, [6]uint64{}, retKillThread},
	} {
		got, _ := interpret(prog.Filter, data{number: tc.n, arch: tc.a.audit, args: tc.args})
		if got != tc.want {
			t.Errorf("%s: %#x, want %#x", tc.what, got, tc.want)
		}
	}
}

// TestX32CannotBypass is CVE-2015-2830's kind: x32 numbers under a filter that does not know x32.
func TestX32CannotBypass(t *testing.T) {
	prog := compile(t, &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow,
		Syscalls:      []specs.LinuxSyscall{{Names: []string{"mount"}, Action: specs.ActErrno}},
	}, "amd64")
	x86_64 := native("amd64")[0]
	mount := number(t, x86_64, "mount")
	for _, d := range []data{{number: mount | x32Bit, arch: x86_64.audit}, {number: 21, arch: native("amd64")[1].audit}} {
		if got, _ := interpret(prog.Filter, d); got != retKillThread {
			t.Errorf("number %#x on %#x: %#x, want kill", d.number, d.arch, got)
		}
	}
}

func TestARM64(t *testing.T) {
	p := dockerDefault(t)
	p.Architectures = []specs.Arch{specs.ArchAARCH64, specs.ArchARM}
	prog := compile(t, p, "arm64")
	for _, a := range native("arm64") {
		for call, want := range map[string]uint32{"openat": retAllow, "mount": retErrno | 1} {
			if got, _ := interpret(prog.Filter, data{number: number(t, a, call), arch: a.audit}); got != want {
				t.Errorf("%s %s: %#x, want %#x", a.name, call, got, want)
			}
		}
	}
	arm := native("arm64")[1]
	if got, _ := interpret(compile(t, &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno, Architectures: p.Architectures,
		Syscalls: []specs.LinuxSyscall{{Names: []string{"set_tls"}, Action: specs.ActAllow}},
	}, "arm64").Filter,
		data{number: 0xf0005, arch: arm.audit}); got != retAllow {
		t.Errorf("ARM's private set_tls: %#x", got)
	}
}

// TestDepth keeps the filter's cost: the kernel runs it for every call it has no constant answer for.
func TestDepth(t *testing.T) {
	prog := compile(t, dockerDefault(t), "amd64")
	t.Logf("%d instructions", len(prog.Filter)/8)
	for _, c := range callsX86_64 {
		if _, steps := interpret(prog.Filter, data{number: c.number, arch: auditX86_64}); steps > 45 {
			t.Errorf("%s takes %d instructions", c.name, steps)
		}
	}
}

func TestBadProfiles(t *testing.T) {
	for name, p := range map[string]*specs.LinuxSeccomp{
		"unknown default":   {DefaultAction: "SCMP_ACT_SING"},
		"default listener":  {DefaultAction: specs.ActNotify},
		"unknown action":    {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: "x"}}},
		"unknown operator":  {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActTrap, Args: []specs.LinuxSeccompArg{{Op: "x"}}}}},
		"seventh argument":  {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActTrap, Args: []specs.LinuxSeccompArg{{Index: 6, Op: specs.OpEqualTo}}}}},
		"listener on write": {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"write"}, Action: specs.ActNotify}}},
		"unknown flag":      {DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"x"}},
	} {
		if _, err := Compile(p); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s: %v, want invalid", name, err)
		}
	}
	if _, err := Load([]byte("{"), nil); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("broken JSON: %v, want invalid", err)
	}
}

func BenchmarkDefault(b *testing.B) {
	for b.Loop() {
		dockerDefault(b, "CAP_CHOWN")
	}
}

func BenchmarkCompile(b *testing.B) {
	p := dockerDefault(b, "CAP_CHOWN")
	for b.Loop() {
		if _, err := Compile(p); err != nil {
			b.Fatal(err)
		}
	}
}
