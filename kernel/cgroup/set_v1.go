package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/oci/errdefs"
)

// setV1 applies resources to v1 hierarchies, devices first: they are what a container may not have had
// for a moment.
func (g *Group) setV1(r *specs.LinuxResources) error {
	if r.Devices != nil {
		if err := g.setDevicesV1(r.Devices); err != nil {
			return err
		}
	}
	if err := g.setMemoryV1(r.Memory); err != nil {
		return err
	}
	if err := g.setCPUV1(r.CPU); err != nil {
		return err
	}
	for _, s := range otherV1(r) {
		if err := g.setV1File(s); err != nil {
			return err
		}
	}
	return g.setUnifiedOnHybrid(r.Unified)
}

// setV1File writes one setting into its controller's directory.
func (g *Group) setV1File(s setting) error {
	d, ok := g.v1(s.controller)
	if !ok && s.optional {
		g.log.Warn("cgroup controller is not mounted; a setting was skipped", "file", s.file)
		return nil
	}
	if !ok {
		return g.unsupported(s)
	}
	return g.apply(d, s)
}

// setMemoryV1 writes the memory limit and the limit of memory plus swap. The kernel keeps the former at
// most the latter at every step, so which goes first depends on the direction of the change.
func (g *Group) setMemoryV1(m *specs.LinuxMemory) error {
	if m == nil {
		return nil
	}
	var memory, swap *setting
	if m.Limit != nil && *m.Limit != 0 {
		memory = &setting{"memory", "memory.limit_in_bytes", itoa(*m.Limit), false}
	}
	if m.Swap != nil && *m.Swap != 0 {
		swap = &setting{"memory", "memory.memsw.limit_in_bytes", itoa(*m.Swap), true}
	} else if memory != nil && *m.Limit < 0 {
		swap = &setting{"memory", "memory.memsw.limit_in_bytes", "-1", true}
	}
	if err := g.setPair(memory, swap); err != nil {
		return memoryInUse(err, m)
	}
	for _, s := range memoryV1(m) {
		if err := g.setV1File(s); err != nil {
			return err
		}
	}
	return nil
}

// setPair writes a then b, or b then a when the kernel refuses a while b is as it was.
func (g *Group) setPair(a, b *setting) error {
	if a == nil || b == nil {
		if b != nil {
			a = b
		}
		if a == nil {
			return nil
		}
		return g.setV1File(*a)
	}
	err := g.setV1File(*a)
	if hasErrno(err, syscall.EINVAL) {
		if err := g.setV1File(*b); err != nil {
			return err
		}
		return g.setV1File(*a)
	}
	if err != nil {
		return err
	}
	return g.setV1File(*b)
}

// memoryInUse explains EBUSY: the kernel could not reclaim down to the new limit.
func memoryInUse(err error, m *specs.LinuxMemory) error {
	if hasErrno(err, syscall.EBUSY) && m.Limit != nil {
		return errdefs.New(errdefs.ErrConflict, "the memory limit of %d bytes is below what the container uses: %w", *m.Limit, err)
	}
	return err
}

func memoryV1(m *specs.LinuxMemory) []setting {
	var out []setting
	if m.Reservation != nil && *m.Reservation != 0 {
		out = append(out, setting{"memory", "memory.soft_limit_in_bytes", itoa(*m.Reservation), false})
	}
	//lint:ignore SA1019 specs of old engines still set it, and v1 has the file
	if m.Kernel != nil && *m.Kernel != 0 {
		//lint:ignore SA1019 as above
		out = append(out, setting{"memory", "memory.kmem.limit_in_bytes", itoa(*m.Kernel), true})
	}
	if m.KernelTCP != nil && *m.KernelTCP != 0 {
		out = append(out, setting{"memory", "memory.kmem.tcp.limit_in_bytes", itoa(*m.KernelTCP), true})
	}
	if m.Swappiness != nil && *m.Swappiness <= 100 {
		out = append(out, setting{"memory", "memory.swappiness", utoa(*m.Swappiness), true})
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		out = append(out, setting{"memory", "memory.oom_control", "1", true})
	}
	return out
}

// setCPUV1 writes shares and bandwidth. Period and quota are checked against each other and the
// parent's at each write, so a refused period is tried again after the quota.
func (g *Group) setCPUV1(c *specs.LinuxCPU) error {
	if c == nil {
		return nil
	}
	for _, s := range cpuV1(c) {
		if err := g.setV1File(s); err != nil {
			return err
		}
	}
	var period, quota *setting
	if c.Period != nil && *c.Period != 0 {
		period = &setting{"cpu", "cpu.cfs_period_us", utoa(*c.Period), false}
	}
	if c.Quota != nil && *c.Quota != 0 {
		quota = &setting{"cpu", "cpu.cfs_quota_us", itoa(*c.Quota), false}
	}
	if err := g.setPair(period, quota); err != nil {
		return err
	}
	if c.Burst != nil {
		return g.setV1File(setting{"cpu", "cpu.cfs_burst_us", utoa(*c.Burst), false})
	}
	return nil
}

func cpuV1(c *specs.LinuxCPU) []setting {
	var out []setting
	if c.Shares != nil && *c.Shares != 0 {
		out = append(out, setting{"cpu", "cpu.shares", utoa(*c.Shares), false})
	}
	if c.Idle != nil {
		out = append(out, setting{"cpu", "cpu.idle", itoa(*c.Idle), true})
	}
	if c.RealtimePeriod != nil && *c.RealtimePeriod != 0 {
		out = append(out, setting{"cpu", "cpu.rt_period_us", utoa(*c.RealtimePeriod), false})
	}
	if c.RealtimeRuntime != nil && *c.RealtimeRuntime != 0 {
		out = append(out, setting{"cpu", "cpu.rt_runtime_us", itoa(*c.RealtimeRuntime), false})
	}
	if c.Cpus != "" {
		out = append(out, setting{"cpuset", "cpuset.cpus", c.Cpus, false})
	}
	if c.Mems != "" {
		out = append(out, setting{"cpuset", "cpuset.mems", c.Mems, false})
	}
	return out
}

// otherV1 lists the settings whose order does not matter.
func otherV1(r *specs.LinuxResources) []setting {
	var out []setting
	if r.Pids != nil && r.Pids.Limit != nil && *r.Pids.Limit != 0 {
		out = append(out, setting{"pids", "pids.max", limit(*r.Pids.Limit, "max"), false})
	}
	out = append(out, blkioV1(r.BlockIO)...)
	for _, h := range r.HugepageLimits {
		out = append(out, setting{"hugetlb", "hugetlb." + h.Pagesize + ".limit_in_bytes", utoa(h.Limit), false})
	}
	for device, limits := range r.Rdma {
		out = append(out, setting{"rdma", "rdma.max", rdmaLine(device, limits), false})
	}
	if r.Network != nil {
		if r.Network.ClassID != nil {
			out = append(out, setting{"net_cls", "net_cls.classid", utoa(uint64(*r.Network.ClassID)), false})
		}
		for _, p := range r.Network.Priorities {
			out = append(out, setting{"net_prio", "net_prio.ifpriomap", p.Name + " " + utoa(uint64(p.Priority)), false})
		}
	}
	return out
}

func blkioV1(b *specs.LinuxBlockIO) []setting {
	if b == nil {
		return nil
	}
	var out []setting
	if b.Weight != nil && *b.Weight != 0 {
		out = append(out, setting{"blkio", "blkio.bfq.weight", utoa(uint64(*b.Weight)), true})
	}
	for _, w := range b.WeightDevice {
		if w.Weight != nil {
			out = append(out, setting{"blkio", "blkio.bfq.weight_device", fmt.Sprintf("%d:%d %d", w.Major, w.Minor, *w.Weight), true})
		}
	}
	throttle := func(file string, devices []specs.LinuxThrottleDevice) {
		for _, t := range devices {
			out = append(out, setting{"blkio", "blkio.throttle." + file, fmt.Sprintf("%d:%d %d", t.Major, t.Minor, t.Rate), false})
		}
	}
	throttle("read_bps_device", b.ThrottleReadBpsDevice)
	throttle("write_bps_device", b.ThrottleWriteBpsDevice)
	throttle("read_iops_device", b.ThrottleReadIOPSDevice)
	throttle("write_iops_device", b.ThrottleWriteIOPSDevice)
	return out
}

func rdmaLine(device string, l specs.LinuxRdma) string {
	line := device
	if l.HcaHandles != nil {
		line += " hca_handle=" + strconv.FormatUint(uint64(*l.HcaHandles), 10)
	}
	if l.HcaObjects != nil {
		line += " hca_object=" + strconv.FormatUint(uint64(*l.HcaObjects), 10)
	}
	return line
}

// setUnifiedOnHybrid serves the unified map from the cgroup2 directory beside v1.
func (g *Group) setUnifiedOnHybrid(m map[string]string) error {
	if len(m) == 0 {
		return nil
	}
	settings, err := unifiedSettings(m)
	if err != nil {
		return err
	}
	d, ok := g.unified()
	for _, s := range settings {
		if !ok {
			return errdefs.New(errdefs.ErrUnsupported, "the unified cgroup resource %q needs cgroup v2", s.file)
		}
		if err := g.apply(d, s); err != nil {
			return err
		}
	}
	return nil
}

// inheritCpuset fills a new cpuset group from its parent: v1 starts it empty, and an empty one takes no
// process.
func inheritCpuset(path string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(path), file))
		if err != nil {
			return fmt.Errorf("read parent's cpuset: %w", err)
		}
		value := strings.TrimSpace(string(b))
		if err := (dir{nil, path}).write(file, value); err != nil {
			return fmt.Errorf("inherit cpuset: %w", err)
		}
	}
	return nil
}
