package cgroup

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/oci/errdefs"
)

// Set applies the resources that are present in r and leaves the others as they are. Limits that this
// kernel cannot set are an errdefs.ErrUnsupported, except relative weights and hints (blkio weight,
// swappiness, kernel memory), which are logged and skipped. On v1 the group joins the hierarchies of the
// controllers that r needs and that nothing needed before.
func (g *Group) Set(r *specs.LinuxResources) error {
	if err := g.tellSystemd(r); err != nil {
		return err
	}
	if r != nil && !g.pureV2() {
		if err := g.join(r); err != nil {
			return err
		}
	}
	return g.set(r)
}

// SetDevices writes the device rules of a group whose Create was given none. Until then the group has those
// of the one above it. systemd is told nothing: it knows no group that Create made itself.
func (g *Group) SetDevices(rules []specs.LinuxDeviceCgroup) error {
	return g.set(&specs.LinuxResources{Devices: rules})
}

func (g *Group) set(r *specs.LinuxResources) error {
	if r == nil {
		return nil
	}
	if g.pureV2() {
		return g.setV2(r)
	}
	return g.setV1(r)
}

// pureV2 reports whether limits live in the cgroup2 hierarchy.
func (g *Group) pureV2() bool { return len(g.dirs) == 1 && g.dirs[0].h.V2 }

// setting is one value for one control file, in the order in which the kernel wants them.
type setting struct {
	controller string
	file       string
	value      string
	optional   bool // skip, with a warning, where the file does not exist
}

// apply writes settings into the directory; what names it in errors.
func (g *Group) apply(d dir, s setting) error {
	err := d.write(s.file, s.value)
	switch {
	case absent(err) && s.optional:
		g.log.Warn("cgroup setting is not supported by this kernel and was skipped", "file", s.file, "value", s.value)
		return nil
	case absent(err):
		return g.unsupported(s)
	case err != nil:
		return fmt.Errorf("set %s: %w", s.file, err)
	}
	return nil
}

func (g *Group) unsupported(s setting) error {
	return errdefs.New(errdefs.ErrUnsupported, "this host cannot set %s: the %s cgroup controller is not available", s.file, s.controller)
}

// unifiedSettings checks the free-form map of cgroup2 files.
func unifiedSettings(m map[string]string) ([]setting, error) {
	var out []setting
	for file, value := range m {
		controller, _, ok := strings.Cut(file, ".")
		if !ok || strings.Contains(file, "/") {
			return nil, errdefs.Invalid("invalid unified cgroup resource %q", file)
		}
		out = append(out, setting{controller, file, value, false})
	}
	return out, nil
}

func hasErrno(err error, no syscall.Errno) bool { return errors.Is(err, no) }

// limit writes a memory or pids limit: negative means none.
func limit(n int64, none string) string {
	if n < 0 {
		return none
	}
	return itoa(n)
}
