// Package cap is the vocabulary of Linux capabilities: names, numbers, sets, Docker's default set and the
// algebra of --cap-add and --cap-drop. capabilities(7).
package cap

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"davit/oci/errdefs"
)

// All stands for every capability in --cap-add and --cap-drop.
const All = "ALL"

// Set is a set of capabilities by number, bit n for capability n, as /proc/pid/status shows them.
type Set uint64

// names are the capabilities in the order of their numbers, include/uapi/linux/capability.h.
var names = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
	"CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
	"CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
	"CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
	"CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
	"CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// Default returns the names of Docker's default set, in Docker's order.
func Default() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
		"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
}

// Number returns a capability's number.
func Number(name string) (int, bool) {
	i := slices.Index(names[:], name)
	return i, i >= 0
}

// Name returns the name of a capability number, "CAP_n" for one that is newer than this table.
func Name(n int) string {
	if n >= 0 && n < len(names) {
		return names[n]
	}
	return "CAP_" + strconv.Itoa(n)
}

// SetOf returns the set of the names; names that this table does not have are an errdefs.ErrInvalid.
func SetOf(list []string) (Set, error) {
	var s Set
	for _, name := range list {
		n, ok := Number(name)
		if !ok {
			return 0, unknown(name)
		}
		s |= 1 << n
	}
	return s, nil
}

// Has reports whether the set holds a capability number.
func (s Set) Has(n int) bool { return n >= 0 && n < 64 && s&(1<<n) != 0 }

// Names returns the names in the order of their numbers.
func (s Set) Names() []string {
	var out []string
	for n := range 64 {
		if s.Has(n) {
			out = append(out, Name(n))
		}
	}
	return out
}

// Bounding returns the bounding set of this process: what it and its children can ever have.
func Bounding() (Set, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, fmt.Errorf("read capabilities: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "CapBnd:"); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			if err != nil {
				return 0, fmt.Errorf("read capabilities: %w", err)
			}
			return Set(n), nil
		}
	}
	return 0, errdefs.New(errdefs.ErrUnsupported, "read capabilities: /proc/self/status has no CapBnd")
}

// Within returns the names that are in the set, in their order: what of a list this host can give.
func Within(list []string, s Set) []string {
	return slices.DeleteFunc(slices.Clone(list), func(name string) bool {
		n, ok := Number(name)
		return !ok || !s.Has(n)
	})
}

// Normalize turns names as people write them (net_admin, CAP_NET_ADMIN, all) into the table's. An unknown
// one is an errdefs.ErrInvalid with Docker's text.
func Normalize(list []string) ([]string, error) {
	var out []string
	for _, name := range list {
		upper := strings.ToUpper(name)
		if upper != All && upper != "CAP_"+All {
			if !strings.HasPrefix(upper, "CAP_") {
				upper = "CAP_" + upper
			}
			if _, ok := Number(upper); !ok {
				return nil, unknown(name)
			}
		} else {
			upper = All
		}
		out = append(out, upper)
	}
	return out, nil
}

func unknown(name string) error { return errdefs.Invalid("unknown capability: %q", name) }

// Tweak returns base with the user's --cap-add and --cap-drop applied as Docker does: adding ALL gives
// every capability of available but those dropped; dropping ALL leaves those added; otherwise base loses
// what is dropped and gains what is added.
func Tweak(base, add, drop []string, available Set) ([]string, error) {
	adds, err := Normalize(add)
	if err != nil {
		return nil, fmt.Errorf("invalid CapAdd: %w", err)
	}
	drops, err := Normalize(drop)
	if err != nil {
		return nil, fmt.Errorf("invalid CapDrop: %w", err)
	}
	named := func(name string) bool { return name != All }
	switch {
	case slices.Contains(adds, All):
		return keep(available.Names(), func(n string) bool { return !slices.Contains(drops, n) }), nil
	case slices.Contains(drops, All):
		return unique(keep(adds, named)), nil
	}
	kept := keep(base, func(n string) bool { return !slices.Contains(drops, n) })
	return unique(append(kept, adds...)), nil
}

func keep(list []string, want func(string) bool) []string {
	return slices.DeleteFunc(slices.Clone(list), func(n string) bool { return !want(n) })
}

// unique drops repetitions, keeping the first of each.
func unique(list []string) []string {
	var out []string
	for _, n := range list {
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// Names returns all names, in the order of their numbers.
func Names() []string { return slices.Clone(names[:]) }
