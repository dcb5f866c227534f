package engine

import (
	"context"
	"fmt"
	"time"

	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"

	"davit/engine/container"
	"davit/oci/errdefs"
)

// RemoveOptions say how to remove.
type RemoveOptions struct {
	Force   bool // kill it first if it runs
	Volumes bool // with its anonymous volumes
	Link    bool // only the link of that name, which there is none of
}

// Remove removes a container.
func (c *Containers) Remove(ctx context.Context, name string, o RemoveOptions) error {
	a, err := c.roster.find(name)
	if err != nil {
		return err
	}
	if o.Link {
		return errdefs.Invalid("cannot get parent /%s for name /%s", "", name)
	}
	ctx = context.WithoutCancel(ctx)
	if s := a.record().State.Status; s.Alive() || s == container.Restarting {
		if !o.Force {
			return errRunning(a.record())
		}
		if err := c.Kill(ctx, a.id, ""); err != nil && a.record().State.Status.Alive() {
			return fmt.Errorf("cannot remove container %q: could not kill: %w", "/"+a.record().Name, err)
		}
	}
	end, err := a.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	switch a.record().State.Status {
	case container.Removed:
		return nil // it was to be removed at its end
	case container.Running, container.Paused, container.Restarting:
		return errRunning(a.record())
	}
	return c.life.remove(ctx, a, o.Volumes || a.record().AutoRemove())
}

func errRunning(r *container.Record) error {
	advice := "stop the container before removing or force remove"
	if r.State.Status == container.Paused {
		advice = "container is paused and must be unpaused first"
	}
	return errdefs.Conflict("cannot remove container %q: container is %s: %s", "/"+r.Name, r.State.Status.Shown(), advice)
}

// removeAnonymous removes the volumes that nobody named and nobody else uses.
func (s *shared) removeAnonymous(ctx context.Context, r *container.Record) {
	for _, m := range r.Mounts {
		if m.Type != mount.TypeVolume || !m.Anonymous || len(s.volumeUsers(m.Name, r.ID)) > 0 {
			continue
		}
		if err := s.Options.Volumes.Remove(ctx, m.Name, nil); err != nil {
			s.Log.Warn("remove volume", "volume", m.Name, "error", err)
			continue
		}
		s.bus.Publish(events.VolumeEventType, events.ActionDestroy, m.Name, map[string]string{"driver": "local"})
	}
}

// volumeUsers returns the ids of the containers that use a volume, but for one.
func (s *shared) volumeUsers(volume, except string) []string {
	users := []string{}
	for _, a := range s.roster.all() {
		if a.id == except {
			continue
		}
		for _, m := range a.record().Mounts {
			if m.Type == mount.TypeVolume && m.Name == volume {
				users = append(users, a.id)
				break
			}
		}
	}
	return users
}

// PruneFilter selects containers to prune.
type PruneFilter struct {
	Until time.Time // created before; zero: all
	Match func(labels map[string]string) bool
}

// Prune removes the containers that do not run.
func (c *Containers) Prune(ctx context.Context, f PruneFilter) (wire.PruneReport, error) {
	report := wire.PruneReport{ContainersDeleted: []string{}}
	for _, a := range c.roster.all() {
		r := a.record()
		if s := r.State.Status; s != container.Exited && s != container.Created && s != container.Dead {
			continue
		}
		if (!f.Until.IsZero() && !r.Created.Before(f.Until)) || !f.Match(r.Config.Labels) {
			continue
		}
		bytes, err := c.containerDisk(ctx, r)
		if err != nil {
			c.Log.Warn("measure container", "container", a.id, "error", err)
		}
		if err := c.Remove(ctx, a.id, RemoveOptions{}); err != nil {
			c.Log.Warn("prune container", "container", a.id, "error", err)
			continue
		}
		report.ContainersDeleted = append(report.ContainersDeleted, a.id)
		report.SpaceReclaimed += uint64(bytes)
	}
	if err := c.Snapshots.Wait(ctx); err != nil {
		return report, err
	}
	c.bus.Publish(events.ContainerEventType, events.ActionPrune, "", map[string]string{"reclaimed": fmt.Sprint(report.SpaceReclaimed)})
	return report, nil
}
