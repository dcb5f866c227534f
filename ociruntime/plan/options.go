package plan

import (
	"slices"

	"davit/ociruntime/step"
)

// Mount attributes of mount_setattr(2).
const (
	readOnly    = 0x1
	noSuid      = 0x2
	noDev       = 0x4
	noExec      = 0x8
	atimeMask   = 0x70
	noAtime     = 0x10
	strictAtime = 0x20
	noDirAtime  = 0x80
	noSymFollow = 0x200000
)

// MS_ flags of mount(2): recursion and propagation.
const (
	recursive  = 0x4000
	unbindable = 0x20000
	private    = 0x40000
	slave      = 0x80000
	shared     = 0x100000
)

// options are a mount's options, sorted by what they are for.
type options struct {
	bind, recursive  bool
	set, clear       uint64
	setAll, clearAll uint64
	propagation      uint64
	propagateAll     bool
	copyUp           bool
	idmap, idmapAll  bool
	idmapIfPossible  bool
	fs               []string // for the file system itself
}

type change struct{ set, clear uint64 }

var attributes = map[string]change{
	"ro": {readOnly, 0}, "rw": {0, readOnly}, "nosuid": {noSuid, 0}, "suid": {0, noSuid},
	"nodev": {noDev, 0}, "dev": {0, noDev}, "noexec": {noExec, 0}, "exec": {0, noExec},
	"noatime": {noAtime, atimeMask}, "atime": {0, atimeMask}, "relatime": {0, atimeMask}, "norelatime": {0, atimeMask},
	"strictatime": {strictAtime, atimeMask}, "nostrictatime": {0, atimeMask},
	"nodiratime": {noDirAtime, 0}, "diratime": {0, noDirAtime},
	"nosymfollow": {noSymFollow, 0}, "symfollow": {0, noSymFollow},
}

var propagations = map[string]uint64{
	"private": private, "rprivate": private | recursive, "slave": slave, "rslave": slave | recursive,
	"shared": shared, "rshared": shared | recursive, "unbindable": unbindable, "runbindable": unbindable | recursive,
}

func parseOptions(list []string) options {
	var o options
	for _, name := range list {
		o.parse(name)
	}
	return o
}

func (o *options) parse(name string) {
	if a, ok := attributes[name]; ok {
		o.set, o.clear = o.set&^a.clear|a.set, o.clear&^a.set|a.clear
		return
	}
	if a, ok := attributes[trimR(name)]; ok && name[0] == 'r' {
		o.setAll, o.clearAll = o.setAll&^a.clear|a.set, o.clearAll&^a.set|a.clear
		return
	}
	if p, ok := propagations[name]; ok {
		o.propagation, o.propagateAll = p&^recursive, p&recursive != 0
		return
	}
	switch name {
	case "", "defaults", "remount", "async", "nomand", "mand", "noiversion", "iversion", "silent", "loud", "copy", "nocopy":
	case "bind":
		o.bind = true
	case "rbind":
		o.bind, o.recursive = true, true
	case "idmap":
		o.idmap = true
	case "ridmap":
		o.idmap, o.idmapAll = true, true
	case OptionalIDMap:
		o.idmapIfPossible = true
	case "tmpcopyup":
		o.copyUp = true
	default:
		o.fs = append(o.fs, name)
	}
}

// OptionalIDMap is davit's own mount option beside idmap and ridmap: a source that its file system cannot
// map is bound as it is. Options that begin with "x-" are user space's (mount(8)).
const OptionalIDMap = "x-davit.idmap-if-possible"

func trimR(name string) string {
	if name == "" {
		return ""
	}
	return name[1:]
}

// mountNew is the step for a new file system with these options.
func (o options) mountNew(fsType, source, target string) step.Step {
	op := step.MountNew
	if o.copyUp && fsType == "tmpfs" {
		op = step.CopyUp
	}
	return step.Step{
		Op: op, Type: fsType, Source: source, Path: target, List: o.fs,
		Words: []uint64{o.set | o.setAll, o.clear, o.propagation},
	}
}

// MountOptions returns the mount options that are understood here rather than by file systems, sorted.
func MountOptions() []string {
	list := []string{"bind", "rbind", "defaults", "idmap", "ridmap", "remount", "tmpcopyup"}
	for name := range attributes {
		list = append(list, name, "r"+name)
	}
	for name := range propagations {
		list = append(list, name)
	}
	slices.Sort(list)
	return slices.Compact(list)
}
