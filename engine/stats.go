package engine

import (
	"bufio"
	"bytes"
	"os"
	"strconv"
	"strings"
	"time"

	wire "github.com/moby/moby/api/types/container"

	"davit/engine/container"
	"davit/kernel/cgroup"
	"davit/oci/errdefs"
)

// Stats returns a function that reads a container's counters. Of a container that does not run it
// gives zeros.
func (v *Views) Stats(name string) (func() (wire.StatsResponse, error), error) {
	a, err := v.roster.find(name)
	if err != nil {
		return nil, err
	}
	return func() (wire.StatsResponse, error) {
		r := a.record()
		if r.State.Status == container.Removed {
			return wire.StatsResponse{}, errdefs.NotFound("No such container: %s", name)
		}
		s := wire.StatsResponse{ID: r.ID, Name: "/" + r.Name, OSType: "linux", Read: v.Now()}
		if !r.State.Status.Alive() {
			return s, nil
		}
		if err := v.count(r, &s); err != nil {
			return wire.StatsResponse{}, err
		}
		return s, nil
	}, nil
}

func (v *Views) count(r *container.Record, s *wire.StatsResponse) error {
	g, err := cgroup.Load(r.State.Cgroup)
	if err != nil {
		return err
	}
	defer g.Close()
	c, err := g.Stats()
	if err != nil {
		return err
	}
	s.Read = c.Time
	s.CPUStats = wire.CPUStats{
		CPUUsage:    wire.CPUUsage{TotalUsage: c.CPU.Total, PercpuUsage: c.CPU.PerCPU, UsageInKernelmode: c.CPU.System, UsageInUsermode: c.CPU.User},
		SystemUsage: systemCPU(), OnlineCPUs: uint32(v.Facts.CPUs),
		ThrottlingData: wire.ThrottlingData{Periods: c.CPU.Periods, ThrottledPeriods: c.CPU.ThrottledPeriods, ThrottledTime: c.CPU.ThrottledTime},
	}
	s.MemoryStats = wire.MemoryStats{Usage: c.Memory.Usage, MaxUsage: c.Memory.MaxUsage, Limit: c.Memory.Limit, Failcnt: c.Memory.Failures, Stats: c.Memory.Raw}
	if s.MemoryStats.Limit == 0 {
		s.MemoryStats.Limit = totalMemory()
	}
	s.PidsStats = wire.PidsStats{Current: c.Pids.Current, Limit: c.Pids.Limit}
	for _, b := range c.Blkio {
		s.BlkioStats.IoServiceBytesRecursive = append(s.BlkioStats.IoServiceBytesRecursive,
			wire.BlkioStatEntry{Major: b.Major, Minor: b.Minor, Op: "read", Value: b.ReadBytes},
			wire.BlkioStatEntry{Major: b.Major, Minor: b.Minor, Op: "write", Value: b.WriteBytes})
		s.BlkioStats.IoServicedRecursive = append(s.BlkioStats.IoServicedRecursive,
			wire.BlkioStatEntry{Major: b.Major, Minor: b.Minor, Op: "read", Value: b.ReadOps},
			wire.BlkioStatEntry{Major: b.Major, Minor: b.Minor, Op: "write", Value: b.WriteOps})
	}
	if !r.HostConfig.NetworkMode.IsHost() {
		s.Networks = interfaces(r.State.Pid)
	}
	return nil
}

// systemCPU returns the host's processor time so far in nanoseconds (proc_stat(5)).
func systemCPU() uint64 {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	fields := strings.Fields(string(line))
	var ticks uint64
	for _, f := range fields[1:min(8, len(fields))] {
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return 0
		}
		ticks += n
	}
	return ticks * uint64(time.Second/100)
}

// totalMemory returns the host's memory in bytes (proc_meminfo(5)).
func totalMemory() uint64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			n, _ := strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
			return n << 10
		}
	}
	return 0
}

// interfaces reads the traffic of a process's network interfaces (proc_pid_net(5)).
func interfaces(pid int) map[string]wire.NetworkStats {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/net/dev")
	if err != nil {
		return nil
	}
	defer f.Close()
	all := map[string]wire.NetworkStats{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name, counters, ok := strings.Cut(lines.Text(), ":")
		name = strings.TrimSpace(name)
		fields := strings.Fields(counters)
		if !ok || name == "lo" || len(fields) < 12 {
			continue
		}
		n := func(i int) uint64 { v, _ := strconv.ParseUint(fields[i], 10, 64); return v }
		all[name] = wire.NetworkStats{
			RxBytes: n(0), RxPackets: n(1), RxErrors: n(2), RxDropped: n(3),
			TxBytes: n(8), TxPackets: n(9), TxErrors: n(10), TxDropped: n(11),
		}
	}
	return all
}
