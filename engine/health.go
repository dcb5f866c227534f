package engine

import (
	"context"
	"errors"
	"slices"
	"time"

	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"davit/engine/container"
)

// What a health check does where it does not say otherwise, as in Docker.
const (
	healthInterval      = 30 * time.Second
	healthTimeout       = 30 * time.Second
	healthStartInterval = 5 * time.Second
	healthRetries       = 3
	healthResults       = 5 // kept for inspect

	// tryInterval is the wait between the checks of a container that is to take over from another, in the
	// time before its first check would be due: they can only bring good news early.
	tryInterval = 500 * time.Millisecond
)

// checked says whether a container has a health check.
func checked(r *container.Record) bool {
	h := r.Config.Healthcheck
	return h != nil && len(h.Test) > 0 && h.Test[0] != "NONE"
}

func initialHealth(r *container.Record) *wire.Health {
	if !checked(r) {
		return nil
	}
	return &wire.Health{Status: wire.Starting, Log: []*wire.HealthcheckResult{}}
}

// watchHealth begins to check a running container's health.
func (l *lifecycle) watchHealth(a *actor, r *container.Record) {
	if !checked(r) || !r.State.Status.Alive() {
		return
	}
	ctx, cancel := context.WithCancel(l.context)
	a.mu.Lock()
	a.probing = cancel
	a.mu.Unlock()
	go l.probe(ctx, a, r.State.StartedAt)
}

// probe checks again and again until ctx ends.
func (l *lifecycle) probe(ctx context.Context, a *actor, since time.Time) {
	h := a.record().Config.Healthcheck
	timer := time.NewTimer(interval(h, a.record(), since, l.Now()))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if a.record().State.Status == container.Running {
			result := l.check(ctx, a, h)
			if ctx.Err() != nil {
				return
			}
			l.recordHealth(ctx, a, h, result, since)
		}
		timer.Reset(interval(h, a.record(), since, l.Now()))
	}
}

// interval is the wait before the next check: shorter while the container starts.
func interval(h *wire.HealthConfig, r *container.Record, since, now time.Time) time.Duration {
	if early(h, r, since, now) {
		return min(tryInterval, orElse(h.Interval, healthInterval))
	}
	usual, left := orElse(h.Interval, healthInterval), h.StartPeriod-now.Sub(since)
	if left > 0 && r.State.Health != nil && r.State.Health.Status == wire.Starting {
		return min(orElse(h.StartInterval, healthStartInterval), max(left, time.Millisecond), usual)
	}
	return usual
}

// early says whether a check is one that only a container on trial gets.
func early(h *wire.HealthConfig, r *container.Record, since, at time.Time) bool {
	return r.Trying() && at.Sub(since) < orElse(h.Interval, healthInterval)
}

func orElse(d, other time.Duration) time.Duration {
	if d == 0 {
		return other
	}
	return d
}

func (l *lifecycle) check(ctx context.Context, a *actor, h *wire.HealthConfig) *wire.HealthcheckResult {
	command := h.Test[1:]
	if h.Test[0] == "CMD-SHELL" {
		shell := a.record().Config.Shell
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		command = append(slices.Clone(shell), h.Test[1])
	}
	timeout := orElse(h.Timeout, healthTimeout)
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	result := &wire.HealthcheckResult{Start: l.Now()}
	code, output, err := l.execs.capture(limited, a, command)
	result.End, result.ExitCode, result.Output = l.Now(), code, output
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		result.ExitCode, result.Output = -1, "Health check exceeded timeout ("+timeout.String()+")"
	case err != nil:
		result.ExitCode, result.Output = -1, err.Error()
	}
	return result
}

// recordHealth publishes a result and tells when the status changed.
func (l *lifecycle) recordHealth(ctx context.Context, a *actor, h *wire.HealthConfig, result *wire.HealthcheckResult, since time.Time) {
	end, err := a.begin(ctx)
	if err != nil {
		return
	}
	defer end()
	r := a.record().Clone()
	if !r.State.Status.Alive() || r.State.Health == nil {
		return
	}
	old := r.State.Health
	grace := result.Start.Sub(since) < h.StartPeriod || early(h, r, since, result.Start)
	next := assess(old, h, result, grace)
	r.State.Health = next
	a.publish(r)
	if next.Status != old.Status {
		l.journal.saveLater(r)
		l.tell(r, events.Action("health_status: "+string(next.Status)), nil)
	}
}

// assess returns the health after a result. While the container has time to start, failures do not
// count.
func assess(old *wire.Health, h *wire.HealthConfig, result *wire.HealthcheckResult, grace bool) *wire.Health {
	next := &wire.Health{Status: old.Status, FailingStreak: old.FailingStreak, Log: append(slices.Clone(old.Log), result)}
	if n := len(next.Log); n > healthResults {
		next.Log = next.Log[n-healthResults:]
	}
	retries := h.Retries
	if retries == 0 {
		retries = healthRetries
	}
	switch {
	case result.ExitCode == 0:
		next.FailingStreak, next.Status = 0, wire.Healthy
	case grace && old.Status == wire.Starting:
	default:
		next.FailingStreak++
		if next.FailingStreak >= retries {
			next.Status = wire.Unhealthy
		}
	}
	return next
}
