package container

import (
	"fmt"
	"path"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// DefaultShmSize is the size of /dev/shm in bytes when nobody says otherwise.
const DefaultShmSize = 64 << 20

// mounts puts the kernel's file systems first, then the user's mounts, parents before children. A
// user's mount replaces the one of davit's at the same place.
func (b builder) mounts(s *specs.Spec) error {
	own := append(b.systemMounts(), b.fileMounts()...)
	var users []specs.Mount
	for _, m := range b.Record.Mounts {
		users = append(users, b.userMount(m))
	}
	taken := func(m specs.Mount) bool {
		return slices.ContainsFunc(users, func(u specs.Mount) bool { return u.Destination == m.Destination })
	}
	own = slices.DeleteFunc(own, taken)
	sort.SliceStable(users, func(i, j int) bool { return depth(users[i].Destination) < depth(users[j].Destination) })
	s.Mounts = append(own, users...)
	return nil
}

func depth(p string) int { return strings.Count(strings.TrimSuffix(p, "/"), "/") }

func (b builder) systemMounts() []specs.Mount {
	h := b.Record.HostConfig
	sys, cgroup := "ro", "ro"
	if h.Privileged {
		sys, cgroup = "rw", "rw"
	}
	if b.security.WritableCgroups {
		cgroup = "rw"
	}
	mounts := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", sys}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{cgroup, "nosuid", "noexec", "nodev"}},
	}
	if !h.IpcMode.IsHost() || b.Facts.HasPath == nil || b.Facts.HasPath("/dev/mqueue") {
		mounts = append(mounts, b.mqueue())
	}
	if !h.IpcMode.IsNone() {
		mounts = append(mounts, b.shm())
	}
	if b.Record.UserNS.Mode != UserHost && h.NetworkMode.IsHost() {
		// The kernel lets only the owner of the network namespace mount a new sysfs.
		mounts[3] = specs.Mount{Destination: "/sys", Type: "bind", Source: "/sys", Options: []string{"rbind", "nosuid", "noexec", "nodev", "ro"}}
	}
	return mounts
}

func (b builder) mqueue() specs.Mount {
	m := specs.Mount{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}}
	if b.Record.HostConfig.IpcMode.IsHost() {
		m.Type, m.Source, m.Options = "bind", "/dev/mqueue", append(m.Options, "bind")
	}
	return m
}

func (b builder) shm() specs.Mount {
	h := b.Record.HostConfig
	size := h.ShmSize
	if size == 0 {
		size = DefaultShmSize
	}
	m := specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=" + strconv.FormatInt(size, 10)}}
	switch {
	case h.IpcMode.IsHost():
		m.Type, m.Source, m.Options = "bind", "/dev/shm", []string{"bind", "nosuid", "noexec", "nodev"}
	case b.ShmDir != "":
		m.Type, m.Source, m.Options = "bind", b.ShmDir, b.idmapped([]string{"bind", "nosuid", "noexec", "nodev"}, "idmap", optionalIDMap)
	}
	return m
}

// fileMounts are the files that davit writes for each container. They belong to the container's root
// already, so they need no mapping.
func (b builder) fileMounts() []specs.Mount {
	var mounts []specs.Mount
	for _, f := range []struct{ from, to string }{
		{b.Files.Resolv, "/etc/resolv.conf"}, {b.Files.Hostname, "/etc/hostname"}, {b.Files.Hosts, "/etc/hosts"},
	} {
		if f.from != "" {
			mounts = append(mounts, specs.Mount{Destination: f.to, Type: "bind", Source: f.from, Options: []string{"bind", "rprivate"}})
		}
	}
	return mounts
}

func (b builder) userMount(m Mount) specs.Mount {
	if m.Type == mount.TypeTmpfs {
		return specs.Mount{Destination: m.Destination, Type: "tmpfs", Source: "tmpfs", Options: m.Options}
	}
	bind, idmap := "rbind", "ridmap"
	if m.NonRecursive {
		bind, idmap = "bind", "idmap"
	}
	propagation := m.Propagation
	if propagation == "" {
		propagation = mount.PropagationRPrivate
	}
	options := b.idmapped([]string{bind, string(propagation)}, idmap, optionalIDMap)
	switch {
	case m.RW:
	case m.ReadOnlyTop || m.NonRecursive:
		options = append(options, "ro")
	default:
		options = append(options, "rro")
	}
	source := m.Source
	if m.Type == mount.TypeVolume && m.Subpath != "" {
		source = path.Join(source, m.Subpath)
	}
	return specs.Mount{Destination: m.Destination, Type: "bind", Source: source, Options: options}
}

// optionalIDMap has davit-oci bind a source unmapped when its file system cannot be mapped (devices, other
// overlays, network file systems), rather than refuse what users of Docker expect to work.
const optionalIDMap = "x-davit.idmap-if-possible"

// idmapped adds the options that map a mount by the container's user namespace, if it has one.
func (b builder) idmapped(options []string, add ...string) []string {
	if b.Record.UserNS.Mode == UserHost {
		return options
	}
	return append(options, add...)
}

// TmpfsOptions turns --tmpfs and --mount options into those of mount(8).
func TmpfsOptions(options string, sizeBytes int64, mode uint32) []string {
	opts := []string{"noexec", "nosuid", "nodev"}
	for o := range strings.SplitSeq(options, ",") {
		if o == "" {
			continue
		}
		// A later exec, suid or dev takes back the default before it.
		if slices.Contains([]string{"exec", "suid", "dev"}, o) {
			opts = slices.DeleteFunc(opts, func(s string) bool { return s == "no"+o })
		}
		if !slices.Contains(opts, o) {
			opts = append(opts, o)
		}
	}
	if sizeBytes > 0 {
		opts = append(opts, "size="+strconv.FormatInt(sizeBytes, 10))
	}
	if mode != 0 {
		opts = append(opts, fmt.Sprintf("mode=%o", mode))
	}
	return opts
}
