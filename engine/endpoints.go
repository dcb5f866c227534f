package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"

	"github.com/moby/moby/api/types/events"
	wirenet "github.com/moby/moby/api/types/network"

	"davit/engine/container"
	"davit/network"
	"davit/oci/errdefs"
)

type endpoint = network.Endpoint

// allocate reserves addresses and ports in the networks of a container about to start.
func (s *shared) allocate(ctx context.Context, r *container.Record) ([]endpoint, error) {
	if r.HostConfig.NetworkMode.IsContainer() {
		return nil, nil
	}
	ports, err := portRequests(r)
	if err != nil {
		return nil, err
	}
	var endpoints []endpoint
	order := networkOrder(r)
	outside := s.wayOut(order)
	for _, name := range order {
		q := s.endpointRequest(r, name, r.Endpoints[name])
		switch {
		case r.Trying():
			q.Aliases, q.DNSNames, q.PortsLater = nil, nil, name == outside && len(ports) > 0
		case name == outside:
			q.Ports = ports
		}
		e, err := s.Options.Networks.Allocate(ctx, q)
		if err != nil {
			return nil, endpointError(err)
		}
		endpoints = append(endpoints, e)
	}
	return endpoints, nil
}

// endpointError puts Docker's words before a failure of the network.
func endpointError(err error) error {
	if errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	return fmt.Errorf("failed to set up container networking: %w", err)
}

// wayOut is the first of networks that leads out of the host: there is the default route, and there ports are
// published.
func (s *shared) wayOut(networks []string) string {
	for _, name := range networks {
		if len(networks) == 1 {
			return name
		}
		if n, err := s.Options.Networks.Get(name); err == nil && !n.Internal {
			return name
		}
	}
	return ""
}

// networkOrder is in which order a container's networks become interfaces: the one with the highest
// priority first, and of equals that of the container's mode, then by name.
func networkOrder(r *container.Record) []string {
	mode := string(r.HostConfig.NetworkMode)
	names := slices.Sorted(maps.Keys(r.Endpoints))
	slices.SortStableFunc(names, func(a, b string) int {
		if d := r.Endpoints[b].GwPriority - r.Endpoints[a].GwPriority; d != 0 {
			return d
		}
		switch mode {
		case a:
			return -1
		case b:
			return 1
		}
		return 0
	})
	return names
}

func (s *shared) endpointRequest(r *container.Record, name string, e *wirenet.EndpointSettings) network.EndpointRequest {
	q := network.EndpointRequest{
		NetworkID: name, ContainerID: r.ID, ContainerName: r.Name, Aliases: e.Aliases,
		MAC: net.HardwareAddr(e.MacAddress), GwPriority: e.GwPriority,
	}
	if len(e.Links) > 0 || len(r.HostConfig.Links) > 0 {
		q.Links = aliases(r)
	}
	if r.Config.Hostname != "" && r.Config.Hostname != r.ID[:12] {
		q.DNSNames = slices.Compact(append([]string{r.Name, r.ID[:12], r.Config.Hostname}, e.Aliases...))
	}
	if c := e.IPAMConfig; c != nil {
		q.IPv4, q.IPv6 = c.IPv4Address, c.IPv6Address
	}
	return q
}

// portRequests are the ports to publish: those of -p, and with -P every exposed one.
func portRequests(r *container.Record) ([]network.PortRequest, error) {
	if !publishes(r) {
		return nil, nil
	}
	var requests []network.PortRequest
	for port, bindings := range r.HostConfig.PortBindings {
		for _, b := range bindings {
			q := network.PortRequest{ContainerPort: port.Num(), Proto: string(port.Proto()), HostIP: b.HostIP}
			if b.HostPort != "" {
				hostPorts, err := wirenet.ParsePortRange(b.HostPort)
				if err != nil {
					return nil, errdefs.Invalid("invalid publish ports without a port or range: %q", b.HostPort)
				}
				q.HostPort = hostPorts.Start()
				if hostPorts.End() > hostPorts.Start() {
					q.HostPortEnd = hostPorts.End()
				}
			}
			requests = append(requests, q)
		}
	}
	if r.HostConfig.PublishAllPorts {
		for port := range r.Config.ExposedPorts {
			if len(r.HostConfig.PortBindings[port]) == 0 {
				requests = append(requests, network.PortRequest{ContainerPort: port.Num(), Proto: string(port.Proto())})
			}
		}
	}
	slices.SortFunc(requests, func(a, b network.PortRequest) int { return int(a.ContainerPort) - int(b.ContainerPort) })
	return requests, nil
}

// publishes says whether a container can have published ports at all.
func publishes(r *container.Record) bool {
	mode := r.HostConfig.NetworkMode
	return !mode.IsHost() && !mode.IsNone() && !mode.IsContainer()
}

// attach gives a task's network namespace its interfaces.
func (s *shared) attach(ctx context.Context, r *container.Record, netns *os.File, endpoints []endpoint) error {
	if netns == nil {
		return nil
	}
	err := s.Options.Networks.Attach(ctx, network.Sandbox{ContainerID: r.ID, NetNS: netns, DNS: r.HostConfig.DNS}, endpoints)
	if err != nil {
		return endpointError(err)
	}
	for _, e := range endpoints {
		s.tellNetwork(e, events.ActionConnect)
	}
	return nil
}

// detach ends all of a container's endpoints.
func (s *shared) detach(id string) {
	endpoints := s.Options.Networks.ContainerEndpoints(id)
	if err := s.Options.Networks.Detach(context.Background(), id); err != nil {
		s.Log.Error("detach networks", "container", id, "error", err)
	}
	for _, e := range endpoints {
		s.tellNetwork(e, events.ActionDisconnect)
	}
}

func (s *shared) tellNetwork(e endpoint, action events.Action) {
	s.bus.Publish(events.NetworkEventType, action, e.NetworkID, map[string]string{
		"container": e.ContainerID, "name": e.NetworkName, "type": s.driverOf(e.NetworkID),
	})
}

func (s *shared) driverOf(networkID string) string {
	n, err := s.Options.Networks.Get(networkID)
	if err != nil {
		return ""
	}
	return n.Driver
}

// settings are a running container's endpoints and published ports, in the wire form.
func (s *shared) settings(r *container.Record) (map[string]*wirenet.EndpointSettings, wirenet.PortMap) {
	networks, ports := map[string]*wirenet.EndpointSettings{}, wirenet.PortMap{}
	for port := range r.Config.ExposedPorts {
		ports[port] = nil
	}
	for _, e := range s.Options.Networks.ContainerEndpoints(r.ID) {
		networks[e.NetworkName] = wireEndpoint(e, r.Endpoints[e.NetworkName])
		for _, p := range e.Ports {
			port, ok := wirenet.PortFrom(p.ContainerPort, wirenet.IPProtocol(p.Proto))
			if !ok {
				continue
			}
			ports[port] = append(ports[port], wirenet.PortBinding{HostIP: p.HostIP, HostPort: strconv.Itoa(int(p.HostPort))})
		}
	}
	return networks, ports
}

// wireEndpoint joins what was asked for with what there is.
func wireEndpoint(e endpoint, asked *wirenet.EndpointSettings) *wirenet.EndpointSettings {
	w := asked.Copy()
	if w == nil {
		w = &wirenet.EndpointSettings{}
	}
	w.NetworkID, w.EndpointID, w.MacAddress = e.NetworkID, e.ID, wirenet.HardwareAddr(e.MAC)
	w.Gateway, w.IPv6Gateway, w.DNSNames = e.Gateway4, e.Gateway6, e.DNSNames
	if e.IPv4.IsValid() {
		w.IPAddress, w.IPPrefixLen = e.IPv4.Addr(), e.IPv4.Bits()
	}
	if e.IPv6.IsValid() {
		w.GlobalIPv6Address, w.GlobalIPv6PrefixLen = e.IPv6.Addr(), e.IPv6.Bits()
	}
	return w
}
