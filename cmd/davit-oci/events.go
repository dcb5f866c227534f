package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/kernel/cgroup"
	"davit/ociruntime"
)

// event is one line of the events verb, in runc's form.
type event struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	Data any    `json:"data,omitempty"`
}

func (a *app) events(ctx context.Context, args []string) error {
	f := a.flags("events")
	once := f.Bool("stats", false, "print the statistics once")
	interval := f.Duration("interval", 5*time.Second, "time between statistics")
	rest, err := parse(f, args, 1, 1)
	if err != nil {
		return err
	}
	if *interval <= 0 {
		return fmt.Errorf("interval %s is not above zero", *interval)
	}
	c, err := a.load(ctx, rest[0], false)
	if err != nil {
		return err
	}
	if err := a.printStats(c); err != nil || *once {
		return err
	}
	return a.watch(ctx, c, *interval)
}

// watch prints statistics, and out-of-memory kills as they are counted, until the container ends.
func (a *app) watch(ctx context.Context, c *ociruntime.Container, interval time.Duration) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	kills, err := c.OOMKills()
	if err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		st, err := c.State(ctx)
		if err != nil || st.Status == specs.StateStopped {
			return err
		}
		now, err := c.OOMKills()
		if err != nil {
			return err
		}
		if now > kills {
			kills = now
			if err := a.printEvent(event{Type: "oom", ID: c.ID}); err != nil {
				return err
			}
		}
		if err := a.printStats(c); err != nil {
			return err
		}
	}
}

func (a *app) printStats(c *ociruntime.Container) error {
	s, err := c.Stats()
	if err != nil {
		return err
	}
	return a.printEvent(event{Type: "stats", ID: c.ID, Data: statsData(s)})
}

func (a *app) printEvent(e event) error { return json.NewEncoder(a.stdout).Encode(e) }

type fields map[string]any

// statsData arranges the counters as runc does.
func statsData(s cgroup.Stats) fields {
	blkio := []fields{}
	for _, d := range s.Blkio {
		blkio = append(blkio,
			fields{"major": d.Major, "minor": d.Minor, "op": "Read", "value": d.ReadBytes},
			fields{"major": d.Major, "minor": d.Minor, "op": "Write", "value": d.WriteBytes})
	}
	return fields{
		"cpu": fields{
			"usage": fields{"total": s.CPU.Total, "percpu": s.CPU.PerCPU, "kernel": s.CPU.System, "user": s.CPU.User},
			"throttling": fields{
				"periods": s.CPU.Periods, "throttledPeriods": s.CPU.ThrottledPeriods, "throttledTime": s.CPU.ThrottledTime,
			},
		},
		"memory": fields{
			"usage": fields{"limit": s.Memory.Limit, "usage": s.Memory.Usage, "max": s.Memory.MaxUsage, "failcnt": s.Memory.Failures},
			"swap":  fields{"usage": s.Memory.SwapUsage},
			"raw":   s.Memory.Raw,
		},
		"pids":  fields{"current": s.Pids.Current, "limit": s.Pids.Limit},
		"blkio": fields{"ioServiceBytesRecursive": blkio},
	}
}
