package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"davit/network/ipam"
	"davit/oci/errdefs"
)

// predefine makes the networks that always exist, and brings the default one in line with the options.
// The kernel's side is materialize's.
// idle tells that no endpoint of an earlier engine is left, so that its subnet may change.
func (c *Controller) predefine(ctx context.Context, idle bool) error {
	for name, driver := range map[string]string{NameHost: DriverHost, NameNone: DriverNull} {
		if _, err := c.book.get(name); err == nil {
			continue
		}
		id, err := newID()
		if err != nil {
			return err
		}
		n := Network{ID: id, Name: name, Driver: driver, Created: time.Now().UTC(), EnableV4: true, IPAMDriver: "default"}
		if err := c.record(n); err != nil {
			return err
		}
	}
	return c.predefineBridge(ctx, idle)
}

func (c *Controller) predefineBridge(ctx context.Context, idle bool) error {
	old, err := c.book.get(NameBridge)
	known := err == nil
	switch {
	case c.opts.Bridge == "none" && known && idle:
		return c.erase(old)
	case c.opts.Bridge == "none":
		return nil
	}
	config := c.defaultConfig()
	if known && (!idle || old.satisfies(config)) {
		return nil
	}
	if known { // the id stays
		if err := c.erase(old); err != nil {
			return err
		}
	}
	n, err := c.plan(config)
	if err != nil {
		return fmt.Errorf("plan default network: %w", err)
	}
	if known {
		n.ID = old.ID
	}
	return c.record(n)
}

// defaultConfig is the config of the default network by the options.
func (c *Controller) defaultConfig() Config {
	host := c.opts.HostIP
	if !host.IsValid() {
		host = netip.IPv4Unspecified()
	}
	config := Config{Name: NameBridge, EnableV6: c.opts.BIP6.IsValid(), Options: map[string]string{
		OptionDefault:    "true",
		OptionICC:        strconv.FormatBool(!c.opts.DisableICC),
		OptionMasquerade: "true",
		OptionHostIP:     host.String(),
		OptionBridgeName: c.opts.Bridge,
		OptionMTU:        strconv.Itoa(c.opts.MTU),
	}}
	for _, p := range []netip.Prefix{c.opts.BIP, c.opts.BIP6} {
		if p.IsValid() {
			config.Subnets = append(config.Subnets, Subnet{Subnet: p.Masked(), Gateway: p.Addr()})
		}
	}
	return config
}

// satisfies tells whether the network is what the config asks for.
func (n Network) satisfies(config Config) bool {
	for name, value := range config.Options {
		if n.Options[name] != value {
			return false
		}
	}
	for _, want := range config.Subnets {
		if !slices.ContainsFunc(n.Subnets, func(s Subnet) bool { return s.Subnet == want.Subnet && s.Gateway == want.Gateway }) {
			return false
		}
	}
	return n.EnableV6 == config.EnableV6
}

// Remove removes a network by name or id and returns what it was. Predefined networks and networks with
// endpoints are refused with Forbidden.
func (c *Controller) Remove(ctx context.Context, nameOrID string) (Network, error) {
	n, err := c.book.get(nameOrID)
	if err != nil {
		return Network{}, err
	}
	if n.Predefined() {
		return Network{}, errdefs.Forbidden("%s is a pre-defined network and cannot be removed", n.Name)
	}
	return n, c.erase(n)
}

// Get finds a network by name, id, or unambiguous prefix of an id; NotFound "network x not found".
func (c *Controller) Get(nameOrID string) (Network, error) { return c.book.get(nameOrID) }

// List returns all networks, ordered by name.
func (c *Controller) List() []Network { return c.book.networks() }

// Prune removes the networks that are not predefined, have no endpoint and satisfy match, and returns them.
func (c *Controller) Prune(ctx context.Context, match func(Network) bool) ([]Network, error) {
	var gone []Network
	var errs []error
	for _, n := range c.book.networks() {
		if n.Predefined() || !match(n) || len(c.book.in(n.ID)) > 0 {
			continue
		}
		switch err := c.erase(n); {
		case err == nil:
			gone = append(gone, n)
		case !errors.Is(err, errdefs.ErrForbidden): // forbidden: it got an endpoint meanwhile
			errs = append(errs, err)
		}
	}
	return gone, errors.Join(errs...)
}

// Endpoints returns the endpoints of a network, ordered by container id.
func (c *Controller) Endpoints(networkID string) []Endpoint { return c.book.in(networkID) }

// ContainerEndpoints returns a container's endpoints, the one with the default route first.
func (c *Controller) ContainerEndpoints(containerID string) []Endpoint {
	return c.book.of(containerID)
}

// Usage is how many addresses of a subnet are in use, those of the subnet itself included.
type Usage struct {
	Subnet netip.Prefix
	InUse  int
}

// Usage returns the usage of a network's subnets.
func (c *Controller) Usage(networkID string) []Usage { return c.book.usage(networkID) }

func (b *book) usage(networkID string) []Usage {
	b.mu.RLock()
	defer b.mu.RUnlock()
	s, ok := b.segments[networkID]
	if !ok {
		return nil
	}
	return usageOf(s.spaces)
}

func usageOf(spaces []*ipam.Space) []Usage {
	all := make([]Usage, len(spaces))
	for i, s := range spaces {
		all[i] = Usage{s.Subnet(), s.InUse()}
	}
	return all
}
