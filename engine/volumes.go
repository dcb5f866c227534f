package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	wire "github.com/moby/moby/api/types/volume"

	"davit/engine/container"
	"davit/oci/errdefs"
	"davit/store/volume"
)

// Volumes keeps named volumes.
type Volumes struct{ *shared }

// Create makes a volume, or returns the one there is.
func (v *Volumes) Create(ctx context.Context, q wire.CreateRequest) (wire.Volume, error) {
	if q.Driver != "" && q.Driver != "local" {
		return wire.Volume{}, errdefs.NotFound("error looking up volume plugin %s: plugin \"%s\" not found", q.Driver, q.Driver)
	}
	_, err := v.Options.Volumes.Get(ctx, q.Name)
	exists := q.Name != "" && err == nil
	made, err := v.Options.Volumes.Create(ctx, q.Name, q.Driver, q.DriverOpts, q.Labels)
	if err != nil {
		return wire.Volume{}, err
	}
	if !exists {
		v.bus.Publish(events.VolumeEventType, events.ActionCreate, made.Name, map[string]string{"driver": "local"})
	}
	return wireVolume(made), nil
}

func wireVolume(v volume.Volume) wire.Volume {
	return wire.Volume{
		Name: v.Name, Driver: "local", Mountpoint: v.Path, Scope: "local",
		CreatedAt: v.Created.Format(time.RFC3339), Labels: v.Labels, Options: v.Options,
	}
}

// Get returns a volume.
func (v *Volumes) Get(ctx context.Context, name string) (wire.Volume, error) {
	found, err := v.Options.Volumes.Get(ctx, name)
	if err != nil {
		return wire.Volume{}, err
	}
	return wireVolume(found), nil
}

// List returns the volumes that match.
func (v *Volumes) List(ctx context.Context, match func(wire.Volume, bool) bool) []wire.Volume {
	used := v.usedVolumes()
	all := []wire.Volume{}
	for _, found := range v.Options.Volumes.List(ctx) {
		if w := wireVolume(found); match(w, used[w.Name] > 0) {
			all = append(all, w)
		}
	}
	return all
}

// usedVolumes counts the containers that use each volume.
func (s *shared) usedVolumes() map[string]int {
	used := map[string]int{}
	for _, a := range s.roster.all() {
		for _, m := range a.record().Mounts {
			if m.Type == mount.TypeVolume {
				used[m.Name]++
			}
		}
	}
	return used
}

// Remove removes a volume that no container uses; with force a missing one is no error.
func (v *Volumes) Remove(ctx context.Context, name string, force bool) error {
	if _, err := v.Options.Volumes.Get(ctx, name); err != nil {
		if force {
			return nil
		}
		return err
	}
	if err := v.Options.Volumes.Remove(ctx, name, v.volumeUsers(name, "")); err != nil {
		return err
	}
	v.bus.Publish(events.VolumeEventType, events.ActionDestroy, name, map[string]string{"driver": "local"})
	return nil
}

// Prune removes the volumes that no container uses: the anonymous ones, or with all the named ones too.
func (v *Volumes) Prune(ctx context.Context, all bool, match func(labels map[string]string) bool) (wire.PruneReport, error) {
	used := v.usedVolumes()
	names, bytes, err := v.Options.Volumes.Prune(ctx, func(candidate volume.Volume) bool {
		return used[candidate.Name] == 0 && (all || candidate.Anonymous()) && match(candidate.Labels)
	})
	if err == nil {
		err = v.Options.Volumes.Wait(ctx)
	}
	if err != nil {
		return wire.PruneReport{}, err
	}
	report := wire.PruneReport{VolumesDeleted: append([]string{}, names...), SpaceReclaimed: uint64(bytes)}
	for _, name := range names {
		v.bus.Publish(events.VolumeEventType, events.ActionDestroy, name, map[string]string{"driver": "local"})
	}
	v.bus.Publish(events.VolumeEventType, events.ActionPrune, "", map[string]string{"reclaimed": fmt.Sprint(bytes)})
	return report, nil
}

// mountVolumes prepares the volumes of a container about to start.
func (s *shared) mountVolumes(ctx context.Context, r *container.Record) error {
	for _, m := range r.Mounts {
		switch m.Type {
		case mount.TypeBind:
			if err := bindSource(&m); err != nil {
				return err
			}
		case mount.TypeVolume:
			v, err := s.Options.Volumes.Get(ctx, m.Name)
			if err != nil {
				return err
			}
			if device, ok := v.Mount(); ok {
				if err := s.mountDevice(v, device); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// tellVolumes publishes that a starting container has its volumes, which Docker says after its networks.
func (s *shared) tellVolumes(r *container.Record) {
	for _, m := range r.Mounts {
		if m.Type == mount.TypeVolume {
			s.tellVolume(r, m, events.ActionMount)
		}
	}
}

// unmountVolumes gives back what mountVolumes made.
func (s *shared) unmountVolumes(r *container.Record) {
	for _, m := range r.Mounts {
		if m.Type != mount.TypeVolume {
			continue
		}
		if v, err := s.Options.Volumes.Get(context.Background(), m.Name); err == nil {
			if _, ok := v.Mount(); ok && !s.volumeInUse(m.Name, r.ID) {
				s.unmountDevice(v)
			}
		}
		s.tellVolume(r, m, events.ActionUnmount)
	}
}

// volumeInUse says whether a running container but one uses a volume.
func (s *shared) volumeInUse(name, except string) bool {
	for _, id := range s.volumeUsers(name, except) {
		if a, err := s.roster.find(id); err == nil && up(a.record().State.Status) {
			return true
		}
	}
	return false
}

func (s *shared) tellVolume(r *container.Record, m container.Mount, action events.Action) {
	attributes := map[string]string{"container": r.ID, "driver": "local"}
	if action == events.ActionMount {
		attributes["destination"], attributes["propagation"] = m.Destination, string(m.Propagation)
		attributes["read/write"] = fmt.Sprint(m.RW)
	}
	s.bus.Publish(events.VolumeEventType, action, m.Name, attributes)
}
