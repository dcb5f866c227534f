package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/docker/go-units"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// update takes the limits as JSON from a file ("-": standard input) or by flags.
func (a *app) update(ctx context.Context, args []string) error {
	f := a.flags("update")
	file := f.String("resources", "", "file with the resources section of a spec, - for standard input")
	f.StringVar(file, "r", "", "same as --resources")
	r := &specs.LinuxResources{CPU: &specs.LinuxCPU{}, Memory: &specs.LinuxMemory{}, Pids: &specs.LinuxPids{}, BlockIO: &specs.LinuxBlockIO{}}
	addLimits(f, r)
	rest, err := parse(f, args, 1, 1)
	if err != nil {
		return err
	}
	if *file != "" {
		if r, err = readResources(*file); err != nil {
			return err
		}
	}
	c, err := a.load(ctx, rest[0], false)
	if err != nil {
		return err
	}
	return c.Update(ctx, withoutEmpty(r))
}

func addLimits(f *flag.FlagSet, r *specs.LinuxResources) {
	bytes := func(name, help string, into **int64) {
		f.Func(name, help, func(s string) error {
			n, err := int64(-1), error(nil)
			if s != "-1" {
				n, err = units.RAMInBytes(s)
			}
			*into = &n
			return err
		})
	}
	bytes("memory", "memory limit in bytes, or with a unit", &r.Memory.Limit)
	bytes("memory-reservation", "soft memory limit", &r.Memory.Reservation)
	bytes("memory-swap", "limit of memory and swap together", &r.Memory.Swap)
	signed(f, "cpu-quota", "microseconds of processor time per period", &r.CPU.Quota)
	signed(f, "pids-limit", "most processes and threads", &r.Pids.Limit)
	signed(f, "cpu-rt-runtime", "real-time microseconds per period", &r.CPU.RealtimeRuntime)
	unsigned(f, "cpu-period", "length of a period in microseconds", &r.CPU.Period)
	unsigned(f, "cpu-share", "weight against other containers", &r.CPU.Shares)
	unsigned(f, "cpu-rt-period", "length of a real-time period in microseconds", &r.CPU.RealtimePeriod)
	f.StringVar(&r.CPU.Cpus, "cpuset-cpus", "", "processors it may use")
	f.StringVar(&r.CPU.Mems, "cpuset-mems", "", "memory nodes it may use")
	f.Func("blkio-weight", "block I/O weight, 10 to 1000", func(s string) error {
		var weight uint16
		_, err := fmt.Sscan(s, &weight)
		r.BlockIO.Weight = &weight
		return err
	})
}

func signed(f *flag.FlagSet, name, help string, into **int64) {
	f.Func(name, help, func(s string) error {
		var n int64
		_, err := fmt.Sscan(s, &n)
		*into = &n
		return err
	})
}

func unsigned(f *flag.FlagSet, name, help string, into **uint64) {
	f.Func(name, help, func(s string) error {
		var n uint64
		_, err := fmt.Sscan(s, &n)
		*into = &n
		return err
	})
}

func readResources(path string) (*specs.LinuxResources, error) {
	in := io.Reader(os.Stdin)
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("read resources: %w", err)
		}
		defer f.Close()
		in = f
	}
	r := &specs.LinuxResources{}
	if err := json.NewDecoder(in).Decode(r); err != nil {
		return nil, fmt.Errorf("decode resources: %w", err)
	}
	return r, nil
}

// withoutEmpty drops sections that say nothing.
func withoutEmpty(r *specs.LinuxResources) *specs.LinuxResources {
	if r.CPU != nil && *r.CPU == (specs.LinuxCPU{}) {
		r.CPU = nil
	}
	if r.Memory != nil && *r.Memory == (specs.LinuxMemory{}) {
		r.Memory = nil
	}
	if r.Pids != nil && r.Pids.Limit == nil {
		r.Pids = nil
	}
	if r.BlockIO != nil && r.BlockIO.Weight == nil && len(r.BlockIO.ThrottleReadBpsDevice)+len(r.BlockIO.ThrottleWriteBpsDevice)+
		len(r.BlockIO.ThrottleReadIOPSDevice)+len(r.BlockIO.ThrottleWriteIOPSDevice)+len(r.BlockIO.WeightDevice) == 0 {
		r.BlockIO = nil
	}
	return r
}
