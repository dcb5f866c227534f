package container

import (
	"path"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/oci/errdefs"
)

// cfsPeriod is the period in microseconds in which --cpus is a quota.
const cfsPeriod = 100_000

// resources sets the cgroup with its limits and device rules.
func (b builder) resources(s *specs.Spec) error {
	h := b.Record.HostConfig
	s.Linux.CgroupsPath = b.cgroupPath()
	s.Linux.Resources = Limits(&h.Resources)
	if err := b.throttle(s); err != nil {
		return err
	}
	if h.Privileged {
		s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		if b.Facts.Devices != nil {
			s.Linux.Devices = b.Facts.Devices()
		}
	} else {
		s.Linux.Resources.Devices = defaultDeviceRules()
	}
	if err := b.devices(s); err != nil {
		return err
	}
	for _, rule := range h.DeviceCgroupRules {
		r, err := ParseDeviceRule(rule)
		if err != nil {
			return err
		}
		s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, r)
	}
	return nil
}

func (b builder) cgroupPath() string {
	parent := b.Record.HostConfig.CgroupParent
	if b.Facts.Systemd {
		for _, slice := range []string{b.Facts.CgroupParent, "system.slice"} {
			if parent == "" && isSlice(slice) {
				parent = slice
			}
		}
		return parent + ":davit:" + b.Record.ID
	}
	if parent == "" {
		parent = b.Facts.CgroupParent
	}
	return path.Join("/", parent, b.Record.ID)
}

// isSlice says whether systemd takes a name for a slice; see systemd.slice(5).
func isSlice(name string) bool {
	return strings.HasSuffix(name, ".slice") && !strings.Contains(name, "/")
}

// Limits turns the wire form of limits into the runtime specification's; what is not limited is nil.
func Limits(r *container.Resources) *specs.LinuxResources {
	out := &specs.LinuxResources{}
	if m := memory(r); *m != (specs.LinuxMemory{}) {
		out.Memory = m
	}
	if c := cpu(r); *c != (specs.LinuxCPU{}) {
		out.CPU = c
	}
	if r.PidsLimit != nil && *r.PidsLimit != 0 {
		out.Pids = &specs.LinuxPids{Limit: r.PidsLimit}
	}
	out.BlockIO = blockIO(r)
	return out
}

func memory(r *container.Resources) *specs.LinuxMemory {
	m := &specs.LinuxMemory{}
	if r.Memory > 0 {
		m.Limit = &r.Memory
	}
	if r.MemoryReservation > 0 {
		m.Reservation = &r.MemoryReservation
	}
	if r.MemorySwap != 0 {
		m.Swap = &r.MemorySwap
	}
	if r.MemorySwappiness != nil && *r.MemorySwappiness >= 0 {
		swappiness := uint64(*r.MemorySwappiness)
		m.Swappiness = &swappiness
	}
	if r.OomKillDisable != nil && *r.OomKillDisable {
		m.DisableOOMKiller = r.OomKillDisable
	}
	return m
}

func cpu(r *container.Resources) *specs.LinuxCPU {
	c := &specs.LinuxCPU{Cpus: r.CpusetCpus, Mems: r.CpusetMems}
	if r.CPUShares > 0 {
		shares := uint64(r.CPUShares)
		c.Shares = &shares
	}
	if r.NanoCPUs > 0 {
		period, quota := uint64(cfsPeriod), r.NanoCPUs*cfsPeriod/1e9
		c.Period, c.Quota = &period, &quota
	}
	if r.CPUPeriod > 0 {
		period := uint64(r.CPUPeriod)
		c.Period = &period
	}
	if r.CPUQuota != 0 {
		c.Quota = &r.CPUQuota
	}
	if r.CPURealtimePeriod > 0 {
		period := uint64(r.CPURealtimePeriod)
		c.RealtimePeriod = &period
	}
	if r.CPURealtimeRuntime > 0 {
		c.RealtimeRuntime = &r.CPURealtimeRuntime
	}
	return c
}

// blockIO covers the weight; limits of single devices need their numbers (builder.throttle).
func blockIO(r *container.Resources) *specs.LinuxBlockIO {
	if r.BlkioWeight == 0 {
		return nil
	}
	return &specs.LinuxBlockIO{Weight: &r.BlkioWeight}
}

// defaultDeviceRules deny every device but the harmless ones; making nodes is allowed, opening is not.
func defaultDeviceRules() []specs.LinuxDeviceCgroup {
	rules := []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"},
		rule("c", -1, -1, "m"), rule("b", -1, -1, "m"),
		rule("c", 136, -1, "rwm"), // pseudo-terminals
	}
	// null, zero, full, random, urandom, tty, console, ptmx
	for _, d := range [][2]int64{{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}, {5, 1}, {5, 2}} {
		rules = append(rules, rule("c", d[0], d[1], "rwm"))
	}
	return rules
}

func rule(kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
	r := specs.LinuxDeviceCgroup{Allow: true, Type: kind, Access: access}
	if major >= 0 {
		r.Major = &major
	}
	if minor >= 0 {
		r.Minor = &minor
	}
	return r
}

// ParseDeviceRule reads a rule of --device-cgroup-rule, "c 1:3 rwm" with "*" for any number.
func ParseDeviceRule(text string) (specs.LinuxDeviceCgroup, error) {
	bad := errdefs.Invalid("invalid device cgroup rule format: '%s'", text)
	fields := strings.Fields(text)
	if len(fields) != 3 || !strings.Contains("abc", fields[0]) || strings.Trim(fields[2], "rwm") != "" {
		return specs.LinuxDeviceCgroup{}, bad
	}
	major, minor, ok := strings.Cut(fields[1], ":")
	if !ok {
		return specs.LinuxDeviceCgroup{}, bad
	}
	numbers := [2]int64{-1, -1}
	for i, text := range []string{major, minor} {
		if text == "*" {
			continue
		}
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return specs.LinuxDeviceCgroup{}, bad
		}
		numbers[i] = int64(n)
	}
	return rule(fields[0], numbers[0], numbers[1], fields[2]), nil
}

// devices adds those of --device.
func (b builder) devices(s *specs.Spec) error {
	for _, d := range b.Record.HostConfig.Devices {
		found, err := b.Facts.Device(d.PathOnHost)
		if err != nil {
			return errdefs.New(errdefs.ErrInvalid, "error gathering device information while adding custom device %q: %w", d.PathOnHost, err)
		}
		for _, node := range found {
			b.device(s, node, inContainer(d, node.Path))
			access := d.CgroupPermissions
			if access == "" {
				access = "rwm"
			}
			s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, rule(node.Type, node.Major, node.Minor, access))
		}
	}
	return nil
}

// device puts a node of the host at a path of the container. Where the kernel lets nobody make nodes and
// the runtime binds the host's of the same path, one of another path is a bind mount.
func (b builder) device(s *specs.Spec, node specs.LinuxDevice, to string) {
	if b.Record.UserNS.Mode != UserHost && to != node.Path {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: to, Type: "bind", Source: node.Path, Options: []string{"bind", "rprivate"}})
		return
	}
	node.Path = to
	s.Linux.Devices = append(s.Linux.Devices, node)
}

// inContainer moves a device node at or below the host's path to where the container wants it.
func inContainer(d container.DeviceMapping, node string) string {
	if d.PathInContainer == "" {
		return node
	}
	return path.Join(d.PathInContainer, strings.TrimPrefix(node, d.PathOnHost))
}
