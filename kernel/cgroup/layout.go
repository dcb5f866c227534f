package cgroup

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/oci/errdefs"
)

// Mode is which cgroup interfaces a host mounts.
type Mode string

// The modes.
const (
	V1     Mode = "v1"
	V2     Mode = "v2"
	Hybrid Mode = "hybrid" // limits on v1, and a cgroup2 hierarchy beside it
)

// Hierarchy is one mounted tree of control groups.
type Hierarchy struct {
	V2          bool
	Controllers []string // v2: those the root offers; v1: as in the mount options, or name=systemd
	Mountpoint  string
	Own         string // path of the calling process's group below the mount
}

// Layout is the host's hierarchies.
type Layout struct {
	Mode        Mode
	Hierarchies []Hierarchy
	systemd     bool // systemd is process 1
}

// Host returns the layout that this process sees, read at first use: a process's cgroup mounts do not
// change under it.
var Host = sync.OnceValues(func() (*Layout, error) {
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read cgroup layout: %w", err)
	}
	defer mounts.Close()
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("read cgroup layout: %w", err)
	}
	l, err := parseLayout(mounts, string(own))
	if err != nil {
		return nil, err
	}
	l.systemd = exists(systemdRunning)
	for i := range l.Hierarchies {
		if h := &l.Hierarchies[i]; h.V2 {
			b, _ := os.ReadFile(filepath.Join(h.Mountpoint, "cgroup.controllers"))
			h.Controllers = strings.Fields(string(b))
		}
	}
	return l, nil
})

// parseLayout reads proc_pid_mountinfo(5) and cgroups(7)'s /proc/pid/cgroup. When a hierarchy is mounted
// several times the first mount counts.
func parseLayout(mountinfo io.Reader, own string) (*Layout, error) {
	l := &Layout{}
	sc := bufio.NewScanner(mountinfo)
	for sc.Scan() {
		h, root, ok := parseMount(sc.Text())
		if !ok || slices.ContainsFunc(l.Hierarchies, h.same) {
			continue
		}
		h.Own = h.ownPath(own, root)
		l.Hierarchies = append(l.Hierarchies, h)
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("read mountinfo: %w", err)
	}
	v2 := slices.ContainsFunc(l.Hierarchies, func(h Hierarchy) bool { return h.V2 })
	limits := slices.ContainsFunc(l.Hierarchies, func(h Hierarchy) bool { return !h.V2 && !h.named() })
	switch {
	case v2 && limits:
		l.Mode = Hybrid
	case v2:
		l.Mode = V2
		l.Hierarchies = slices.DeleteFunc(l.Hierarchies, func(h Hierarchy) bool { return !h.V2 })
	case limits:
		l.Mode = V1
	default:
		return nil, errdefs.New(errdefs.ErrUnsupported, "no cgroup file system is mounted: mount cgroup2 on /sys/fs/cgroup")
	}
	return l, nil
}

// parseMount reads one line of mountinfo; root is the part of the hierarchy that the mount shows.
func parseMount(line string) (h Hierarchy, root string, ok bool) {
	before, after, ok := strings.Cut(line, " - ")
	fields, tail := strings.Fields(before), strings.Fields(after)
	if !ok || len(fields) < 6 || len(tail) < 3 {
		return h, "", false
	}
	h.Mountpoint, root = fields[4], fields[3]
	switch tail[0] {
	case "cgroup2":
		h.V2 = true
	case "cgroup":
		for opt := range strings.SplitSeq(tail[2], ",") {
			switch opt {
			case "rw", "ro", "xattr", "noprefix", "clone_children", "favordynmods", "nofavordynmods":
			default:
				if !strings.HasPrefix(opt, "release_agent=") {
					h.Controllers = append(h.Controllers, opt)
				}
			}
		}
	default:
		return h, "", false
	}
	return h, root, h.V2 || len(h.Controllers) > 0
}

// same reports whether two mounts show one hierarchy.
func (h Hierarchy) same(o Hierarchy) bool {
	return h.V2 == o.V2 && slices.Equal(h.Controllers, o.Controllers)
}

func (h *Hierarchy) has(controller string) bool { return slices.Contains(h.Controllers, controller) }

// named reports a v1 hierarchy without controllers, such as systemd's.
func (h *Hierarchy) named() bool {
	return !h.V2 && len(h.Controllers) == 1 && strings.HasPrefix(h.Controllers[0], "name=")
}

// ownPath finds the process's own group in the text of /proc/pid/cgroup, relative to the mount's root.
func (h *Hierarchy) ownPath(own, root string) string {
	for line := range strings.Lines(own) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		if (h.V2 && parts[0] == "0") || (!h.V2 && parts[1] != "" && slices.Contains(strings.Split(parts[1], ","), h.Controllers[0])) {
			if rel, ok := strings.CutPrefix(parts[2], root); ok && root != "/" {
				return path.Join("/", rel)
			}
			return parts[2]
		}
	}
	return "/"
}

func (h *Hierarchy) dir(p string) string { return filepath.Join(h.Mountpoint, p) }

// wanted decides whether a container needs a directory in the hierarchy: for limits and figures that
// Docker's users expect always, for rarer controllers when a resource asks. On a hybrid host cgroup2
// freezes, so v1's freezer is left out.
func (l *Layout) wanted(h *Hierarchy, r *specs.LinuxResources) bool {
	if h.V2 {
		return true
	}
	return slices.ContainsFunc(h.Controllers, func(c string) bool {
		switch c {
		case "memory", "cpu", "cpuacct", "pids", "devices", "blkio":
			return true
		case "freezer":
			return l.Mode == V1
		case "cpuset":
			return r != nil && r.CPU != nil && (r.CPU.Cpus != "" || r.CPU.Mems != "")
		case "hugetlb":
			return r != nil && len(r.HugepageLimits) > 0
		case "net_cls":
			return r != nil && r.Network != nil && r.Network.ClassID != nil
		case "net_prio":
			return r != nil && r.Network != nil && len(r.Network.Priorities) > 0
		case "rdma":
			return r != nil && len(r.Rdma) > 0
		case "name=systemd":
			return l.systemd
		}
		return false
	})
}
