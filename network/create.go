package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"time"

	"davit/kernel/netlink"
	"davit/network/bridge"
	"davit/network/firewall"
	"davit/network/ipam"
	"davit/oci/errdefs"
)

// Create makes a network. Errors have Docker's words and classes: Conflict "network with name x already
// exists", Forbidden "Pool overlaps with other one on this address space", Invalid for a bad config.
func (c *Controller) Create(ctx context.Context, config Config) (Network, error) {
	if err := c.permit(config); err != nil {
		return Network{}, err
	}
	n, err := c.plan(config)
	if err != nil {
		return Network{}, err
	}
	return n, c.establish(n)
}

// permit refuses what can never be.
func (c *Controller) permit(config Config) error {
	switch config.Name {
	case NameBridge, NameHost, NameNone, "default":
		return errdefs.Forbidden("operation is not permitted on predefined %s network ", config.Name)
	}
	if !validName(config.Name) {
		return errdefs.Invalid("invalid network name: %q: only [a-zA-Z0-9][a-zA-Z0-9_.-]* is allowed", config.Name)
	}
	switch config.Driver {
	case "", DriverBridge, "default":
	case DriverHost, DriverNull:
		return errdefs.Forbidden("only one instance of %q network is allowed", config.Driver)
	default:
		return errdefs.NotFound("could not find plugin %s in v1 plugin registry: plugin not found", config.Driver)
	}
	if config.IPAMDriver != "" && config.IPAMDriver != "default" {
		return errdefs.NotFound("could not find plugin %s in v1 plugin registry: plugin not found", config.IPAMDriver)
	}
	return nil
}

// plan decides everything about a bridge network that the config leaves open.
func (c *Controller) plan(config Config) (Network, error) {
	id, err := newID()
	if err != nil {
		return Network{}, err
	}
	n := Network{
		ID: id, Name: config.Name, Driver: DriverBridge, Created: time.Now().UTC(), Internal: config.Internal,
		Attachable: config.Attachable, EnableV4: !config.DisableV4, EnableV6: config.EnableV6,
		IPAMDriver: "default", IPAMOpts: config.IPAMOpts, Options: config.Options, Labels: config.Labels,
		Bridge: config.Options[OptionBridgeName],
	}
	if n.Bridge == "" {
		n.Bridge = "br-" + id[:12]
	}
	if len(n.Bridge) > 15 {
		return Network{}, errdefs.Invalid("invalid bridge name %q: more than 15 characters", n.Bridge)
	}
	if err := n.checkOptions(); err != nil {
		return Network{}, err
	}
	n.Subnets, err = c.subnets(n, config.Subnets)
	return n.clone(), err
}

// checkOptions refuses options whose value makes no sense.
func (n Network) checkOptions() error {
	for _, name := range []string{OptionICC, OptionMasquerade} {
		if v, ok := n.Options[name]; ok {
			if _, err := strconv.ParseBool(v); err != nil {
				return errdefs.Invalid("invalid value for %s: %q", name, v)
			}
		}
	}
	if v, ok := n.Options[OptionMTU]; ok {
		if mtu, err := strconv.Atoi(v); err != nil || mtu < 68 || mtu > 65535 {
			return errdefs.Invalid("invalid value for %s: %q", OptionMTU, v)
		}
	}
	if v, ok := n.Options[OptionHostIP]; ok {
		if _, err := netip.ParseAddr(v); err != nil {
			return errdefs.Invalid("invalid value for %s: %q", OptionHostIP, v)
		}
	}
	for _, name := range []string{OptionGateway4, OptionGateway6} {
		if v, ok := n.Options[name]; ok && v != "nat" && v != "nat-unprotected" {
			return errdefs.Invalid("unknown gateway mode %s", v)
		}
	}
	return nil
}

// subnets completes the configured subnets, and adds one from the pools for a family that has none.
func (c *Controller) subnets(n Network, configured []Subnet) ([]Subnet, error) {
	subnets := slices.Clone(configured)
	for _, v6 := range []bool{false, true} {
		wanted := v6 && n.EnableV6 || !v6 && n.EnableV4
		has := slices.ContainsFunc(subnets, func(s Subnet) bool { return s.Subnet.IsValid() && s.Subnet.Addr().Is6() == v6 })
		if !wanted || has {
			continue
		}
		free, err := c.freeSubnet(n, v6)
		if err != nil {
			return nil, err
		}
		if i := slices.IndexFunc(subnets, func(s Subnet) bool { return !s.Subnet.IsValid() && !v6 }); i >= 0 {
			subnets[i].Subnet = free
			continue
		}
		subnets = append(subnets, Subnet{Subnet: free})
	}
	for i := range subnets {
		if err := subnets[i].complete(n); err != nil {
			return nil, err
		}
	}
	return subnets, nil
}

// freeSubnet picks a subnet that neither a network nor the host uses.
func (c *Controller) freeSubnet(n Network, v6 bool) (netip.Prefix, error) {
	taken, err := netlink.Occupied()
	if err != nil {
		return netip.Prefix{}, err
	}
	for _, other := range c.book.networks() {
		for _, s := range other.Subnets {
			taken = append(taken, s.Subnet)
		}
	}
	free, err := ipam.NextSubnet(c.opts.Pools, v6, taken)
	if err != nil && v6 {
		return ipam.LocalSubnet(n.ID), nil
	}
	return free, err
}

// complete checks a subnet and fills in its gateway.
func (s *Subnet) complete(n Network) error {
	if !s.Subnet.IsValid() {
		return errdefs.Invalid("invalid network config: a subnet is needed for gateway, ip-range and aux-address")
	}
	if s.Subnet.Addr().Is6() && !n.EnableV6 {
		return errdefs.Invalid("invalid network config: IPv6 subnet %s without IPv6 enabled", s.Subnet)
	}
	if s.Subnet != s.Subnet.Masked() {
		return errdefs.Invalid("invalid network config:\ninvalid subnet %s: it should be %s", s.Subnet, s.Subnet.Masked())
	}
	if s.Range.IsValid() && (s.Range.Bits() < s.Subnet.Bits() || !s.Subnet.Contains(s.Range.Addr())) {
		return errdefs.Invalid("invalid network config:\ninvalid ip-range %s: parent subnet %s doesn't contain ip-range", s.Range, s.Subnet)
	}
	if s.Gateway.IsValid() && !s.Subnet.Contains(s.Gateway) {
		return errdefs.Invalid("invalid network config:\ninvalid gateway %s: parent subnet %s doesn't contain this address", s.Gateway, s.Subnet)
	}
	for name, addr := range s.Aux {
		if !s.Subnet.Contains(addr) {
			return errdefs.Invalid("invalid network config:\ninvalid auxiliary address %s: parent subnet %s doesn't contain %s", name, s.Subnet, addr)
		}
	}
	if !s.Gateway.IsValid() {
		s.Gateway = s.Subnet.Addr()
		if s.Subnet.Addr().BitLen()-s.Subnet.Bits() > 1 {
			s.Gateway = s.Gateway.Next()
		}
	}
	return nil
}

// establish makes a planned network real: reserved in memory, recorded, in the kernel. Of a failure
// nothing is left.
func (c *Controller) establish(n Network) (err error) {
	if err := c.record(n); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.erase(n))
		}
	}()
	if err := c.devices.Ensure(n.device()); err != nil {
		return fmt.Errorf("make bridge of network %s: %w", n.Name, err)
	}
	if err := c.route(n.EnableV6); err != nil {
		return err
	}
	if err := c.rules.AddNet(n.rules()); err != nil {
		return err
	}
	c.coexist()
	return nil
}

// record enters a network in the book and in the database.
func (c *Controller) record(n Network) error {
	if err := c.book.add(n); err != nil {
		return err
	}
	if err := putNetwork(c.opts.DB, n); err != nil {
		return errors.Join(err, c.book.drop(n.ID))
	}
	return nil
}

// erase removes a network everywhere. It must have no endpoints.
func (c *Controller) erase(n Network) error {
	if err := c.book.drop(n.ID); err != nil {
		return err
	}
	var errs []error
	if n.Driver == DriverBridge {
		errs = append(errs, c.rules.RemoveNet(n.Bridge), c.devices.Delete(n.Bridge))
		c.coexist()
	}
	return errors.Join(append(errs, deleteNetwork(c.opts.DB, n.ID))...)
}

// device describes the network's bridge.
func (n Network) device() bridge.Device {
	d := bridge.Device{Name: n.Bridge, MTU: n.mtu(), Loopback: !n.Internal}
	for _, s := range n.Subnets {
		d.Addrs = append(d.Addrs, netip.PrefixFrom(s.Gateway, s.Subnet.Bits()))
	}
	return d
}

// rules describes the network to the firewall.
func (n Network) rules() firewall.Net {
	r := firewall.Net{
		Bridge: n.Bridge, Internal: n.Internal, Masquerade: n.option(OptionMasquerade, true),
		Open4: n.Options[OptionGateway4] == "nat-unprotected", Open6: n.Options[OptionGateway6] == "nat-unprotected",
	}
	for _, s := range n.Subnets {
		r.Subnets = append(r.Subnets, s.Subnet)
	}
	return r
}

func (n Network) option(name string, otherwise bool) bool {
	if v, err := strconv.ParseBool(n.Options[name]); err == nil {
		return v
	}
	return otherwise
}

func (n Network) mtu() int {
	if mtu, err := strconv.Atoi(n.Options[OptionMTU]); err == nil && mtu > 0 {
		return mtu
	}
	return 1500
}

func validName(name string) bool {
	return regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`).MatchString(name)
}
