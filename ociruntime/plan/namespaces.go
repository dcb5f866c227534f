package plan

import (
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/ociruntime/step"
)

const newTime = 0x80 // CLONE_NEWTIME, which package syscall lacks

var kinds = map[specs.LinuxNamespaceType]int{
	specs.PIDNamespace:     syscall.CLONE_NEWPID,
	specs.NetworkNamespace: syscall.CLONE_NEWNET,
	specs.MountNamespace:   syscall.CLONE_NEWNS,
	specs.IPCNamespace:     syscall.CLONE_NEWIPC,
	specs.UTSNamespace:     syscall.CLONE_NEWUTS,
	specs.UserNamespace:    syscall.CLONE_NEWUSER,
	specs.CgroupNamespace:  syscall.CLONE_NEWCGROUP,
	specs.TimeNamespace:    newTime,
}

// namespaces sorts what is cloned from what is joined. A user namespace is joined last: the others may
// belong to the host, which only its root may enter. New cgroup and time namespaces are init's own
// matter: a cgroup namespace is rooted where the process already is, and a time namespace takes its
// offsets before anyone is in it.
func (b *builder) namespaces() error {
	var user []Namespace
	for _, ns := range b.spec.Linux.Namespaces {
		kind := kinds[ns.Type]
		switch {
		case ns.Path != "" && ns.Type == specs.UserNamespace:
			user = append(user, Namespace{kind, ns.Path})
		case ns.Path != "":
			b.Join = append(b.Join, Namespace{kind, ns.Path})
		case ns.Type == specs.CgroupNamespace:
			b.add(step.Step{Op: step.NewCgroupNS})
		case ns.Type != specs.TimeNamespace:
			b.New |= uint64(kind)
		}
	}
	b.Join = append(b.Join, user...)
	b.NeedsRoot = b.hasUserNS()
	if b.New&syscall.CLONE_NEWUSER != 0 {
		b.UIDs, b.GIDs = b.spec.Linux.UIDMappings, b.spec.Linux.GIDMappings
	}
	return nil
}

// namespace returns the spec's namespace of a type.
func (b *builder) namespace(kind specs.LinuxNamespaceType) (specs.LinuxNamespace, bool) {
	for _, ns := range b.spec.Linux.Namespaces {
		if ns.Type == kind {
			return ns, true
		}
	}
	return specs.LinuxNamespace{}, false
}

func (b *builder) hasUserNS() bool {
	_, ok := b.namespace(specs.UserNamespace)
	return ok
}

// owns reports whether the container's user namespace owns its namespace of a kind, which decides
// whether init may mount the file system that shows it.
func (b *builder) owns(kind specs.LinuxNamespaceType) bool {
	if !b.hasUserNS() {
		return true
	}
	ns, ok := b.namespace(kind)
	if !ok {
		return false
	}
	return ns.Path == "" || b.facts.Foreign&uint64(kinds[kind]) == 0
}

// KindOf returns a namespace type as setns(2) takes it.
func KindOf(t specs.LinuxNamespaceType) (kind int, ok bool) {
	kind, ok = kinds[t]
	return kind, ok
}
