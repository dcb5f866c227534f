package plan

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/kernel/cap"
	"davit/oci/errdefs"
	"davit/ociruntime/step"
)

// InitAnnotation asks for a tiny init as process 1, which reaps orphans and passes signals on.
const InitAnnotation = "org.davit.init"

// kernelSettings plans what belongs to namespaces rather than to files.
func (b *builder) kernelSettings() error {
	s := b.spec
	if s.Process.Terminal {
		b.add(b.console("/dev/console"))
	}
	if s.Hostname != "" {
		b.add(step.Step{Op: step.Hostname, Source: s.Hostname})
	}
	if s.Domainname != "" {
		b.add(step.Step{Op: step.Domainname, Source: s.Domainname})
	}
	for _, key := range slices.Sorted(maps.Keys(s.Linux.Sysctl)) {
		name := key
		if !strings.Contains(key, "/") {
			name = strings.ReplaceAll(key, ".", "/")
		}
		b.add(step.Step{Op: step.Sysctl, Path: name, Source: s.Linux.Sysctl[key]})
	}
	return nil
}

// hideAndEnter hides what a container must not see, runs the hooks that want to find everything in
// place, and makes the root file system the root.
func (b *builder) hideAndEnter() error {
	s := b.spec
	if s.Process.Cwd != "/" {
		b.add(step.Step{Op: step.MakeDir, Path: s.Process.Cwd, Words: []uint64{0o755}, Soft: true})
	}
	if h := s.Hooks; h != nil {
		//lint:ignore SA1019 old specs still say prestart
		if len(h.Prestart)+len(h.CreateRuntime) > 0 {
			b.add(step.Step{Op: step.HostHooks})
		}
		b.hooks(h.CreateContainer)
	}
	if s.Root.Readonly {
		b.add(step.Step{Op: step.RootMount, Words: []uint64{readOnly, 0}})
	}
	for _, p := range s.Linux.ReadonlyPaths {
		b.add(step.Step{Op: step.ReadOnly, Path: p})
	}
	for _, p := range s.Linux.MaskedPaths {
		b.add(step.Step{Op: step.Mask, Path: p})
	}
	op := step.PivotRoot
	if b.facts.NoPivot {
		op = step.ChangeRoot
	}
	b.add(step.Step{Op: op})
	if p := s.Linux.RootfsPropagation; p != "" { // only now: a shared mount cannot become the root
		b.add(step.Step{Op: step.RootMount, Words: []uint64{0, propagations[p] &^ recursive}})
	}
	return nil
}

// hooks plans hooks that run in the container's namespaces. The runtime puts the state that they read
// into their steps' Data once there is a process id.
func (b *builder) hooks(hooks []specs.Hook) {
	for _, h := range hooks {
		args, limit := h.Args, uint64(0)
		if len(args) == 0 {
			args = []string{h.Path}
		}
		if h.Timeout != nil {
			limit = uint64(*h.Timeout) * 1000
		}
		b.add(step.Step{Op: step.Hook, Path: h.Path, List: args, Env: h.Env, Words: []uint64{limit}})
	}
}

// identity plans who the program runs as and what it may do. The order matters: what needs privileges
// comes before they go. A seccomp filter is loaded as late as possible: after the ids when
// no_new_privs allows that, else before they are given up.
func (b *builder) identity() error {
	p := b.spec.Process
	b.limits()
	b.OOMScore = p.OOMScoreAdj
	terminal := uint64(0)
	if p.Terminal {
		terminal = 1
	}
	b.timeOffsets()
	b.add(step.Step{Op: step.Session, Words: []uint64{terminal}})
	b.labels()
	if err := b.scheduling(); err != nil {
		return err
	}
	b.add(step.Step{Op: step.Chdir, Path: p.Cwd, Words: []uint64{1}})
	sets, err := b.capabilities()
	if err != nil {
		return err
	}
	b.add(step.Step{Op: step.Bounding, Words: []uint64{sets.bounding}})
	b.settle()
	if len(b.Limits) > 0 { // before the ids differ from the runtime's, which may lack CAP_SYS_RESOURCE
		b.add(step.Step{Op: step.Limits})
	}
	if p.NoNewPrivileges {
		b.add(step.Step{Op: step.NoNewPrivs})
	}
	if !b.lateFilter() {
		b.filter()
	}
	b.add(userStep(p.User),
		step.Step{Op: step.Capabilities, Words: []uint64{sets.effective, sets.permitted, sets.inheritable, sets.ambient}},
		step.Step{Op: step.Chdir, Path: p.Cwd, Words: []uint64{0}})
	umask := uint64(0o022)
	if p.User.Umask != nil {
		umask = uint64(*p.User.Umask)
	}
	b.add(step.Step{Op: step.Umask, Words: []uint64{umask}}, step.Step{Op: step.Find, Source: p.Args[0], Env: p.Env})
	return nil
}

func userStep(u specs.User) step.Step {
	words := []uint64{uint64(u.UID), uint64(u.GID)}
	for _, g := range u.AdditionalGids {
		words = append(words, uint64(g))
	}
	return step.Step{Op: step.User, Words: words}
}

// lateFilter reports whether the filter is loaded right before the program: when no_new_privs makes that
// possible, and no listener has to be handed to a runtime that may be gone by then.
func (b *builder) lateFilter() bool { return b.spec.Process.NoNewPrivileges && !b.facts.Notify }

// filter plans the seccomp filter, if there is one.
func (b *builder) filter() {
	if len(b.facts.Filter) == 0 {
		return
	}
	flags := b.facts.FilterFlags
	if b.facts.Notify {
		const newListener = 1 << 3 // SECCOMP_FILTER_FLAG_NEW_LISTENER
		flags |= newListener
	}
	b.add(step.Step{Op: step.Seccomp, Data: b.facts.Filter, Words: []uint64{flags}})
}

// program parks before the user's program and then executes it.
func (b *builder) program() error {
	b.add(step.Step{Op: step.Park, File: step.FileListen})
	if b.spec.Hooks != nil {
		b.hooks(b.spec.Hooks.StartContainer)
	}
	b.execProgram()
	return nil
}

func (b *builder) execProgram() {
	if b.lateFilter() {
		b.filter()
	}
	op := step.Run
	if b.spec.Annotations[InitAnnotation] == "true" && !b.exec {
		op = step.RunAsChild
	}
	b.add(step.Step{Op: op})
}

// settle gets descriptors and arguments ready before a filter might forbid it.
func (b *builder) settle() {
	p, first := b.spec.Process, 0 // an exec has no files but the extra ones
	if !b.exec {
		first = step.FirstSource + len(b.Sources)
	}
	b.add(step.Step{
		Op: step.Settle, List: p.Args, Env: p.Env, File: first,
		Words: []uint64{uint64(b.facts.ExtraFiles)},
	})
}

func (b *builder) labels() {
	p := b.spec.Process
	if p.ApparmorProfile != "" {
		b.add(step.Step{Op: step.Label, Path: "attr/apparmor/exec", Source: "exec " + p.ApparmorProfile})
	}
	if p.SelinuxLabel != "" {
		b.add(step.Step{Op: step.Label, Path: "attr/exec", Source: p.SelinuxLabel})
	}
}

func (b *builder) timeOffsets() {
	ns, ok := b.namespace(specs.TimeNamespace)
	if !ok || ns.Path != "" || b.exec {
		return
	}
	var lines strings.Builder
	for _, clock := range slices.Sorted(maps.Keys(b.spec.Linux.TimeOffsets)) {
		o := b.spec.Linux.TimeOffsets[clock]
		fmt.Fprintf(&lines, "%s %d %d\n", clock, o.Secs, o.Nanosecs)
	}
	b.add(step.Step{Op: step.TimeOffsets, Source: lines.String()})
}

// resources are the rlimits by their OCI name.
var resources = map[string]int{
	"RLIMIT_CPU": 0, "RLIMIT_FSIZE": 1, "RLIMIT_DATA": 2, "RLIMIT_STACK": 3, "RLIMIT_CORE": 4, "RLIMIT_RSS": 5,
	"RLIMIT_NPROC": 6, "RLIMIT_NOFILE": 7, "RLIMIT_MEMLOCK": 8, "RLIMIT_AS": 9, "RLIMIT_LOCKS": 10,
	"RLIMIT_SIGPENDING": 11, "RLIMIT_MSGQUEUE": 12, "RLIMIT_NICE": 13, "RLIMIT_RTPRIO": 14, "RLIMIT_RTTIME": 15,
}

// limits takes the spec's limits, cut to what the runtime itself may give.
func (b *builder) limits() {
	for _, l := range b.spec.Process.Rlimits {
		resource := resources[l.Type]
		limit := Limit{resource, l.Soft, l.Hard}
		if most, known := b.facts.HardLimits[resource]; known && !b.facts.RaiseLimits && l.Hard > most {
			limit.Soft, limit.Hard = min(l.Soft, most), most
			b.warn(l.Type + " is limited to " + strconv.FormatUint(most, 10) + ", the runtime's own hard limit: it lacks CAP_SYS_RESOURCE")
		}
		b.Limits = append(b.Limits, limit)
	}
}

var schedulers = map[specs.LinuxSchedulerPolicy]uint64{
	specs.SchedOther: 0, specs.SchedFIFO: 1, specs.SchedRR: 2, specs.SchedBatch: 3, specs.SchedISO: 4,
	specs.SchedIdle: 5, specs.SchedDeadline: 6,
}

var schedulerFlags = map[specs.LinuxSchedulerFlag]uint64{
	specs.SchedFlagResetOnFork: 1, specs.SchedFlagReclaim: 2, specs.SchedFlagDLOverrun: 4, specs.SchedFlagKeepPolicy: 8,
	specs.SchedFlagKeepParams: 16, specs.SchedFlagUtilClampMin: 32, specs.SchedFlagUtilClampMax: 64,
}

var ioClasses = map[specs.IOPriorityClass]uint64{
	specs.IOPRIO_CLASS_RT: 1, specs.IOPRIO_CLASS_BE: 2, specs.IOPRIO_CLASS_IDLE: 3,
}

// scheduling plans policy, I/O priority, CPU affinity and personality.
func (b *builder) scheduling() error {
	p := b.spec.Process
	if s := p.Scheduler; s != nil {
		policy, ok := schedulers[s.Policy]
		if !ok {
			return errdefs.Invalid("unknown scheduler policy %q", s.Policy)
		}
		var flags uint64
		for _, f := range s.Flags {
			flags |= schedulerFlags[f]
		}
		b.add(step.Step{Op: step.Scheduler, Words: []uint64{
			policy, flags, uint64(uint32(s.Nice)), uint64(uint32(s.Priority)), s.Runtime, s.Deadline, s.Period,
		}})
	}
	if io := p.IOPriority; io != nil {
		b.add(step.Step{Op: step.IOPriority, Words: []uint64{ioClasses[io.Class]<<13 | uint64(io.Priority)}})
	}
	if persona := b.spec.Linux.Personality; persona != nil {
		domain := map[specs.LinuxPersonalityDomain]uint64{specs.PerLinux: 0, specs.PerLinux32: 8}[persona.Domain]
		b.add(step.Step{Op: step.Personality, Words: []uint64{domain}})
	}
	return nil
}

// sets are the five capability sets.
type sets struct{ bounding, effective, permitted, inheritable, ambient uint64 }

// capabilities cuts the spec's sets to what the runtime has and what the kernel accepts together:
// effective within permitted, ambient within permitted and inheritable. A new user namespace has all.
func (b *builder) capabilities() (sets, error) {
	c := b.spec.Process.Capabilities
	if c == nil {
		return sets{}, nil
	}
	have := b.facts.Bounding
	if b.hasUserNS() {
		have = ^uint64(0)
	}
	var s sets
	for _, one := range []struct {
		into  *uint64
		names []string
	}{
		{&s.bounding, c.Bounding},
		{&s.effective, c.Effective},
		{&s.permitted, c.Permitted},
		{&s.inheritable, c.Inheritable},
		{&s.ambient, c.Ambient},
	} {
		mask, unknown := capabilityMask(one.names)
		for _, name := range unknown {
			b.warn("unknown capability " + name + " is ignored")
		}
		*one.into = mask & have
		if lost := mask &^ have; lost != 0 && one.into == &s.bounding {
			b.warn("capabilities " + capabilityNames(lost) + " are left out: the runtime lacks them")
		}
	}
	s.effective &= s.permitted
	s.ambient &= s.permitted & s.inheritable
	return s, nil
}

func capabilityMask(names []string) (mask uint64, unknown []string) {
	for _, name := range names {
		number, ok := cap.Number(name)
		if !ok {
			unknown = append(unknown, name)
			continue
		}
		mask |= 1 << number
	}
	return mask, unknown
}

func capabilityNames(mask uint64) string {
	var names []string
	for number := range 64 {
		if mask&(1<<number) != 0 {
			names = append(names, cap.Name(number))
		}
	}
	return strings.Join(names, " ")
}
