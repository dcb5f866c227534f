// Package plan decides how a container is made: a pure function from an OCI runtime spec and what is
// known of the host to namespaces, mount sources and an ordered list of steps for davit-init. It does
// no I/O, so that every decision can be read, and tested without privileges.
package plan

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/oci/errdefs"
	"davit/ociruntime/step"
)

// Facts are what a plan depends on beside the spec.
type Facts struct {
	Bounding    uint64         // the runtime's own capability bounding set, by capability number
	RaiseLimits bool           // the runtime may raise hard limits (CAP_SYS_RESOURCE)
	HardLimits  map[int]uint64 // the runtime's own hard limits by resource number
	Hierarchies []Hierarchy    // cgroup hierarchies that the container is in
	Foreign     uint64         // kinds of namespace that are not owned by the container's user namespace
	Filter      []byte         // the compiled seccomp filter: struct sock_filter array; nil for none
	FilterFlags uint64         // seccomp(2) flags to load it with
	Notify      bool           // the filter asks a listener
	AttachAt    string         // host directory to attach the root file system at
	NoPivot     bool           // change the root by chroot
	ExtraFiles  int            // descriptors from 3 that the program gets
}

// Hierarchy is one cgroup hierarchy with the container's place in it.
type Hierarchy struct {
	V2          bool
	Controllers []string // as in mount options: "cpu", "cpuacct" or "name=systemd"
	Dir         string   // the container's directory in it, on the host
}

// Plan is how a container, or one more process in it, is made.
type Plan struct {
	New        uint64 // kinds of new namespaces, as clone(2) takes them
	Join       []Namespace
	UIDs, GIDs []specs.LinuxIDMapping // of the new user namespace
	Sources    []Source               // mounts that the runtime opens; a step's File counts from step.FirstSource
	Steps      []step.Step
	Limits     []Limit // for prlimit(2)
	OOMScore   *int    // for /proc/PID/oom_score_adj
	Warnings   []string
	NeedsRoot  bool // init must become root of its user namespace before it starts
}

// Namespace is an existing namespace to be joined.
type Namespace struct {
	Kind int // as setns(2) takes it
	Path string
}

// Source is a mount copied from the host's tree before it is attached in the container's.
type Source struct {
	Path             string
	Recursive        bool
	Set, Clear       uint64                 // attributes of the mount itself
	SetAll, ClearAll uint64                 // of it and all below it
	Propagation      uint64                 // MS_PRIVATE when 0; may hold MS_REC
	IDMap            bool                   // map ids by the container's user namespace
	IDMapAll         bool                   // also the mounts below
	IDMapIfPossible  bool                   // what cannot be mapped is bound unmapped
	UIDs, GIDs       []specs.LinuxIDMapping // another mapping than the container's
}

// Limit is a resource limit that the runtime may set.
type Limit struct {
	Resource   int
	Soft, Hard uint64
}

// builder collects a plan.
type builder struct {
	Plan
	spec  *specs.Spec
	facts Facts
	exec  bool // one more process rather than a container
}

// Outline checks a spec and returns the part of its plan that clone(2) needs: New, UIDs, GIDs and
// NeedsRoot. The rest can be planned while the clone starts up.
func Outline(spec *specs.Spec) (*Plan, error) {
	if err := validate(spec); err != nil {
		return nil, err
	}
	b := &builder{spec: spec}
	return &b.Plan, b.namespaces()
}

// Build plans a new container. It fails with ErrInvalid when the spec is wrong or contradicts itself.
func Build(spec *specs.Spec, facts Facts) (*Plan, error) {
	if err := validate(spec); err != nil {
		return nil, err
	}
	b := &builder{spec: spec, facts: facts}
	for _, part := range []func() error{
		b.namespaces, b.root, b.mounts, b.devices, b.kernelSettings, b.hideAndEnter,
		b.identity, b.program,
	} {
		if err := part(); err != nil {
			return nil, err
		}
	}
	return &b.Plan, nil
}

// BuildExec plans one more process in the container that spec made.
func BuildExec(spec *specs.Spec, process *specs.Process, facts Facts) (*Plan, error) {
	if err := validateProcess(process); err != nil {
		return nil, err
	}
	merged := *spec
	merged.Process = process
	merged.Hooks = nil
	b := &builder{spec: &merged, facts: facts, exec: true}
	for _, ns := range spec.Linux.Namespaces {
		b.NeedsRoot = b.NeedsRoot || ns.Type == specs.UserNamespace
	}
	if process.Terminal {
		b.add(b.console(""))
	}
	if err := b.identity(); err != nil {
		return nil, err
	}
	b.execProgram()
	return &b.Plan, nil
}

func (b *builder) add(steps ...step.Step) { b.Steps = append(b.Steps, steps...) }

func (b *builder) warn(text string) { b.Warnings = append(b.Warnings, text) }

// source adds a mount source and returns its file index.
func (b *builder) source(s Source) int {
	b.Sources = append(b.Sources, s)
	return step.FirstSource + len(b.Sources) - 1
}

func validate(spec *specs.Spec) error {
	switch {
	case spec == nil:
		return errdefs.Invalid("no spec given")
	case spec.Process == nil:
		return errdefs.Invalid("process property must not be empty")
	case spec.Root == nil:
		return errdefs.Invalid("root property must not be empty")
	case spec.Linux == nil:
		return errdefs.Invalid("linux property must not be empty")
	}
	for _, check := range []func(*specs.Spec) error{validateNamespaces, validateMounts, validatePaths} {
		if err := check(spec); err != nil {
			return err
		}
	}
	return validateProcess(spec.Process)
}
