package plan

import (
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/ociruntime/step"
)

// root attaches the root file system where nothing that happens to it reaches the host.
func (b *builder) root() error {
	flags := uint64(recursive | slave)
	if p := b.spec.Linux.RootfsPropagation; strings.HasSuffix(p, "private") || p == "" {
		flags = recursive | private
	}
	b.Steps = append([]step.Step{{Op: step.Propagation, Words: []uint64{flags}}}, b.Steps...)
	b.add(step.Step{Op: step.AttachRoot, File: step.FileRoot, Path: b.facts.AttachAt})
	return nil
}

// mounts plans the spec's mounts in their order.
func (b *builder) mounts() error {
	for _, m := range b.spec.Mounts {
		target := path.Join("/", m.Destination)
		o := parseOptions(m.Options)
		switch {
		case o.bind || m.Type == "bind":
			b.bind(m, target, o)
		case m.Type == "cgroup" || m.Type == "cgroup2":
			b.cgroups(target, o)
		default:
			b.newMount(m, target, o)
		}
	}
	return nil
}

// bind has the runtime copy the mount: it may see the source when init no longer can, and it alone may
// idmap it.
func (b *builder) bind(m specs.Mount, target string, o options) {
	propagation := o.propagation
	if o.propagateAll {
		propagation |= recursive
	}
	b.bindFile(target, Source{
		Path: m.Source, Recursive: o.recursive, Propagation: propagation,
		Set: o.set, Clear: o.clear, SetAll: o.setAll, ClearAll: o.clearAll,
		IDMap: o.idmap || len(m.UIDMappings) > 0, IDMapAll: o.idmapAll, IDMapIfPossible: o.idmapIfPossible,
		UIDs: m.UIDMappings, GIDs: m.GIDMappings,
	})
}

func (b *builder) bindFile(target string, s Source) {
	if s.Propagation == 0 {
		s.Propagation = private | recursive
	}
	b.add(step.Step{Op: step.MountFile, Source: s.Path, Path: target, File: b.source(s)})
}

// newMount plans a new file system, or a copy of the host's where the kernel would not let this user
// namespace mount one.
func (b *builder) newMount(m specs.Mount, target string, o options) {
	shows := map[string]specs.LinuxNamespaceType{
		"proc": specs.PIDNamespace, "sysfs": specs.NetworkNamespace, "mqueue": specs.IPCNamespace,
	}
	kind, special := shows[m.Type]
	if !special || b.owns(kind) {
		b.add(o.mountNew(m.Type, m.Source, target))
		return
	}
	host := map[string]string{"proc": "/proc", "sysfs": "/sys", "mqueue": "/dev/mqueue"}[m.Type]
	s := Source{Path: host, Recursive: true, Set: o.set, Clear: o.clear}
	if m.Type == "sysfs" {
		s.SetAll = readOnly
	}
	b.bindFile(target, s)
}

// cgroups plans what a mount of type cgroup means: the container's part of every hierarchy it is in.
// With a cgroup namespace that is what a new mount shows; without one its directories are bound.
func (b *builder) cgroups(target string, o options) {
	_, own := b.namespace(specs.CgroupNamespace)
	if h := b.facts.Hierarchies; len(h) == 1 && h[0].V2 {
		b.cgroup(target, h[0], o, own)
		return
	}
	b.add(step.Step{
		Op: step.MountNew, Type: "tmpfs", Source: "tmpfs", Path: target, List: []string{"mode=755"},
		Words: []uint64{o.set &^ readOnly, 0, o.propagation},
	})
	for _, h := range b.facts.Hierarchies {
		name := "unified"
		if !h.V2 {
			name = strings.TrimPrefix(strings.Join(h.Controllers, ","), "name=")
		}
		b.cgroup(target+"/"+name, h, o, own)
		if !h.V2 && len(h.Controllers) > 1 {
			for _, c := range h.Controllers {
				b.add(step.Step{Op: step.MakeLink, Path: target + "/" + c, Source: name})
			}
		}
	}
	if o.set&readOnly != 0 {
		b.add(step.Step{Op: step.RemountReadOnly, Path: target})
	}
}

func (b *builder) cgroup(target string, h Hierarchy, o options, own bool) {
	if !own {
		b.bindFile(target, Source{Path: h.Dir, Set: o.set, Clear: o.clear})
		return
	}
	mount := options{set: o.set, propagation: o.propagation}
	if h.V2 {
		b.add(mount.mountNew("cgroup2", "cgroup", target))
		return
	}
	mount.fs = h.Controllers
	if strings.HasPrefix(h.Controllers[0], "name=") {
		mount.fs = append([]string{"none"}, h.Controllers...)
	}
	b.add(mount.mountNew("cgroup", "cgroup", target))
}
