package engine

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"

	"davit/engine/container"
	"davit/oci/errdefs"
	"davit/task"
)

// follow hands the monitor's events to the containers until the connection is lost or the engine
// stops. An event is acknowledged once it and all before it are recorded.
func (l *lifecycle) follow(client *task.Client) {
	stream, err := client.Events(l.context, 0)
	if err != nil {
		l.Log.Error("follow the monitor", "error", err)
		return
	}
	acks := &acknowledgements{client: client, done: map[uint64]bool{}}
	for e := range stream {
		acks.expect(e.Sequence)
		go func() {
			l.handle(e)
			acks.finished(l.context, e.Sequence)
		}()
	}
}

func (l *lifecycle) handle(e task.Event) {
	if l.steps.handle(e) {
		return
	}
	a, err := l.roster.find(e.State.ID)
	if err != nil {
		if e.Type == task.EventExit {
			l.orphan(e.State)
		}
		return
	}
	switch e.Type {
	case task.EventExit:
		l.onExit(a, e.State)
	case task.EventExecExit:
		l.execs.onExit(a, e.State)
	case task.EventOOM:
		if r := a.record(); r.State.Status.Alive() {
			l.tellOOM(a, r)
		}
	}
}

// tellOOM publishes that the kernel killed a process of the container for its memory limit.
func (l *lifecycle) tellOOM(a *actor, r *container.Record) {
	a.mu.Lock()
	a.oomOf = r.State.StartedAt
	a.mu.Unlock()
	l.tell(r, events.ActionOOM, nil)
}

// orphan deletes a stopped task that no record knows: that of an engine which died while it removed it.
func (l *lifecycle) orphan(s task.State) {
	client, err := l.link.find(l.context)
	if err != nil {
		return
	}
	l.deleteTask(client, s.ID)
}

// onExit records the end of a container's program, gives back what it had of the host, and does what
// follows from the restart policy.
func (l *lifecycle) onExit(a *actor, s task.State) {
	ctx := l.context
	end, err := a.begin(ctx)
	if err != nil {
		return
	}
	defer end()
	r := a.record()
	if !r.State.Status.Alive() || s.StartedAt.Before(r.State.StartedAt) {
		return // that of a start which failed, or one that was handled before
	}
	a.stopTimers()
	l.execs.end(a)
	if s.OOMKilled && !a.oomTold() {
		l.tellOOM(a, r)
	}
	ended, decision := l.ended(r, s)
	switch {
	case decision.Restart:
		// Nobody may take the container for stopped while it comes back.
		l.teardown(ended)
		a.publish(ended)
		l.scheduleRetry(a, decision.After)
	case ended.GoesNow():
		a.publishExit(ended)
		l.vanish(ctx, a, ended)
		return
	default:
		a.publishExit(ended)
		l.teardown(ended)
	}
	l.journal.saveLater(ended)
}

// vanish removes a container that was to live as long as its program. Clients wait for its record to go:
// the task, which nobody can ask about any more, is deleted after that. When the engine dies in between,
// the next one deletes tasks that no record knows.
func (l *lifecycle) vanish(ctx context.Context, a *actor, r *container.Record) {
	var all sync.WaitGroup
	all.Go(func() { l.detach(r.ID) })
	all.Go(func() { l.removeSnapshot(r.ID) }) // its processes are gone; remove finds nothing left to do
	all.Wait()
	l.unmountVolumes(r)
	if err := l.remove(ctx, a, true); err != nil {
		l.Log.Error("remove container", "container", a.id, "error", err)
	}
	l.forgetTask(r.ID)
}

// ended returns the record after the exit, and what is to follow.
func (l *lifecycle) ended(r *container.Record, s task.State) (*container.Record, container.Decision) {
	after := r.State
	after.ExitCode, after.FinishedAt, after.OOMKilled = s.ExitCode, s.ExitedAt.UTC(), s.OOMKilled
	decision := container.Decide(r.HostConfig.RestartPolicy, after)
	event := container.EventExit
	if decision.Restart {
		event, after.Backoff = container.EventRetry, decision.After
		after.RestartCount++
	}
	ended, err := r.Apply(event, func(s *container.State) {
		status := s.Status
		*s = after
		s.Status, s.Pid, s.Networks, s.Ports = status, 0, nil, nil
	})
	if err != nil {
		l.Log.Error("record exit", "container", r.ID, "error", err)
		return r, container.Decision{}
	}
	l.tell(ended, events.ActionDie, map[string]string{
		"exitCode": strconv.Itoa(s.ExitCode), "execDuration": strconv.Itoa(int(after.FinishedAt.Sub(after.StartedAt).Seconds())),
	})
	return ended, decision
}

// teardown gives back addresses, ports, the task's cgroup and mounted volumes.
func (l *lifecycle) teardown(r *container.Record) {
	var all sync.WaitGroup
	all.Go(func() { l.detach(r.ID) })
	all.Go(func() { l.forgetTask(r.ID) })
	all.Wait()
	l.unmountVolumes(r)
}

func (l *lifecycle) forgetTask(id string) {
	client, err := l.link.find(l.context)
	if err != nil {
		l.Log.Error("delete task", "container", id, "error", err)
		return
	}
	l.deleteTask(client, id)
}

// scheduleRetry starts a container again after a while, unless it is stopped or removed before.
func (l *lifecycle) scheduleRetry(a *actor, after time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.retry = time.AfterFunc(after, func() { l.retry(a) })
}

func (l *lifecycle) retry(a *actor) {
	end, err := a.begin(l.context)
	if err != nil {
		return
	}
	defer end()
	if a.record().State.Status != container.Restarting {
		return
	}
	if err := l.start(l.context, a); err != nil {
		l.Log.Warn("restart container", "container", a.id, "error", err)
	}
}

// remove makes a container that does not run disappear; the caller has its turn.
func (l *lifecycle) remove(ctx context.Context, a *actor, volumes bool) error {
	r := a.record()
	removing, err := r.Apply(container.EventRemove, nil)
	if err != nil {
		return errdefs.Conflict("removal of container %s is already in progress", r.Name)
	}
	a.stopTimers()
	a.publish(removing)
	for _, w := range a.takeWaiting() {
		close(w.conn)
	}
	if err := l.dismantle(ctx, removing, volumes); err != nil {
		dead, _ := removing.Apply(container.EventLeave, func(s *container.State) { s.Error = err.Error() })
		a.publish(dead)
		l.journal.saveLater(dead)
		return err
	}
	gone, err := removing.Apply(container.EventGone, nil)
	if err != nil {
		return err
	}
	l.roster.drop(a)
	l.tell(gone, events.ActionDestroy, nil)
	a.publish(gone)
	return nil
}

// dismantle deletes what furnish made, the record last.
func (l *lifecycle) dismantle(ctx context.Context, r *container.Record, volumes bool) error {
	if err := l.Snapshots.Remove(ctx, r.ID); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	for _, dir := range []string{r.Dir, l.logDir(r.ID)} {
		if err := removeAll(dir); err != nil {
			return err
		}
	}
	if r.HostConfig.IpcMode.IsShareable() {
		if err := removeAll(l.shmDir(r.ID)); err != nil {
			return err
		}
	}
	if volumes {
		l.removeAnonymous(ctx, r)
	}
	if err := l.journal.forget(r); err != nil {
		return err
	}
	if r.UserNS.Mode == container.UserPrivate {
		l.ids.release(r.UserNS.Base)
	}
	return nil
}

// acknowledgements tells the monitor up to where events are recorded, though they are handled side by
// side.
type acknowledgements struct {
	client *task.Client

	mu    sync.Mutex
	queue []uint64 // in order of arrival
	done  map[uint64]bool
}

func (a *acknowledgements) expect(sequence uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.queue = append(a.queue, sequence)
}

func (a *acknowledgements) finished(ctx context.Context, sequence uint64) {
	if last := a.advance(sequence); last > 0 {
		// Lost with the connection, it is told again, which handle bears.
		_ = a.client.Acknowledge(ctx, last)
	}
}

// advance returns the last sequence that may be acknowledged now, 0 for none.
func (a *acknowledgements) advance(sequence uint64) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.done[sequence] = true
	last := uint64(0)
	for len(a.queue) > 0 && a.done[a.queue[0]] {
		last = a.queue[0]
		delete(a.done, last)
		a.queue = a.queue[1:]
	}
	return last
}
