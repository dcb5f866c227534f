// Package probe finds out, once per process, what the running kernel can do. A version number says what
// a kernel could have; a probe does the thing, since distributions leave features out and containers
// forbid them. HostFacts is the result as a plain value, for code that decides without touching the host.
package probe

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"

	"davit/kernel/cap"
	"davit/kernel/cgroup"
)

// Version is a kernel's release, as far as features go by it.
type Version struct{ Major, Minor int }

// AtLeast reports whether v is o or newer.
func (v Version) AtLeast(o Version) bool {
	return v.Major > o.Major || v.Major == o.Major && v.Minor >= o.Minor
}

func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// HostFacts is what planners need to know of the kernel.
type HostFacts struct {
	Kernel       Version
	Release      string // as uname -r prints it
	Cgroups      cgroup.Mode
	Capabilities cap.Set // this process's bounding set
	Features     map[Feature]Result
}

// Has reports whether the feature was found.
func (f HostFacts) Has(feature Feature) bool { return f.Features[feature].Err == nil }

// Feature names something that a kernel has or has not.
type Feature string

// The features that davit has a fast path or a fallback for.
const (
	UserNamespaces Feature = "user namespaces"
	IDMappedMounts Feature = "idmapped mounts"
	OverlayAppend  Feature = "overlayfs layers one by one"
	OverlayByFD    Feature = "overlayfs layers by descriptor"
	PidfdExit      Feature = "exit status of other processes"
	CgroupKill     Feature = "cgroup.kill"
	Seccomp        Feature = "seccomp filters"
	Nftables       Feature = "nftables"
	AppArmor       Feature = "AppArmor"
	SELinux        Feature = "SELinux"
)

// Result is a probe's answer.
type Result struct {
	Minimum Version // the first kernel that can have it
	Err     error   // nil: it works here; else why not
}

// probes are the features with the first kernel that has each.
var probes = []struct {
	feature Feature
	minimum Version
	try     func(*scratch) error
}{
	{UserNamespaces, Version{3, 8}, userNamespaces},
	{IDMappedMounts, Version{5, 12}, idmappedMounts},
	{OverlayAppend, Version{6, 7}, overlayAppend},
	{OverlayByFD, Version{6, 13}, overlayByFD},
	{PidfdExit, Version{6, 15}, pidfdExit},
	{CgroupKill, Version{5, 14}, cgroupKill},
	{Seccomp, Version{3, 17}, seccompFilters},
	{Nftables, Version{3, 13}, nftables},
	{AppArmor, Version{2, 6}, appArmor},
	{SELinux, Version{2, 6}, seLinux},
}

// Host returns the facts of this host, as far as its temporary directory goes for what depends on a file
// system. The first call probes, about 5 ms; the result is kept.
var Host = sync.OnceValues(func() (HostFacts, error) { return In(os.TempDir()) })

// In returns the facts of this host with the file system of the directory at path, in which it writes
// nothing (the disk may be full): ext4 can be idmapped from 5.12, but tmpfs only from 6.3.
func In(path string) (facts HostFacts, err error) {
	facts = HostFacts{Features: make(map[Feature]Result, len(probes))}
	if facts.Release, err = release(); err != nil {
		return HostFacts{}, err
	}
	if facts.Kernel, err = parseRelease(facts.Release); err != nil {
		return HostFacts{}, err
	}
	layout, err := cgroup.Host()
	if err != nil {
		return HostFacts{}, err
	}
	facts.Cgroups = layout.Mode
	if facts.Capabilities, err = cap.Bounding(); err != nil {
		return HostFacts{}, err
	}
	if _, err := os.Stat(path); err != nil {
		return HostFacts{}, fmt.Errorf("probe the kernel: %w", err)
	}
	for _, p := range probes {
		facts.Features[p.feature] = Result{p.minimum, p.try(&scratch{path, layout})}
	}
	return facts, nil
}

// scratch is what probes work with.
type scratch struct {
	dir    string // on the file system that is asked about; not to be written to
	layout *cgroup.Layout
}

func release() (string, error) {
	var u syscall.Utsname
	if err := syscall.Uname(&u); err != nil {
		return "", fmt.Errorf("read kernel version: %w", err)
	}
	var b strings.Builder
	for _, c := range u.Release {
		if c == 0 {
			break
		}
		b.WriteByte(byte(c))
	}
	return b.String(), nil
}

func parseRelease(s string) (Version, error) {
	var v Version
	if _, err := fmt.Sscanf(s, "%d.%d", &v.Major, &v.Minor); err != nil {
		return v, fmt.Errorf("read kernel version %q: %w", s, err)
	}
	return v, nil
}
