package engine

import (
	"context"
	"fmt"

	"github.com/moby/moby/api/types/events"

	"davit/engine/container"
	"davit/oci/errdefs"
	"davit/task"
)

// Pause freezes all processes of a container.
func (c *Containers) Pause(ctx context.Context, name string) error {
	return c.freeze(ctx, name, container.EventPause, events.ActionPause, (*task.Client).Pause)
}

// Unpause thaws them.
func (c *Containers) Unpause(ctx context.Context, name string) error {
	return c.freeze(ctx, name, container.EventUnpause, events.ActionUnPause, (*task.Client).Resume)
}

func (c *Containers) freeze(ctx context.Context, name string, e container.Event, action events.Action, do func(*task.Client, context.Context, string) error) error {
	a, err := c.roster.find(name)
	if err != nil {
		return err
	}
	end, err := a.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	next, err := a.record().Apply(e, nil)
	if err != nil {
		return freezeError(a.record(), e)
	}
	client, err := c.link.get(ctx)
	if err != nil {
		return err
	}
	if err := do(client, ctx, a.id); err != nil {
		return err
	}
	a.publish(next)
	c.journal.saveLater(next)
	c.tell(next, action, nil)
	return nil
}

func freezeError(r *container.Record, e container.Event) error {
	switch {
	case e == container.EventUnpause:
		return fmt.Errorf("Container %s is not paused", r.ID)
	case r.State.Status == container.Paused:
		return errdefs.Conflict("Container %s is already paused", r.ID)
	case r.State.Status == container.Restarting:
		return errdefs.Conflict("Container %s is restarting, wait until the container is running", r.ID)
	}
	return errdefs.Conflict("Container %s is not running", r.ID)
}
