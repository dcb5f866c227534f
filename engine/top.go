package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"

	wire "github.com/moby/moby/api/types/container"

	"davit/engine/container"
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
	out, err := ps(ctx, strings.Fields(psArgs), pids)
	if err != nil {
		return wire.TopResponse{}, err
	}
	top, err := parsePS(out, pids)
	if err == nil && r.UserNS.Mode != container.UserHost {
		nameUsers(top, r.UserNS)
	}
	return top, err
}

// ps runs the host's ps for some processes: by their ids, or with options that exclude such a choice, for
// all.
func ps(ctx context.Context, args []string, pids []int) (string, error) {
	var list []string
	for _, pid := range pids {
		list = append(list, strconv.Itoa(pid))
	}
	out, err := exec.CommandContext(ctx, "ps", append(slices.Clone(args), "-q"+strings.Join(list, ","))...).Output()
	if err != nil {
		out, err = exec.CommandContext(ctx, "ps", args...).Output()
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		message, _, _ := strings.Cut(strings.TrimSpace(string(exit.Stderr)), "\n")
		return "", errdefs.Invalid("ps: %s", message)
	}
	if err != nil {
		return "", errdefs.New(errdefs.ErrInvalid, "ps: %w", err)
	}
	return string(out), nil
}

// nameUsers puts the users of the container in place of the ids that they have on the host.
func nameUsers(top wire.TopResponse, ns container.UserNamespace) {
	pid := slices.Index(top.Titles, "PID")
	for column, title := range top.Titles {
		if title != "UID" && title != "USER" && title != "RUSER" && title != "EUSER" {
			continue
		}
		for _, process := range top.Processes {
			info, err := os.Stat("/proc/" + process[pid])
			if err != nil {
				continue // it ended
			}
			if id := info.Sys().(*syscall.Stat_t).Uid; id >= ns.Base && id-ns.Base < ns.Size {
				process[column] = userName(id - ns.Base)
			}
		}
	}
}

// userName is the host's name for an id, as ps shows it without user namespaces.
func userName(id uint32) string {
	number := strconv.FormatUint(uint64(id), 10)
	if u, err := user.LookupId(number); err == nil {
		return u.Username
	}
	return number
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
