package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	wire "github.com/moby/moby/api/types/container"

	"davit/engine/container"
	"davit/store/logs"
)

const (
	// plainPatience is how long a container without health check may take to listen where its predecessor does.
	plainPatience = time.Minute
	// lookInterval is the time between two looks at sockets, of which the kernel tells no news.
	lookInterval = 100 * time.Millisecond
	// lastLines is how much of a container's output says why it ended.
	lastLines = 5
)

// servedPorts are the published TCP ports at which the old container listens: where the new one has to.
func (l *lifecycle) servedPorts(old, next *container.Record) []uint16 {
	if !old.State.Status.Alive() || !publishes(old) {
		return nil
	}
	requests, err := portRequests(next)
	if err != nil {
		return nil
	}
	now, err := readSockets(old.State.Pid)
	if err != nil {
		return nil
	}
	var ports []uint16
	for _, q := range requests {
		if q.Proto == "tcp" && now.listening[q.ContainerPort] && !slices.Contains(ports, q.ContainerPort) {
			ports = append(ports, q.ContainerPort)
		}
	}
	return ports
}

// prove waits until a container has shown that it works: by its health check; without one by running for
// a while and listening at the ports. The error says why it has not.
func (l *lifecycle) prove(ctx context.Context, a *actor, ports []uint16, o ReplaceOptions) error {
	r := a.record()
	limit := o.Timeout
	if limit == 0 {
		limit = longestTrial(r)
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	why := ""
	if checked(r) {
		v, err := a.await(limited, func(v *view) bool {
			return failed(v) || v.State.Health != nil && v.State.Health.Status != wire.Starting
		})
		if err == nil && !failed(v) && v.State.Health.Status == wire.Healthy {
			return nil
		}
		why = lastCheck(v.Record)
	} else if why = l.watchPlain(limited, a, ports, max(o.Grace, lookInterval)); why == "" {
		return nil
	}
	switch v := a.view(); {
	case failed(v):
		return fmt.Errorf("the new container ended with exit code %d%s", v.State.ExitCode, l.lastOutput(ctx, v.Record))
	case ctx.Err() != nil:
		return fmt.Errorf("replacing was canceled: %w", context.Cause(ctx))
	case limited.Err() != nil:
		return fmt.Errorf("the new container was not healthy within %s: %s", limit, why)
	}
	return fmt.Errorf("the new container is unhealthy: %s", why)
}

// failed says that a container on trial has ended, whether its policy starts it again or not.
func failed(v *view) bool {
	return !v.State.Status.Alive() && v.State.Status != container.Starting || v.State.RestartCount > 0
}

// longestTrial is how long a container's health check can take to come to a result.
func longestTrial(r *container.Record) time.Duration {
	if !checked(r) {
		return plainPatience
	}
	h := r.Config.Healthcheck
	retries := h.Retries
	if retries == 0 {
		retries = healthRetries
	}
	each := orElse(h.Interval, healthInterval) + orElse(h.Timeout, healthTimeout)
	return h.StartPeriod + time.Duration(retries+1)*each
}

// watchPlain waits until the program has run for the grace period and listens at the ports; else it
// returns what is missing.
func (l *lifecycle) watchPlain(ctx context.Context, a *actor, ports []uint16, grace time.Duration) string {
	ready := time.NewTimer(grace)
	defer ready.Stop()
	look := time.NewTicker(lookInterval)
	defer look.Stop()
	graceOver, why := false, "it has not run long enough"
	for {
		v := a.view()
		if failed(v) {
			return "it ended"
		}
		if graceOver {
			if why = missingPorts(v.Record, ports); why == "" {
				return ""
			}
		}
		select {
		case <-ready.C:
			graceOver = true
		case <-look.C:
		case <-v.changed:
		case <-ctx.Done():
			return why
		}
	}
}

// missingPorts says at which of the ports a container does not listen.
func missingPorts(r *container.Record, ports []uint16) string {
	if len(ports) == 0 {
		return ""
	}
	now, err := readSockets(r.State.Pid)
	if err != nil {
		return err.Error()
	}
	for _, port := range ports {
		if !now.listening[port] {
			return fmt.Sprintf("it does not listen on port %d/tcp, as the old one does", port)
		}
	}
	return ""
}

// lastCheck is what a container's last health check said.
func lastCheck(r *container.Record) string {
	h := r.State.Health
	if h == nil || len(h.Log) == 0 {
		return "its health check has not been run yet"
	}
	last := h.Log[len(h.Log)-1]
	said := strings.TrimSpace(last.Output)
	if said == "" {
		said = "(no output)"
	}
	return fmt.Sprintf("its health check said, with exit code %d: %s", last.ExitCode, said)
}

// lastOutput is the end of a container's output, for an error message.
func (l *lifecycle) lastOutput(ctx context.Context, r *container.Record) string {
	if r.LogPath == "" {
		return ""
	}
	var text strings.Builder
	tail := lastLines
	for entry, err := range logs.Read(context.WithoutCancel(ctx), r.LogPath, logs.Options{Stdout: true, Stderr: true, Tail: &tail}) {
		if err != nil {
			break
		}
		text.Write(entry.Line)
	}
	if text.Len() == 0 {
		return ", without output"
	}
	return "; its last output was:\n" + strings.TrimRight(text.String(), "\n")
}

// drain waits until no connection to what a container listens at is left, or for as long as it may take.
// Two looks have to agree: a connection may be on its way to the container as the first is taken.
func (l *lifecycle) drain(ctx context.Context, a *actor, limit time.Duration) error {
	if r := a.record(); limit <= 0 || !publishes(r) && len(r.Endpoints) == 0 || r.HostConfig.NetworkMode.IsHost() {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	look := time.NewTicker(lookInterval)
	defer look.Stop()
	for quiet := 0; quiet < 2; {
		v := a.view()
		if !v.State.Status.Alive() {
			return nil
		}
		now, err := readSockets(v.State.Pid)
		if err != nil {
			return nil // it ended this moment
		}
		quiet++
		if now.served() > 0 {
			quiet = 0
		}
		select {
		case <-look.C:
		case <-v.changed:
		case <-limited.Done():
			if errors.Is(limited.Err(), context.DeadlineExceeded) {
				return nil
			}
			return limited.Err()
		}
	}
	return nil
}
