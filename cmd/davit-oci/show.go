package main

import (
	"context"
	"fmt"
	"os/exec"
	"os/user"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"davit/ociruntime"
)

// shownState is the state as runc prints it: the specification's fields and a few more.
type shownState struct {
	Version     string            `json:"ociVersion"`
	ID          string            `json:"id"`
	Pid         int               `json:"pid"`
	Status      string            `json:"status"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Owner       string            `json:"owner"`
}

func show(ctx context.Context, c *ociruntime.Container) (shownState, error) {
	st, err := c.State(ctx)
	if err != nil {
		return shownState{}, err
	}
	d := c.Details()
	owner := "#" + strconv.Itoa(d.Owner)
	if u, err := user.LookupId(strconv.Itoa(d.Owner)); err == nil {
		owner = u.Username
	}
	return shownState{
		Version: st.Version, ID: st.ID, Pid: st.Pid, Status: string(st.Status), Bundle: st.Bundle,
		Rootfs: d.Rootfs, Created: d.Created, Annotations: st.Annotations, Owner: owner,
	}, nil
}

func (a *app) state(ctx context.Context, args []string) error {
	rest, err := parse(a.flags("state"), args, 1, 1)
	if err != nil {
		return err
	}
	c, err := a.load(ctx, rest[0], false)
	if err != nil {
		return err
	}
	st, err := show(ctx, c)
	if err != nil {
		return err
	}
	return a.printJSON(st)
}

func (a *app) list(ctx context.Context, args []string) error {
	f := a.flags("list")
	quiet := f.Bool("quiet", false, "ids only")
	f.BoolVar(quiet, "q", false, "same as --quiet")
	format := f.String("format", "table", "table or json")
	f.StringVar(format, "f", "table", "same as --format")
	if _, err := parse(f, args, 0, 0); err != nil {
		return err
	}
	states, err := a.states(ctx)
	switch {
	case err != nil:
		return err
	case *quiet:
		for _, st := range states {
			fmt.Fprintln(a.stdout, st.ID)
		}
		return nil
	case *format == "json":
		return a.printJSON(states)
	}
	w := tabwriter.NewWriter(a.stdout, 12, 1, 3, ' ', 0)
	fmt.Fprintln(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER")
	for _, st := range states {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", st.ID, st.Pid, st.Status, st.Bundle, st.Created.Format(time.RFC3339Nano), st.Owner)
	}
	return w.Flush()
}

func (a *app) states(ctx context.Context) ([]shownState, error) {
	r, err := a.runtime(false)
	if err != nil {
		return nil, err
	}
	ids, err := r.List(ctx)
	if err != nil {
		return nil, err
	}
	states := []shownState{}
	for _, id := range ids {
		c, err := r.Load(ctx, id)
		if err != nil {
			continue // deleted since
		}
		st, err := show(ctx, c)
		c.Close()
		if err != nil {
			return nil, err
		}
		states = append(states, st)
	}
	return states, nil
}

func (a *app) ps(ctx context.Context, args []string) error {
	f := a.flags("ps")
	format := f.String("format", "table", "table or json")
	f.StringVar(format, "f", "table", "same as --format")
	rest, err := parse(f, args, 1, -1)
	if err != nil {
		return err
	}
	c, err := a.load(ctx, rest[0], false)
	if err != nil {
		return err
	}
	pids, err := c.Pids(ctx)
	if err != nil {
		return err
	}
	if *format == "json" {
		return a.printJSON(pids)
	}
	options := rest[1:]
	if len(options) == 0 {
		options = []string{"-ef"}
	}
	out, err := exec.CommandContext(ctx, "ps", options...).Output()
	if err != nil {
		return fmt.Errorf("run ps: %w", err)
	}
	return a.printProcesses(string(out), pids)
}

// printProcesses prints the header of ps's output and the lines of the given processes.
func (a *app) printProcesses(out string, pids []int) error {
	lines := strings.Split(strings.TrimRight(out, "\n"), "\n")
	column := slices.Index(strings.Fields(lines[0]), "PID")
	if column < 0 {
		return fmt.Errorf("ps prints no PID column")
	}
	fmt.Fprintln(a.stdout, lines[0])
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		if len(fields) <= column {
			continue
		}
		if pid, err := strconv.Atoi(fields[column]); err == nil && slices.Contains(pids, pid) {
			fmt.Fprintln(a.stdout, line)
		}
	}
	return nil
}

// programVersion is the version control's, as the build noted it.
func programVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
