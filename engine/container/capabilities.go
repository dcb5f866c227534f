package container

import (
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/oci/errdefs"
)

// defaultCapabilities are what a container's root has unless it says otherwise: Docker's set.
func defaultCapabilities() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
		"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL",
		"CAP_AUDIT_WRITE",
	}
}

// Capabilities returns the capabilities of a container: the default ones, without drop's and with
// add's; ALL stands for every one that known lists. A privileged container has all of known. What the
// engine itself does not have cannot be given and is left out; a name that does not exist is an error.
func Capabilities(known, add, drop []string, privileged bool) ([]string, error) {
	adds, addAll, err := normalize("CapAdd", add)
	if err != nil {
		return nil, err
	}
	drops, dropAll, err := normalize("CapDrop", drop)
	if err != nil {
		return nil, err
	}
	var caps []string
	switch {
	case privileged:
		return slices.Clone(known), nil
	case addAll:
		caps = slices.Clone(known)
	case dropAll:
		caps = adds
	default:
		caps = append(defaultCapabilities(), adds...)
	}
	slices.Sort(caps)
	caps = slices.Compact(caps)
	return slices.DeleteFunc(caps, func(c string) bool {
		return slices.Contains(drops, c) || !slices.Contains(known, c)
	}), nil
}

func normalize(field string, names []string) (caps []string, all bool, err error) {
	for _, name := range names {
		c := strings.ToUpper(name)
		if c == "ALL" || c == "CAP_ALL" {
			all = true
			continue
		}
		if !strings.HasPrefix(c, "CAP_") {
			c = "CAP_" + c
		}
		if !slices.Contains(allCapabilities(), c) {
			return nil, false, errdefs.Invalid("invalid %s: unknown capability: %q", field, c)
		}
		caps = append(caps, c)
	}
	return caps, all, nil
}

// allCapabilities are the names of capabilities(7), Linux 6.18.
func allCapabilities() []string {
	return append(defaultCapabilities(),
		"CAP_AUDIT_CONTROL", "CAP_AUDIT_READ", "CAP_BLOCK_SUSPEND", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
		"CAP_DAC_READ_SEARCH", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_LEASE", "CAP_LINUX_IMMUTABLE", "CAP_MAC_ADMIN",
		"CAP_MAC_OVERRIDE", "CAP_NET_ADMIN", "CAP_NET_BROADCAST", "CAP_PERFMON", "CAP_SYSLOG", "CAP_SYS_ADMIN",
		"CAP_SYS_BOOT", "CAP_SYS_MODULE", "CAP_SYS_NICE", "CAP_SYS_PACCT", "CAP_SYS_PTRACE", "CAP_SYS_RAWIO",
		"CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_WAKE_ALARM")
}

// capabilitySets gives root all of them at once; another user can only get them back by a set-uid
// program or file capabilities, so they bound it.
func capabilitySets(caps []string, uid uint32) *specs.LinuxCapabilities {
	if uid != 0 {
		return &specs.LinuxCapabilities{Bounding: caps}
	}
	return &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
}

// ExecCapabilities are those of one more process in a container whose spec gave it own: with
// privileged, everything the engine can give.
func ExecCapabilities(own *specs.LinuxCapabilities, known []string, uid uint32, privileged bool) *specs.LinuxCapabilities {
	if privileged {
		return &specs.LinuxCapabilities{Bounding: known, Effective: known, Permitted: known}
	}
	if own == nil {
		return nil
	}
	return capabilitySets(own.Bounding, uid)
}
