package plan

import (
	"os"
	"path"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/ociruntime/step"
)

// defaultDevices are in every container.
var defaultDevices = []specs.LinuxDevice{
	{Path: "/dev/null", Type: "c", Major: 1, Minor: 3},
	{Path: "/dev/zero", Type: "c", Major: 1, Minor: 5},
	{Path: "/dev/full", Type: "c", Major: 1, Minor: 7},
	{Path: "/dev/random", Type: "c", Major: 1, Minor: 8},
	{Path: "/dev/urandom", Type: "c", Major: 1, Minor: 9},
	{Path: "/dev/tty", Type: "c", Major: 5, Minor: 0},
}

// defaultLinks are beside them.
var defaultLinks = [][2]string{
	{"/dev/fd", "/proc/self/fd"},
	{"/dev/stdin", "/proc/self/fd/0"},
	{"/dev/stdout", "/proc/self/fd/1"},
	{"/dev/stderr", "/proc/self/fd/2"},
	{"/dev/core", "/proc/kcore"},
	{"/dev/ptmx", "pts/ptmx"},
}

// devices plans the nodes and links of /dev, unless the spec binds a whole /dev from elsewhere.
func (b *builder) devices() error {
	if b.foreignDev() {
		return nil
	}
	for _, d := range b.spec.Linux.Devices {
		b.device(d)
	}
	for _, d := range defaultDevices {
		same := func(other specs.LinuxDevice) bool { return path.Clean(other.Path) == d.Path }
		if !slices.ContainsFunc(b.spec.Linux.Devices, same) {
			b.device(d)
		}
	}
	for _, l := range defaultLinks {
		b.add(step.Step{Op: step.MakeLink, Path: l[0], Source: l[1]})
	}
	return nil
}

func (b *builder) foreignDev() bool {
	return slices.ContainsFunc(b.spec.Mounts, func(m specs.Mount) bool {
		return path.Clean(m.Destination) == "/dev" && (m.Type == "bind" || parseOptions(m.Options).bind)
	})
}

// device makes a node, or in a user namespace, where that is not possible, binds the host's. A fifo
// can be made anywhere.
func (b *builder) device(d specs.LinuxDevice) {
	if b.hasUserNS() && d.Type != "p" {
		b.bindFile(path.Join("/", d.Path), Source{Path: d.Path})
		return
	}
	mode := os.FileMode(0o666)
	if d.FileMode != nil {
		mode = *d.FileMode
	}
	kind := d.Type
	if kind == "u" {
		kind = "c"
	}
	b.add(step.Step{
		Op: step.MakeDevice, Path: path.Join("/", d.Path), Type: kind,
		Words: []uint64{uint64(mode.Perm()), uint64(d.Major), uint64(d.Minor), value(d.UID), value(d.GID)},
	})
}

func value(id *uint32) uint64 {
	if id == nil {
		return 0
	}
	return uint64(*id)
}

// console makes the terminal of the process, and binds it at a path unless that is empty.
func (b *builder) console(bindAt string) step.Step {
	p := b.spec.Process
	words := []uint64{0, 0, uint64(p.User.UID)}
	if p.ConsoleSize != nil {
		words[0], words[1] = uint64(p.ConsoleSize.Height), uint64(p.ConsoleSize.Width)
	}
	return step.Step{Op: step.Console, Path: bindAt, Words: words}
}
