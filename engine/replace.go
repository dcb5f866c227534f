package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	wirenet "github.com/moby/moby/api/types/network"

	"davit/engine/container"
	"davit/image"
	"davit/oci/errdefs"
)

// The events of containers that take over, which Docker has no words for.
const (
	actionReplace events.Action = "replace"
	actionGoBack  events.Action = "replace_undone"
)

// ReplaceOptions say how a container gets another image.
type ReplaceOptions struct {
	Image     string        // empty: what the container's own name of its image means now
	Timeout   time.Duration // for the new one to become healthy; 0: what its health check can take, or a minute
	Grace     time.Duration // how long one without health check has to run
	Drain     time.Duration // how long connections to the old one may go on; 0: they end when it does
	Keep      bool          // keep the old one, stopped
	StopFirst bool          // stop the old one before the new one starts
	Force     bool          // even if it has that image already
}

// Replaced is what replacing came to.
type Replaced struct {
	ID    string // of the new container
	Image image.Image
	Kept  string // name of the old one, if it was kept
}

// Replace starts a container from another image beside the old one, with the same configuration, and when
// it is healthy moves name, aliases and published ports to it and stops the old one. When it does not
// become healthy, or ctx ends before, it is removed and the old one goes on as if nothing had been.
// report gets a line before each step.
func (c *Containers) Replace(ctx context.Context, name string, o ReplaceOptions, report func(string)) (Replaced, error) {
	old, err := c.roster.find(name)
	if err != nil {
		return Replaced{}, err
	}
	if !old.replacing.CompareAndSwap(false, true) {
		return Replaced{}, errdefs.Conflict("container %s is being replaced already", old.record().Name)
	}
	defer old.replacing.Store(false)
	img, err := c.checkReplace(ctx, old.record(), &o)
	if err != nil {
		return Replaced{}, err
	}
	r := old.record()
	s := container.Succession{
		Old: r.ID, Name: r.Name, OldName: c.freeName(r.Name+".old", r.ID), Keep: o.Keep, Drain: o.Drain,
		Resume: o.StopFirst && r.State.Status.Alive(),
	}
	report(fmt.Sprintf("creating the new container from %s", o.Image))
	next, err := c.successor(ctx, r, o.Image, s)
	if err != nil {
		return Replaced{}, err
	}
	if err := c.life.try(ctx, old, next, o, report); err != nil {
		return Replaced{}, c.life.goBack(next, err, report)
	}
	// From here on it is to be finished, whoever waits for it.
	if err := c.life.retire(context.WithoutCancel(ctx), next, report); err != nil {
		return Replaced{}, fmt.Errorf("container %s is replaced, but its predecessor is left as %s: %w", s.Name, s.OldName, err)
	}
	done := Replaced{ID: next.id, Image: img}
	if o.Keep {
		done.Kept = s.OldName
	}
	return done, nil
}

// checkReplace refuses what could only fail later, and finds the new image.
func (c *Containers) checkReplace(ctx context.Context, r *container.Record, o *ReplaceOptions) (image.Image, error) {
	refuse := func(format string, args ...any) (image.Image, error) {
		return image.Image{}, errdefs.Conflict("cannot replace container "+r.Name+": "+format, args...)
	}
	switch s := r.State.Status; {
	case r.Succeeds != nil && c.life.knows(r.Succeeds.Old):
		return refuse("it is still taking over from container %s; if that does not end, remove that one", r.Succeeds.OldName)
	case s == container.Removing || s == container.Removed || s == container.Dead:
		return refuse("it is being removed")
	case s == container.Paused:
		return refuse("it is paused; unpause it first")
	case r.AutoRemove() && (o.StopFirst || o.Keep):
		return refuse("it was made with --rm and goes when it stops, so --stop-first and --keep have nothing to keep")
	}
	if !o.StopFirst {
		for network, e := range r.Endpoints {
			if e.IPAMConfig != nil && (e.IPAMConfig.IPv4Address.IsValid() || e.IPAMConfig.IPv6Address.IsValid()) || len(e.MacAddress) > 0 {
				return refuse("it has a fixed address in network %s, which two containers cannot have at once; use --stop-first", network)
			}
		}
	}
	for _, a := range c.roster.all() {
		if other := a.record(); other.State.Status.Alive() && joins(other.HostConfig, r) {
			return refuse("container %s lives in its namespaces and would be left behind; remove that one first", other.Name)
		}
	}
	if o.Image == "" {
		o.Image = r.Image.Name
	}
	img, err := c.resolveImage(ctx, CreateRequest{Config: &wire.Config{Image: o.Image}})
	if err == nil && img.ID == r.Image.ID && !o.Force {
		return img, errdefs.NotModified("container %s has image %s already", r.Name, o.Image)
	}
	return img, err
}

// joins says whether a container shares a namespace of another.
func joins(h *wire.HostConfig, with *container.Record) bool {
	for _, mode := range []string{string(h.NetworkMode), string(h.PidMode), string(h.IpcMode)} {
		if mode == "container:"+with.ID || mode == "container:"+with.Name {
			return true
		}
	}
	return false
}

// freeName returns a name, or if it is taken one like it.
func (c *Containers) freeName(name, id string) string {
	if _, err := c.roster.find(name); err == nil {
		return name + "-" + id[:6]
	}
	return name
}

// successor makes the container that is to take over: as the old one was asked for, with another image.
// Anonymous volumes are handed on.
func (c *Containers) successor(ctx context.Context, old *container.Record, image string, s container.Succession) (*actor, error) {
	asked := old.Asked
	if asked == nil {
		asked = old.Config
	}
	config := *asked
	config.Image = image
	q := CreateRequest{ID: newID(), Config: &config, HostConfig: old.HostConfig, Networking: &wirenet.NetworkingConfig{EndpointsConfig: old.Endpoints}}
	q.Name = c.freeName(old.Name+".next", q.ID)
	r, err := c.create(ctx, q, func(r *container.Record) {
		r.Succeeds, r.Endpoints = &s, old.Endpoints
		inheritVolumes(r.Mounts, old.Mounts)
	})
	if err != nil {
		return nil, err
	}
	return c.roster.find(r.ID)
}

// inheritVolumes gives volumes that would be new and nameless those that the old container has there.
func inheritVolumes(mounts, old []container.Mount) {
	for i := range mounts {
		m := &mounts[i]
		if m.Type != mount.TypeVolume || !m.Anonymous {
			continue
		}
		for _, o := range old {
			if o.Type == mount.TypeVolume && o.Destination == m.Destination {
				m.Name, m.Source = o.Name, ""
			}
		}
	}
}

// try brings the new container up, waits until it has shown that it works, and lets it take over.
func (l *lifecycle) try(ctx context.Context, old, next *actor, o ReplaceOptions, report func(string)) error {
	needed := l.servedPorts(old.record(), next.record())
	if next.record().Succeeds.Resume {
		report("stopping the old container")
		if _, err := l.stop(context.WithoutCancel(ctx), old, StopOptions{}, true); err != nil {
			return err
		}
	}
	report("starting " + next.record().Name + " and waiting until it is healthy")
	end, err := next.begin(ctx)
	if err != nil {
		return err
	}
	// A start that is given up halfway would leave its task with the monitor.
	err = l.start(context.WithoutCancel(ctx), next)
	end()
	if err != nil {
		return err
	}
	if err := l.prove(ctx, next, needed, o); err != nil {
		return err
	}
	report("moving name, aliases and published ports")
	return l.handOver(context.WithoutCancel(ctx), next)
}

// goBack removes a container that cannot take over, and returns why with what happened.
func (l *lifecycle) goBack(next *actor, cause error, report func(string)) error {
	s := next.record().Succeeds
	report("going back to the old container")
	l.Log.Warn("replace container: going back", "container", s.Old, "name", s.Name, "error", cause)
	err := errors.Join(cause, l.withdraw(context.WithoutCancel(l.context), next))
	if old, gone := l.roster.find(s.Old); gone == nil {
		l.tell(old.record(), actionGoBack, map[string]string{"reason": cause.Error()})
	}
	return errdefs.New(errdefs.ErrConflict, "container %s is not replaced, and goes on as it was: %w", s.Name, err)
}
