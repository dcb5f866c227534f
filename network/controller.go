package network

import (
	"context"
	"log/slog"
	"net/netip"

	"davit/oci/errdefs"
)

// Options of a Controller.
type Options struct {
	RunDir     string       // gone at reboot; made if missing
	Log        *slog.Logger // nil: silence
	Bridge     string       // device of the default network, "davit0"; "none": there is no default network
	BIP        netip.Prefix // its address and prefix length; zero: from Pools
	BIP6       netip.Prefix // its IPv6 address; zero: no IPv6 on the default network
	MTU        int          // of the default network's devices; 0: 1500
	Pools      []Pool       // where subnets come from; nil: Docker's, and more /24s when those are used up
	HostIP     netip.Addr   // default host address of published ports (--ip); zero: all
	DisableICC bool         // of the default network (--icc=false)
	DNS        []netip.Addr // default servers of the name server (--dns)
}

// Pool is a range of addresses that subnets of one size are cut from.
type Pool struct {
	Base netip.Prefix
	Size int // prefix length of the subnets
}

// Controller owns the networks of one engine. Its methods may be called concurrently.
type Controller struct{}

// Open loads the networks, makes what is missing in the kernel (devices, rules) and the predefined
// networks. What runs goes on undisturbed. Call Reconcile next.
func Open(ctx context.Context, opts Options) (*Controller, error) { return nil, errAPI() }

// Close ends the name servers. Devices, rules and published ports stay.
func (c *Controller) Close() error { return errAPI() }

// Create makes a network. Errors have Docker's words and classes: Conflict "network with name x already
// exists", Forbidden "Pool overlaps with other one on this address space", Invalid for a bad config.
func (c *Controller) Create(ctx context.Context, config Config) (Network, error) {
	return Network{}, errAPI()
}

// Remove removes a network by name or id and returns what it was. Predefined networks and networks with
// endpoints are refused with Forbidden.
func (c *Controller) Remove(ctx context.Context, nameOrID string) (Network, error) {
	return Network{}, errAPI()
}

// Get finds a network by name, id, or unambiguous prefix of an id; NotFound "network x not found".
func (c *Controller) Get(nameOrID string) (Network, error) { return Network{}, errAPI() }

// List returns all networks, ordered by name.
func (c *Controller) List() []Network { return nil }

// Prune removes the networks that are not predefined, have no endpoint and satisfy match, and returns them.
func (c *Controller) Prune(ctx context.Context, match func(Network) bool) ([]Network, error) {
	return nil, errAPI()
}

// Endpoints returns the endpoints of a network, ordered by container id.
func (c *Controller) Endpoints(networkID string) []Endpoint { return nil }

// ContainerEndpoints returns a container's endpoints, the one with the default route first.
func (c *Controller) ContainerEndpoints(containerID string) []Endpoint { return nil }

// Allocate reserves address, MAC and host ports. Nothing is in the kernel before Attach; Release or
// Detach gives back. Networks of drivers host and null give an Endpoint with ids alone.
//
// A port that is taken fails with ErrPortTaken and Docker's words.
func (c *Controller) Allocate(ctx context.Context, req EndpointRequest) (Endpoint, error) {
	return Endpoint{}, errAPI()
}

// Attach puts allocated endpoints of one container into its namespace: loopback up, a veth pair each,
// addresses, routes, published ports, and the name server when a network has one. It is also how a
// running container gets one more endpoint (docker network connect). On error nothing of them is left
// in the kernel, and they stay allocated.
func (c *Controller) Attach(ctx context.Context, sandbox Sandbox, endpoints []Endpoint) error {
	return errAPI()
}

// Detach ends all endpoints of a container, allocated or attached, and its name server. It needs no
// namespace, does not wait for the kernel, and is no error when there is nothing to end.
func (c *Controller) Detach(ctx context.Context, containerID string) error { return errAPI() }

// Disconnect ends a running container's endpoint in one network; the default route moves to the next.
func (c *Controller) Disconnect(ctx context.Context, sandbox Sandbox, networkID string) error {
	return errAPI()
}

// Rename tells the name servers a container's new name.
func (c *Controller) Rename(ctx context.Context, containerID, name string) error { return errAPI() }

// Reconcile ends the endpoints of containers that are not in live, removes veth devices that nobody
// owns, and opens the name servers of live containers again.
func (c *Controller) Reconcile(ctx context.Context, live []Sandbox) error { return errAPI() }

// HostGateway is the address that the name host-gateway stands for in --add-host.
func (c *Controller) HostGateway() netip.Addr { return netip.Addr{} }

func errAPI() error { return errdefs.NotImplemented("networks are not there yet") }
