package cgroup

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/oci/errdefs"
)

// delegate turns on, in every group from the hierarchy's root to dir, the controllers that the root
// offers, so that a group made in dir can be limited. What cannot be turned on, because the controller
// belongs to v1 or the group has processes of its own, is found out when a limit needs it.
func (h *Hierarchy) delegate(dirPath string) error {
	rel, err := filepath.Rel(h.Mountpoint, dirPath)
	if err != nil {
		return err
	}
	levels := []string{h.Mountpoint}
	if rel != "." {
		for part := range strings.SplitSeq(rel, "/") {
			levels = append(levels, levels[len(levels)-1]+"/"+part)
		}
	}
	for _, level := range levels {
		d := dir{h, level}
		on, err := d.read("cgroup.subtree_control")
		if absent(err) {
			return nil // the directory does not exist yet: making it delegates again
		}
		if err != nil {
			return fmt.Errorf("read controllers: %w", err)
		}
		d.enable(strings.Fields(on))
	}
	return nil
}

// enable turns on each offered controller on its own: one that is refused does not keep the others off.
func (d dir) enable(on []string) {
	for _, c := range d.h.Controllers {
		if !slices.Contains(on, c) {
			_ = d.write("cgroup.subtree_control", "+"+c) // see delegate
		}
	}
}

// setV2 applies resources to the cgroup2 directory.
func (g *Group) setV2(r *specs.LinuxResources) error {
	d := g.dirs[0]
	if r.Devices != nil {
		if err := g.setDevicesV2(r.Devices); err != nil {
			return err
		}
	}
	if err := checkBeforeUpdate(d, r.Memory); err != nil {
		return err
	}
	settings, err := settingsV2(d, r)
	if err != nil {
		return err
	}
	for _, s := range settings {
		err := g.apply(d, s)
		if err != nil && r.Memory != nil && s.controller == "memory" {
			err = memoryInUse(err, r.Memory)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// settingsV2 translates resources, which are written in terms of v1, to the files of cgroup2.
func settingsV2(d dir, r *specs.LinuxResources) ([]setting, error) {
	out, err := memoryV2(r.Memory)
	if err != nil {
		return nil, err
	}
	out = append(out, cpuV2(r.CPU)...)
	if r.Pids != nil && r.Pids.Limit != nil && *r.Pids.Limit != 0 {
		out = append(out, setting{"pids", "pids.max", limit(*r.Pids.Limit, "max"), false})
	}
	out = append(out, blkioV2(d, r.BlockIO)...)
	for _, h := range r.HugepageLimits {
		out = append(out, setting{"hugetlb", "hugetlb." + h.Pagesize + ".max", utoa(h.Limit), false})
	}
	for device, limits := range r.Rdma {
		out = append(out, setting{"rdma", "rdma.max", rdmaLine(device, limits), false})
	}
	unified, err := unifiedSettings(r.Unified)
	return append(out, unified...), err
}

func memoryV2(m *specs.LinuxMemory) ([]setting, error) {
	if m == nil {
		return nil, nil
	}
	var out []setting
	swap, set, err := swapV2(m)
	if err != nil {
		return nil, err
	}
	if set {
		out = append(out, setting{"memory", "memory.swap.max", limit(swap, "max"), true})
	}
	if m.Limit != nil && *m.Limit != 0 {
		out = append(out, setting{"memory", "memory.max", limit(*m.Limit, "max"), false})
	}
	if m.Reservation != nil && *m.Reservation != 0 {
		out = append(out, setting{"memory", "memory.low", limit(*m.Reservation, "max"), false})
	}
	return out, nil
}

// swapV2 converts v1's limit of memory plus swap to cgroup2's limit of swap alone.
func swapV2(m *specs.LinuxMemory) (swap int64, set bool, err error) {
	limited := m.Limit != nil && *m.Limit > 0
	switch {
	case m.Swap == nil || *m.Swap == 0:
		// Without a word about swap, an unlimited memory has unlimited swap.
		return -1, m.Limit != nil && *m.Limit < 0, nil
	case *m.Swap < 0:
		return -1, true, nil
	case !limited:
		return 0, false, errdefs.Invalid("a limit of memory and swap needs a memory limit")
	case *m.Swap < *m.Limit:
		return 0, false, errdefs.Invalid("the limit of memory and swap (%d) is below the memory limit (%d)", *m.Swap, *m.Limit)
	}
	return *m.Swap - *m.Limit, true, nil
}

// checkBeforeUpdate refuses a memory limit below the present use, where the caller asked for that:
// cgroup2 itself would accept it and kill.
func checkBeforeUpdate(d dir, m *specs.LinuxMemory) error {
	if m == nil || m.CheckBeforeUpdate == nil || !*m.CheckBeforeUpdate || m.Limit == nil || *m.Limit <= 0 {
		return nil
	}
	used, err := d.uint("memory.current")
	if err != nil {
		return fmt.Errorf("read memory use: %w", err)
	}
	if used > uint64(*m.Limit) {
		return memoryInUse(fmt.Errorf("%d bytes are in use: %w", used, syscall.EBUSY), m)
	}
	return nil
}

func cpuV2(c *specs.LinuxCPU) []setting {
	if c == nil {
		return nil
	}
	var out []setting
	if c.Idle != nil {
		out = append(out, setting{"cpu", "cpu.idle", itoa(*c.Idle), true})
	}
	if c.Shares != nil && *c.Shares != 0 {
		out = append(out, setting{"cpu", "cpu.weight", utoa(weight(*c.Shares)), false})
	}
	if value := cpuMax(c.Quota, c.Period); value != "" {
		out = append(out, setting{"cpu", "cpu.max", value, false})
	}
	if c.Burst != nil {
		out = append(out, setting{"cpu", "cpu.max.burst", utoa(*c.Burst), false})
	}
	if c.Cpus != "" {
		out = append(out, setting{"cpuset", "cpuset.cpus", c.Cpus, false})
	}
	if c.Mems != "" {
		out = append(out, setting{"cpuset", "cpuset.mems", c.Mems, false})
	}
	return out
}

// cpuMax is "QUOTA PERIOD" in microseconds; the period alone can only be set together with a quota.
func cpuMax(quota *int64, period *uint64) string {
	hasQuota, hasPeriod := quota != nil && *quota != 0, period != nil && *period != 0
	if !hasQuota && !hasPeriod {
		return ""
	}
	value := "max"
	if hasQuota && *quota > 0 {
		value = itoa(*quota)
	}
	if hasPeriod {
		value += " " + utoa(*period)
	}
	return value
}

// weight converts cpu.shares (2..262144, default 1024) to cpu.weight (1..10000, default 100) along a
// curve through both ends and the default, which a straight line misses by a factor of 2.5.
func weight(shares uint64) uint64 {
	if shares <= 2 {
		return 1
	}
	if shares >= 262144 {
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}

func blkioV2(d dir, b *specs.LinuxBlockIO) []setting {
	if b == nil {
		return nil
	}
	var out []setting
	if b.Weight != nil && *b.Weight != 0 {
		out = append(out, ioWeight(d, *b.Weight))
	}
	for _, w := range b.WeightDevice {
		if w.Weight != nil {
			out = append(out, setting{"io", "io.bfq.weight", fmt.Sprintf("%d:%d %d", w.Major, w.Minor, *w.Weight), true})
		}
	}
	throttle := func(key string, devices []specs.LinuxThrottleDevice) {
		for _, t := range devices {
			rate := utoa(t.Rate)
			if t.Rate == 0 {
				rate = "max"
			}
			out = append(out, setting{"io", "io.max", fmt.Sprintf("%d:%d %s=%s", t.Major, t.Minor, key, rate), false})
		}
	}
	throttle("rbps", b.ThrottleReadBpsDevice)
	throttle("wbps", b.ThrottleWriteBpsDevice)
	throttle("riops", b.ThrottleReadIOPSDevice)
	throttle("wiops", b.ThrottleWriteIOPSDevice)
	return out
}

// ioWeight sets BFQ's weight (1..1000) where that scheduler is in use, else the cost model's
// (1..10000), scaled from v1's range of 10..1000.
func ioWeight(d dir, w uint16) setting {
	if _, err := os.Stat(d.path + "/io.bfq.weight"); err == nil {
		return setting{"io", "io.bfq.weight", utoa(uint64(w)), true}
	}
	return setting{"io", "io.weight", utoa(1 + (uint64(max(w, 10))-10)*9999/990), true}
}
