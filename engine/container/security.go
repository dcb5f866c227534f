package container

import (
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/oci/errdefs"
)

// Security is what --security-opt asks for.
type Security struct {
	NoNewPrivileges bool
	Unconfined      bool   // no seccomp filter
	SeccompProfile  string // Docker's JSON form; empty: the default profile
	AppArmor        string
	SystemPaths     bool // nothing masked, nothing read-only
	WritableCgroups bool
}

// ParseSecurity reads the options "name=value" (and Docker's older "name:value").
func ParseSecurity(options []string) (Security, error) {
	var s Security
	for _, option := range options {
		if err := s.set(option); err != nil {
			return Security{}, err
		}
	}
	return s, nil
}

func (s *Security) set(option string) error {
	name, value, given := strings.Cut(option, "=")
	if !given {
		name, value, given = strings.Cut(option, ":")
	}
	switch name {
	case "no-new-privileges":
		return parseFlag(option, value, given, &s.NoNewPrivileges)
	case "writable-cgroups":
		return parseFlag(option, value, given, &s.WritableCgroups)
	}
	if !given {
		return errdefs.Invalid("invalid --security-opt: %q", option)
	}
	switch name {
	case "label", "credentialspec":
	case "apparmor":
		s.AppArmor = value
	case "systempaths":
		if value != "unconfined" {
			return errdefs.Invalid("invalid --security-opt: %q", option)
		}
		s.SystemPaths = true
	case "seccomp":
		s.Unconfined, s.SeccompProfile = value == "unconfined", ""
		if value != "unconfined" && value != "builtin" {
			s.SeccompProfile = value
		}
	default:
		return errdefs.Invalid("invalid --security-opt 2: %q", option)
	}
	return nil
}

func parseFlag(option, value string, given bool, into *bool) error {
	*into = true
	if !given {
		return nil
	}
	v, err := strconv.ParseBool(value)
	if err != nil {
		return errdefs.Invalid("invalid --security-opt: %q", option)
	}
	*into = v
	return nil
}

// MaskedPaths are what a container does not see of /proc and /sys, as in Docker.
func MaskedPaths() []string {
	return []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", "/sys/firmware",
	}
}

// ReadonlyPaths are what a container may only read of /proc, as in Docker.
func ReadonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

// confine sets the seccomp filter and the paths that are hidden.
func (b builder) confine(s *specs.Spec) error {
	h := b.Record.HostConfig
	if h.Privileged {
		return nil
	}
	s.Linux.Seccomp = b.Seccomp
	if b.security.SystemPaths {
		return nil
	}
	s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = h.MaskedPaths, h.ReadonlyPaths
	if h.MaskedPaths == nil {
		s.Linux.MaskedPaths = MaskedPaths()
	}
	if h.ReadonlyPaths == nil {
		s.Linux.ReadonlyPaths = ReadonlyPaths()
	}
	if has := b.Facts.HasPath; has != nil {
		missing := func(p string) bool { return !has(p) }
		s.Linux.MaskedPaths = slices.DeleteFunc(slices.Clone(s.Linux.MaskedPaths), missing)
		s.Linux.ReadonlyPaths = slices.DeleteFunc(slices.Clone(s.Linux.ReadonlyPaths), missing)
	}
	return nil
}
