package engine

import (
	"context"

	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"davit/engine/container"
	"davit/oci/errdefs"
)

// Update changes limits and restart policy of a container, at once if it runs. Zero values stay.
func (c *Containers) Update(ctx context.Context, name string, u wire.UpdateConfig) (wire.UpdateResponse, error) {
	a, err := c.roster.find(name)
	if err != nil {
		return wire.UpdateResponse{}, err
	}
	end, err := a.begin(ctx)
	if err != nil {
		return wire.UpdateResponse{}, err
	}
	defer end()
	r := a.record().Clone()
	host := *r.HostConfig
	if err := merge(&host, u); err != nil {
		return wire.UpdateResponse{}, err
	}
	if err := container.CheckCPUs(&host.Resources, c.Facts); err != nil {
		return wire.UpdateResponse{}, err
	}
	r.HostConfig = &host
	if r.State.Status.Alive() {
		client, err := c.link.get(ctx)
		if err != nil {
			return wire.UpdateResponse{}, err
		}
		if err := client.Update(ctx, a.id, container.Limits(&host.Resources)); err != nil {
			return wire.UpdateResponse{}, errdefs.New(errdefs.ErrInvalid, "Cannot update container %s: %w", a.id, err)
		}
	}
	if err := c.journal.save(r); err != nil {
		return wire.UpdateResponse{}, err
	}
	a.publish(r)
	c.tell(r, events.ActionUpdate, nil)
	return wire.UpdateResponse{Warnings: []string{}}, nil
}

// merge puts what an update says over a host configuration.
func merge(h *wire.HostConfig, u wire.UpdateConfig) error {
	r, n := &h.Resources, u.Resources
	if n.NanoCPUs > 0 && (r.CPUPeriod > 0 || r.CPUQuota > 0) {
		return errdefs.Conflict("Conflicting options: Nano CPUs cannot be updated as CPU Period or Quota has already been set")
	}
	for _, v := range []struct{ to, from *int64 }{
		{&r.CPUShares, &n.CPUShares},
		{&r.NanoCPUs, &n.NanoCPUs},
		{&r.CPUPeriod, &n.CPUPeriod},
		{&r.CPUQuota, &n.CPUQuota},
		{&r.CPURealtimePeriod, &n.CPURealtimePeriod},
		{&r.CPURealtimeRuntime, &n.CPURealtimeRuntime},
		{&r.Memory, &n.Memory},
		{&r.MemoryReservation, &n.MemoryReservation},
		{&r.MemorySwap, &n.MemorySwap},
	} {
		if *v.from != 0 {
			*v.to = *v.from
		}
	}
	if n.Memory != 0 && n.MemorySwap == 0 && r.MemorySwap > 0 && n.Memory > r.MemorySwap {
		return errdefs.Conflict("Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time")
	}
	if n.CpusetCpus != "" {
		r.CpusetCpus = n.CpusetCpus
	}
	if n.CpusetMems != "" {
		r.CpusetMems = n.CpusetMems
	}
	if n.BlkioWeight != 0 {
		r.BlkioWeight = n.BlkioWeight
	}
	if n.PidsLimit != nil {
		r.PidsLimit = n.PidsLimit
	}
	if u.RestartPolicy.Name != "" {
		if h.AutoRemove && !u.RestartPolicy.IsNone() {
			return errdefs.Conflict("Restart policy cannot be updated because AutoRemove is enabled for the container")
		}
		if err := container.ValidateRestart(u.RestartPolicy, h.AutoRemove); err != nil {
			return errdefs.As(errdefs.ErrInvalid, err)
		}
		h.RestartPolicy = u.RestartPolicy
	}
	return container.CheckResources(r)
}
