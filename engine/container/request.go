package container

import (
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/sys/signal"

	"davit/oci/errdefs"
)

// checkRequest refuses what a request cannot mean, in Docker's words.
func checkRequest(c *container.Config, h *container.HostConfig) error {
	if c.StopSignal != "" {
		if _, err := signal.ParseSignal(c.StopSignal); err != nil {
			return errdefs.As(errdefs.ErrInvalid, err)
		}
	}
	if err := checkSharing(c, h); err != nil {
		return err
	}
	switch {
	case h.OomScoreAdj < -1000 || h.OomScoreAdj > 1000:
		return errdefs.Invalid("Invalid value %d, range for oom score adj is [-1000, 1000]", h.OomScoreAdj)
	case !h.Isolation.IsDefault():
		return errdefs.Invalid("Invalid isolation: %q - linux only supports 'default'", h.Isolation)
	case h.MemorySwappiness != nil && (*h.MemorySwappiness < 0 || *h.MemorySwappiness > 100):
		return errdefs.Invalid("Invalid value: %d, valid memory swappiness range is 0-100", *h.MemorySwappiness)
	}
	for name := range h.StorageOpt {
		if name != "size" {
			return errdefs.Invalid("Unknown option %s", name)
		}
		return errdefs.Invalid("--storage-opt is supported only for overlay over xfs with 'pquota' mount option")
	}
	for _, device := range h.DeviceRequests {
		return errdefs.Invalid("could not select device driver %q with capabilities: %v", device.Driver, device.Capabilities)
	}
	return nil
}

// checkSharing refuses settings of a namespace that belongs to somebody else.
func checkSharing(c *container.Config, h *container.HostConfig) error {
	shared := h.NetworkMode.IsContainer()
	for _, conflict := range []struct {
		is   bool
		what string
	}{
		{c.Hostname != "" && h.UTSMode.IsHost(), "hostname and the UTS mode"},
		{c.Hostname != "" && shared, "hostname and the network mode"},
		{h.NetworkMode.IsHost() && len(h.Links) > 0, "host type networking can't be used with links. This would result in undefined behavior"},
		{shared && len(h.Links) > 0, "container type network can't be used with links. This would result in undefined behavior"},
		{shared && len(h.DNS) > 0, "dns and the network mode"},
		{shared && len(h.ExtraHosts) > 0, "custom host-to-IP mapping and the network mode"},
		{shared && (len(h.PortBindings) > 0 || h.PublishAllPorts), "port publishing and the container type network mode"},
		{shared && len(c.ExposedPorts) > 0, "port exposing and the container type network mode"},
	} {
		if conflict.is {
			return errdefs.Invalid("conflicting options: %s", conflict.what)
		}
	}
	return nil
}

// Fit keeps a container in the host's user namespace if one of its numeric ids has no place among size
// ids of its own.
func (u UserNamespace) Fit(user string, groups []string, size uint32) UserNamespace {
	if u.Mode != UserPrivate {
		return u
	}
	uid, gid, _ := strings.Cut(user, ":")
	for _, id := range append([]string{uid, gid}, slices.Clone(groups)...) {
		if n, err := strconv.ParseUint(id, 10, 32); err == nil && n >= uint64(size) {
			return host("id %d is outside the %d ids of a user namespace of its own", n, size)
		}
	}
	return u
}
