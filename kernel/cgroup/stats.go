package cgroup

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"
)

// Stats is what the kernel has counted for a group, in one form for v1 and v2. Numbers that the host
// does not count are 0; a limit of 0 means none.
type Stats struct {
	Time   time.Time
	CPU    CPUStats
	Memory MemoryStats
	Pids   PidsStats
	Blkio  []BlkioStats
}

// CPUStats is processor time. Durations are in nanoseconds.
type CPUStats struct {
	Total            uint64
	User             uint64
	System           uint64
	PerCPU           []uint64 // v1 only
	Periods          uint64   // enforcement periods that have passed
	ThrottledPeriods uint64
	ThrottledTime    uint64
}

// MemoryStats is in bytes, except Failures.
type MemoryStats struct {
	Usage     uint64
	MaxUsage  uint64
	Limit     uint64
	SwapUsage uint64 // v1 too: swap alone, without memory
	Failures  uint64 // how often the limit was hit
	Raw       map[string]uint64
}

// PidsStats counts tasks.
type PidsStats struct {
	Current uint64
	Limit   uint64
}

// BlkioStats is one block device's traffic.
type BlkioStats struct {
	Major, Minor                             uint64
	ReadBytes, WriteBytes, DiscardBytes      uint64
	ReadOps, WriteOps, DiscardOps            uint64
	SyncBytes, AsyncBytes, SyncOps, AsyncOps uint64 // v1 only
}

// Stats reads all counters. Files that this kernel does not have leave zeros.
func (g *Group) Stats() (Stats, error) {
	s := Stats{Time: time.Now()}
	if g.pureV2() {
		return s, g.statsV2(&s)
	}
	return s, g.statsV1(&s)
}

// reader collects the first real error of many reads; absent files read as nothing.
type reader struct{ err error }

func (r *reader) note(err error) {
	if err != nil && !absent(err) && r.err == nil {
		r.err = fmt.Errorf("read cgroup statistics: %w", err)
	}
}

func (r *reader) uint(d dir, file string) uint64 {
	n, err := d.uint(file)
	r.note(err)
	return n
}

func (r *reader) keyed(d dir, file string) map[string]uint64 {
	m, err := d.keyed(file)
	r.note(err)
	return m
}

func (g *Group) statsV2(s *Stats) error {
	d, r := g.dirs[0], &reader{}
	cpu := r.keyed(d, "cpu.stat")
	s.CPU = CPUStats{
		Total: cpu["usage_usec"] * 1000, User: cpu["user_usec"] * 1000, System: cpu["system_usec"] * 1000,
		Periods: cpu["nr_periods"], ThrottledPeriods: cpu["nr_throttled"], ThrottledTime: cpu["throttled_usec"] * 1000,
	}
	events := r.keyed(d, "memory.events")
	s.Memory = MemoryStats{
		Usage: r.uint(d, "memory.current"), MaxUsage: r.uint(d, "memory.peak"), Limit: r.uint(d, "memory.max"),
		SwapUsage: r.uint(d, "memory.swap.current"), Failures: events["max"], Raw: r.keyed(d, "memory.stat"),
	}
	s.Pids = PidsStats{Current: r.uint(d, "pids.current"), Limit: r.uint(d, "pids.max")}
	text, err := d.read("io.stat")
	r.note(err)
	s.Blkio = parseIOStat(text)
	return r.err
}

// parseIOStat reads io.stat: "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6".
func parseIOStat(text string) []BlkioStats {
	var out []BlkioStats
	for line := range strings.SplitSeq(text, "\n") {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		var b BlkioStats
		if _, err := fmt.Sscanf(fields[0], "%d:%d", &b.Major, &b.Minor); err != nil {
			continue
		}
		for _, f := range fields[1:] {
			key, value, _ := strings.Cut(f, "=")
			n, _ := strconv.ParseUint(value, 10, 64)
			switch key {
			case "rbytes":
				b.ReadBytes = n
			case "wbytes":
				b.WriteBytes = n
			case "dbytes":
				b.DiscardBytes = n
			case "rios":
				b.ReadOps = n
			case "wios":
				b.WriteOps = n
			case "dios":
				b.DiscardOps = n
			}
		}
		out = append(out, b)
	}
	return out
}

func (g *Group) statsV1(s *Stats) error {
	r := &reader{}
	if d, ok := g.v1("cpuacct"); ok {
		s.CPU.Total = r.uint(d, "cpuacct.usage")
		s.CPU.User, s.CPU.System = r.uint(d, "cpuacct.usage_user"), r.uint(d, "cpuacct.usage_sys")
		text, err := d.read("cpuacct.usage_percpu")
		r.note(err)
		for f := range strings.FieldsSeq(text) {
			n, _ := strconv.ParseUint(f, 10, 64)
			s.CPU.PerCPU = append(s.CPU.PerCPU, n)
		}
	}
	if d, ok := g.v1("cpu"); ok {
		m := r.keyed(d, "cpu.stat")
		s.CPU.Periods, s.CPU.ThrottledPeriods, s.CPU.ThrottledTime = m["nr_periods"], m["nr_throttled"], m["throttled_time"]
	}
	if d, ok := g.v1("memory"); ok {
		s.Memory = r.memoryV1(d)
	}
	if d, ok := g.v1("pids"); ok {
		s.Pids = PidsStats{Current: r.uint(d, "pids.current"), Limit: r.uint(d, "pids.max")}
	}
	if d, ok := g.v1("blkio"); ok {
		s.Blkio = r.blkioV1(d)
	}
	return r.err
}

func (r *reader) memoryV1(d dir) MemoryStats {
	m := MemoryStats{
		Usage: r.uint(d, "memory.usage_in_bytes"), MaxUsage: r.uint(d, "memory.max_usage_in_bytes"),
		Limit: r.uint(d, "memory.limit_in_bytes"), Failures: r.uint(d, "memory.failcnt"),
		Raw: r.keyed(d, "memory.stat"),
	}
	m.SwapUsage = m.Raw["total_swap"]
	return m
}

// blkioV1 reads "8:0 Read 4096" lines. The recursive throttle files count every scheduler's traffic.
func (r *reader) blkioV1(d dir) []BlkioStats {
	devices := map[[2]uint64]*BlkioStats{}
	var order [][2]uint64
	r.blkioFile(d, "blkio.throttle.io_service_bytes_recursive", func(dev [2]uint64, op string, n uint64) {
		b := devices[dev]
		if b == nil {
			b = &BlkioStats{Major: dev[0], Minor: dev[1]}
			devices[dev] = b
			order = append(order, dev)
		}
		set(op, n, &b.ReadBytes, &b.WriteBytes, &b.DiscardBytes, &b.SyncBytes, &b.AsyncBytes)
	})
	r.blkioFile(d, "blkio.throttle.io_serviced_recursive", func(dev [2]uint64, op string, n uint64) {
		if b := devices[dev]; b != nil {
			set(op, n, &b.ReadOps, &b.WriteOps, &b.DiscardOps, &b.SyncOps, &b.AsyncOps)
		}
	})
	var out []BlkioStats
	for _, dev := range order {
		out = append(out, *devices[dev])
	}
	return out
}

func set(op string, n uint64, read, write, discard, sync, async *uint64) {
	switch op {
	case "Read":
		*read = n
	case "Write":
		*write = n
	case "Discard":
		*discard = n
	case "Sync":
		*sync = n
	case "Async":
		*async = n
	}
}

func (r *reader) blkioFile(d dir, file string, each func(dev [2]uint64, op string, n uint64)) {
	f, err := os.Open(d.path + "/" + file)
	if err != nil {
		r.note(err)
		return
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		fields := strings.Fields(sc.Text())
		if len(fields) != 3 {
			continue
		}
		var dev [2]uint64
		if _, err := fmt.Sscanf(fields[0], "%d:%d", &dev[0], &dev[1]); err != nil {
			continue
		}
		if n, err := strconv.ParseUint(fields[2], 10, 64); err == nil {
			each(dev, fields[1], n)
		}
	}
	if err := sc.Err(); err != nil {
		r.note(&fs.PathError{Op: "read", Path: f.Name(), Err: err})
	}
}
