package engine

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	wire "github.com/moby/moby/api/types/container"

	"davit/kernel/cgroup"
	"davit/oci/errdefs"
)

func procNS(pid int) string   { return fmt.Sprintf("/proc/%d/ns/net", pid) }
func procRoot(pid int) string { return fmt.Sprintf("/proc/%d/root", pid) }

// Top lists a container's processes as the host's ps shows them, with its options.
func (v *Views) Top(ctx context.Context, name, psArgs string) (wire.TopResponse, error) {
	a, err := v.roster.find(name)
	if err != nil {
		return wire.TopResponse{}, err
	}
	r := a.record()
	if !r.State.Status.Alive() {
		return wire.TopResponse{}, errdefs.Conflict("container %s is not running", r.ID)
	}
	if psArgs == "" {
		psArgs = "-ef"
	}
	pids, err := v.pids(r.State.Cgroup)
	if err != nil {
		return wire.TopResponse{}, err
	}
	out, err := exec.CommandContext(ctx, "ps", strings.Fields(psArgs)...).Output()
	if err != nil {
		return wire.TopResponse{}, errdefs.New(errdefs.ErrInvalid, "ps: %w", err)
	}
	return parsePS(string(out), pids)
}

func (s *shared) pids(path string) ([]int, error) {
	g, err := cgroup.Load(path)
	if err != nil {
		return nil, err
	}
	defer g.Close()
	return g.Pids()
}

// parsePS keeps the lines of ps whose PID column is among pids.
func parsePS(out string, pids []int) (wire.TopResponse, error) {
	lines := strings.Split(strings.TrimRight(out, "\n"), "\n")
	titles := strings.Fields(lines[0])
	column := slices.Index(titles, "PID")
	if column < 0 {
		return wire.TopResponse{}, errdefs.Invalid("Couldn't find PID field in ps output")
	}
	top := wire.TopResponse{Titles: titles, Processes: [][]string{}}
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		if len(fields) <= column {
			continue
		}
		pid, err := strconv.Atoi(fields[column])
		if err != nil || !slices.Contains(pids, pid) {
			continue
		}
		if last := len(titles) - 1; len(fields) > len(titles) {
			fields = append(fields[:last:last], strings.Join(fields[last:], " "))
		}
		top.Processes = append(top.Processes, fields)
	}
	return top, nil
}
