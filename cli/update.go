package cli

import (
	"fmt"
	"net/url"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"davit/cli/opts"
)

func (a *app) updateCommand() *cobra.Command {
	var u container.UpdateConfig
	var memory, reservation, swap, cpus, restart string
	var pids int64
	cmd := &cobra.Command{
		Use:   "update [OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Update configuration of one or more containers",
		Args:  minArgs(1),
	}
	flags := cmd.Flags()
	flags.Uint16Var(&u.BlkioWeight, "blkio-weight", 0, "Block IO (relative weight), between 10 and 1000, or 0 to disable")
	flags.Int64Var(&u.CPUPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	flags.Int64Var(&u.CPUQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	flags.Int64Var(&u.CPURealtimePeriod, "cpu-rt-period", 0, "Limit the CPU real-time period in microseconds")
	flags.Int64Var(&u.CPURealtimeRuntime, "cpu-rt-runtime", 0, "Limit the CPU real-time runtime in microseconds")
	flags.Int64VarP(&u.CPUShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	flags.StringVar(&cpus, "cpus", "", "Number of CPUs")
	flags.StringVar(&u.CpusetCpus, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	flags.StringVar(&u.CpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	flags.StringVarP(&memory, "memory", "m", "", "Memory limit")
	flags.StringVar(&reservation, "memory-reservation", "", "Memory soft limit")
	flags.StringVar(&swap, "memory-swap", "", "Swap limit equal to memory plus swap: -1 to enable unlimited swap")
	flags.String("kernel-memory", "", "Kernel memory limit")
	flags.Int64Var(&pids, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	flags.StringVar(&restart, "restart", "", "Restart policy to apply when a container exits")
	_ = flags.MarkHidden("kernel-memory")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		for _, size := range []struct {
			into  *int64
			value string
			parse func(string) (int64, error)
		}{{&u.Memory, memory, opts.Bytes}, {&u.MemoryReservation, reservation, opts.Bytes}, {&u.MemorySwap, swap, opts.Swap}} {
			if *size.into, err = size.parse(size.value); err != nil {
				return err
			}
		}
		if cpus != "" {
			if u.NanoCPUs, err = opts.CPUs(cpus); err != nil {
				return err
			}
		}
		if flags.Changed("pids-limit") {
			u.PidsLimit = &pids
		}
		if restart != "" {
			if u.RestartPolicy, err = opts.Restart(restart); err != nil {
				return err
			}
		}
		engine, err := a.client()
		if err != nil {
			return err
		}
		return a.each(args, func(name string) error {
			var updated container.UpdateResponse
			err := engine.Post(cmd.Context(), "/containers/"+url.PathEscape(name)+"/update", nil, u, &updated)
			for _, warning := range updated.Warnings {
				fmt.Fprintln(a.err, warning)
			}
			return err
		})
	}
	return cmd
}
