package engine

import (
	"context"
	"maps"
	"slices"

	"github.com/moby/moby/api/types/events"
	wire "github.com/moby/moby/api/types/network"

	"davit/engine/container"
	"davit/network"
	"davit/oci/errdefs"
)

// Networks keeps networks and connects containers with them.
type Networks struct{ *shared }

// Create makes a network.
func (n *Networks) Create(ctx context.Context, q wire.CreateRequest) (wire.CreateResponse, error) {
	made, err := n.Options.Networks.Create(ctx, networkConfig(q))
	if err != nil {
		return wire.CreateResponse{}, err
	}
	n.tellOf(made, events.ActionCreate)
	return wire.CreateResponse{ID: made.ID}, nil
}

func networkConfig(q wire.CreateRequest) network.Config {
	c := network.Config{
		Name: q.Name, Driver: q.Driver, Internal: q.Internal, Attachable: q.Attachable,
		DisableV4: q.EnableIPv4 != nil && !*q.EnableIPv4, EnableV6: q.EnableIPv6 != nil && *q.EnableIPv6,
		Options: q.Options, Labels: q.Labels,
	}
	if q.IPAM != nil {
		c.IPAMDriver, c.IPAMOpts = q.IPAM.Driver, q.IPAM.Options
		for _, s := range q.IPAM.Config {
			c.Subnets = append(c.Subnets, network.Subnet{Subnet: s.Subnet, Range: s.IPRange, Gateway: s.Gateway, Aux: s.AuxAddress})
		}
	}
	return c
}

func (n *Networks) tellOf(made network.Network, action events.Action) {
	n.bus.Publish(events.NetworkEventType, action, made.ID, map[string]string{"name": made.Name, "type": made.Driver})
}

// List returns the networks that match.
func (n *Networks) List(f Filters) ([]wire.Summary, error) {
	if err := f.Only("dangling", "driver", "id", "label", "label!", "name", "scope", "type"); err != nil {
		return nil, err
	}
	dangling, given, err := f.Flag("dangling")
	if err != nil {
		return nil, err
	}
	for _, kind := range f["type"] {
		if kind != "custom" && kind != "builtin" {
			return nil, errdefs.Invalid("invalid filter: 'type'='%s'", kind)
		}
	}
	list := []wire.Summary{}
	for _, candidate := range n.Options.Networks.List() {
		kind := "custom"
		if candidate.Predefined() {
			kind = "builtin"
		}
		unused := len(n.Options.Networks.Endpoints(candidate.ID)) == 0 && !candidate.Predefined()
		if f.Exact("driver", candidate.Driver) && f.Match("id", candidate.ID) && f.Match("name", candidate.Name) &&
			f.Exact("scope", "local") && f.Exact("type", kind) && f.Labels(candidate.Labels) && (!given || dangling == unused) {
			list = append(list, wire.Summary{Network: wireNetwork(candidate)})
		}
	}
	return list, nil
}

func wireNetwork(n network.Network) wire.Network {
	w := wire.Network{
		Name: n.Name, ID: n.ID, Created: n.Created, Scope: "local", Driver: n.Driver, EnableIPv4: n.EnableV4, EnableIPv6: n.EnableV6,
		Internal: n.Internal, Attachable: n.Attachable, Options: orEmpty(n.Options), Labels: orEmpty(n.Labels),
		IPAM: wire.IPAM{Driver: n.IPAMDriver, Options: n.IPAMOpts, Config: []wire.IPAMConfig{}},
	}
	if w.IPAM.Driver == "" {
		w.IPAM.Driver = "default"
	}
	for _, s := range n.Subnets {
		w.IPAM.Config = append(w.IPAM.Config, wire.IPAMConfig{Subnet: s.Subnet, IPRange: s.Range, Gateway: s.Gateway, AuxAddress: s.Aux})
	}
	return w
}

func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// Inspect describes a network and the containers in it.
func (n *Networks) Inspect(name string) (wire.Inspect, error) {
	found, err := n.Options.Networks.Get(name)
	if err != nil {
		return wire.Inspect{}, err
	}
	i := wire.Inspect{Network: wireNetwork(found), Containers: map[string]wire.EndpointResource{}}
	for _, e := range n.Options.Networks.Endpoints(found.ID) {
		i.Containers[e.ContainerID] = wire.EndpointResource{
			Name: e.ContainerName, EndpointID: e.ID, MacAddress: wire.HardwareAddr(e.MAC), IPv4Address: e.IPv4, IPv6Address: e.IPv6,
		}
	}
	return i, nil
}

// Remove removes a network that has no containers.
func (n *Networks) Remove(ctx context.Context, name string) error {
	removed, err := n.Options.Networks.Remove(ctx, name)
	if err != nil {
		return err
	}
	n.tellOf(removed, events.ActionDestroy)
	return nil
}

// Prune removes the networks without containers.
func (n *Networks) Prune(ctx context.Context, f Filters) (wire.PruneReport, error) {
	if err := f.Only("label", "label!", "until"); err != nil {
		return wire.PruneReport{}, err
	}
	until, err := f.Until(n.Now())
	if err != nil {
		return wire.PruneReport{}, err
	}
	inUse := n.configured()
	pruned, err := n.Options.Networks.Prune(ctx, func(candidate network.Network) bool {
		return !inUse[candidate.Name] && !inUse[candidate.ID] && f.Labels(candidate.Labels) && (until.IsZero() || candidate.Created.Before(until))
	})
	report := wire.PruneReport{NetworksDeleted: []string{}}
	for _, gone := range pruned {
		report.NetworksDeleted = append(report.NetworksDeleted, gone.Name)
		n.tellOf(gone, events.ActionDestroy)
	}
	n.bus.Publish(events.NetworkEventType, events.ActionPrune, "", map[string]string{"reclaimed": "0"})
	return report, err
}

// configured are the networks that running containers name.
func (n *Networks) configured() map[string]bool {
	names := map[string]bool{}
	for _, a := range n.roster.all() {
		if r := a.record(); up(r.State.Status) {
			for name := range r.Endpoints {
				names[name] = true
			}
		}
	}
	return names
}

// Connect puts a container into one more network, at once if it runs.
func (n *Networks) Connect(ctx context.Context, name string, q wire.ConnectRequest) error {
	found, err := n.Options.Networks.Get(name)
	if err != nil {
		return err
	}
	a, err := n.roster.find(q.Container)
	if err != nil {
		return err
	}
	end, err := a.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	r := a.record().Clone()
	if err := connectable(r, found); err != nil {
		return err
	}
	settings := q.EndpointConfig.Copy()
	if settings == nil {
		settings = &wire.EndpointSettings{}
	}
	r.Endpoints = maps.Clone(r.Endpoints)
	if r.Endpoints == nil {
		r.Endpoints = map[string]*wire.EndpointSettings{}
	}
	delete(r.Endpoints, "none")
	if err := n.checkEndpoint(found.Name, settings); err != nil {
		return err
	}
	r.Endpoints[found.Name] = settings
	if r.State.Status.Alive() {
		if err := n.connectNow(ctx, r, found, settings); err != nil {
			return err
		}
		r.State.Networks, r.State.Ports = n.settings(r)
	}
	a.publish(r)
	return n.journal.save(r)
}

func connectable(r *container.Record, n network.Network) error {
	switch {
	case r.HostConfig.NetworkMode.IsHost():
		return errdefs.Forbidden("container cannot be connected to host network or from it: container %s is in the host network", r.Name)
	case r.HostConfig.NetworkMode.IsContainer():
		return errdefs.Forbidden("container sharing network namespace with another container or host cannot be connected to any other network")
	case n.Driver == network.DriverHost || n.Driver == network.DriverNull:
		return errdefs.Forbidden("container cannot be connected to network %s", n.Name)
	}
	if _, ok := r.Endpoints[n.Name]; ok {
		return errdefs.Forbidden("endpoint with name %s already exists in network %s", r.Name, n.Name)
	}
	return nil
}

func (n *Networks) connectNow(ctx context.Context, r *container.Record, found network.Network, settings *wire.EndpointSettings) error {
	q := n.endpointRequest(r, found.Name, settings)
	published := slices.ContainsFunc(n.Options.Networks.ContainerEndpoints(r.ID), func(e endpoint) bool { return len(e.Ports) > 0 })
	if !published && n.wayOut(networkOrder(r)) == found.Name { // until now it was in networks without a way out
		var err error
		if q.Ports, err = portRequests(r); err != nil {
			return err
		}
	}
	e, err := n.Options.Networks.Allocate(ctx, q)
	if err != nil {
		return endpointError(err)
	}
	netns, err := openNamespace(r.State.Pid, "net")
	if err == nil {
		defer netns.Close()
		err = n.attach(ctx, r, netns, []endpoint{e})
	}
	if err != nil || !e.Relayed() {
		return err
	}
	client, err := n.link.get(ctx)
	if err != nil {
		return err
	}
	return n.relay(ctx, client, r.ID)
}

// Disconnect takes a container out of a network, at once if it runs.
func (n *Networks) Disconnect(ctx context.Context, name string, q wire.DisconnectRequest) error {
	found, err := n.Options.Networks.Get(name)
	if err != nil {
		return err
	}
	a, err := n.roster.find(q.Container)
	if err != nil {
		return err
	}
	end, err := a.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	r := a.record().Clone()
	if _, ok := r.Endpoints[found.Name]; !ok {
		return errdefs.Forbidden("container %s is not connected to network %s", r.ID, found.Name)
	}
	r.Endpoints = maps.Clone(r.Endpoints)
	delete(r.Endpoints, found.Name)
	if r.State.Status.Alive() {
		if err := n.disconnectNow(ctx, r, found); err != nil {
			return err
		}
		r.State.Networks, r.State.Ports = n.settings(r)
	}
	a.publish(r)
	return n.journal.save(r)
}

func (n *Networks) disconnectNow(ctx context.Context, r *container.Record, found network.Network) error {
	endpoints := n.Options.Networks.ContainerEndpoints(r.ID)
	at := slices.IndexFunc(endpoints, func(e endpoint) bool { return e.NetworkID == found.ID })
	netns, err := openNamespace(r.State.Pid, "net")
	if err != nil {
		return err
	}
	defer netns.Close()
	if err := n.Options.Networks.Disconnect(ctx, network.Sandbox{ContainerID: r.ID, NetNS: netns, DNS: r.HostConfig.DNS}, found.ID); err != nil {
		return err
	}
	if at >= 0 {
		n.tellNetwork(endpoints[at], events.ActionDisconnect)
	}
	if !hasRelays(endpoints) {
		return nil
	}
	client, err := n.link.find(ctx)
	if err != nil {
		return err
	}
	return n.relay(ctx, client, r.ID)
}
