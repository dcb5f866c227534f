package engine

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/sys/signal"

	"davit/engine/container"
	"davit/oci/errdefs"
)

const (
	// stopTimeout is how long a program may take to end before it is killed.
	stopTimeout = 10 * time.Second
	// killPatience is how long the kernel may take for a SIGKILL.
	killPatience = 10 * time.Second
)

// StopOptions say how to stop.
type StopOptions struct {
	Signal  string // empty: the container's own
	Timeout *int   // seconds before SIGKILL; negative: never; nil: the container's own
}

// Stop ends a container's program: a signal, and after a while SIGKILL. Of one that does not run it
// returns errdefs.ErrNotModified.
func (c *Containers) Stop(ctx context.Context, name string, o StopOptions) error {
	a, err := c.roster.find(name)
	if err != nil {
		return err
	}
	stopped, err := c.life.stop(context.WithoutCancel(ctx), a, o, false)
	if err != nil {
		return err
	}
	if !stopped {
		return errdefs.NotModified("container %s is not running", a.record().Name)
	}
	c.tell(a.record(), events.ActionStop, nil)
	return nil
}

// Restart stops a container if it runs, and starts it.
func (c *Containers) Restart(ctx context.Context, name string, o StopOptions) error {
	a, err := c.roster.find(name)
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	stopped, err := c.life.stop(ctx, a, o, true)
	if err != nil {
		return err
	}
	if stopped {
		c.tell(a.record(), events.ActionStop, nil)
	}
	end, err := a.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if err := c.life.start(ctx, a); err != nil && !errors.Is(err, errdefs.ErrNotModified) {
		return err
	}
	c.tell(a.record(), events.ActionRestart, nil)
	return nil
}

// stop ends a container's program and returns when its exit is recorded; false when it did not run.
// With keep, the container stays even if it is one to be removed at its end.
func (l *lifecycle) stop(ctx context.Context, a *actor, o StopOptions, keep bool) (bool, error) {
	r, err := l.markStopped(ctx, a, keep)
	if err != nil || r == nil {
		return false, err
	}
	sig, err := stopSignal(r, o.Signal)
	if err != nil {
		return false, err
	}
	before := a.view().exits
	over := func(v *view) bool { return v.exits > before || !v.State.Status.Alive() }
	if err := l.signal(ctx, a, sig); err != nil && !errors.Is(err, errdefs.ErrConflict) {
		return false, err
	}
	wait, cancel := patience(ctx, timeoutOf(r, o.Timeout))
	defer cancel()
	if _, err := a.await(wait, over); err != nil {
		if err := l.signal(ctx, a, syscall.SIGKILL); err != nil && !errors.Is(err, errdefs.ErrConflict) {
			return false, err
		}
		wait, cancel := context.WithTimeout(ctx, killPatience)
		defer cancel()
		if _, err := a.await(wait, over); err != nil {
			return false, errdefs.New(errdefs.ErrUnavailable, "cannot stop container: %s: tried to kill container, but did not receive an exit event", r.Name)
		}
	}
	// The exit is published before its tear-down is over; who stops wants it over.
	end, err := a.begin(ctx)
	if err != nil {
		return false, err
	}
	end()
	return true, nil
}

// markStopped notes that a user wants the container down, so that no policy brings it up. It returns
// the record if the program runs, and ends the waiting of one that is to be restarted.
func (l *lifecycle) markStopped(ctx context.Context, a *actor, keep bool) (*container.Record, error) {
	end, err := a.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	r := a.record()
	switch {
	case r.State.Status == container.Restarting:
		a.stopTimers()
		down, err := r.Apply(container.EventGiveUp, func(s *container.State) { s.Stopped = true })
		if err != nil {
			return nil, err
		}
		a.publishExit(down)
		l.journal.saveLater(down)
		return nil, nil
	case !r.State.Status.Alive():
		return nil, nil
	}
	marked := r.Clone()
	marked.State.Stopped, marked.State.Keep = true, keep
	a.publish(marked)
	l.journal.saveLater(marked)
	return marked, nil
}

// patience is ctx with an end after a time, which never comes if the time is negative.
func patience(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout < 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, timeout)
}

func timeoutOf(r *container.Record, asked *int) time.Duration {
	if asked == nil {
		asked = r.Config.StopTimeout
	}
	if asked == nil {
		return stopTimeout
	}
	return time.Duration(*asked) * time.Second
}

func stopSignal(r *container.Record, asked string) (syscall.Signal, error) {
	if asked == "" {
		asked = r.Config.StopSignal
	}
	if asked == "" {
		return syscall.SIGTERM, nil
	}
	sig, err := signal.ParseSignal(asked)
	if err != nil {
		return 0, errdefs.As(errdefs.ErrInvalid, err)
	}
	return sig, nil
}

// signal sends a signal to the first process, which wakes for it if it is paused and is to die.
func (l *lifecycle) signal(ctx context.Context, a *actor, sig syscall.Signal) error {
	client, err := l.link.get(ctx)
	if err != nil {
		return err
	}
	err = client.Kill(ctx, a.id, "", sig, false)
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	l.tell(a.record(), events.ActionKill, map[string]string{"signal": signalNumber(sig)})
	if a.record().State.Status == container.Paused {
		return client.Resume(ctx, a.id)
	}
	return nil
}
