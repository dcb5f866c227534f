package network

import (
	"net"
	"net/netip"
	"time"
)

// The drivers, and the names of the networks that always exist and cannot be removed.
const (
	DriverBridge = "bridge"
	DriverHost   = "host" // the host's own stack: no endpoint is ever made
	DriverNull   = "null" // a namespace with loopback alone

	NameBridge = "bridge" // of driver bridge, where containers go by default
	NameHost   = "host"   // of driver host
	NameNone   = "none"   // of driver null
)

// Options of the bridge driver, as Docker spells them.
const (
	OptionBridgeName = "com.docker.network.bridge.name"                 // device; "br-" and 12 digits of the id otherwise
	OptionDefault    = "com.docker.network.bridge.default_bridge"       // "true" on the predefined network alone
	OptionICC        = "com.docker.network.bridge.enable_icc"           // containers reach each other; default "true"
	OptionMasquerade = "com.docker.network.bridge.enable_ip_masquerade" // leave with the host's address; default "true"
	OptionHostIP     = "com.docker.network.bridge.host_binding_ipv4"    // default host address of published ports
	OptionGateway4   = "com.docker.network.bridge.gateway_mode_ipv4"    // "nat" or "nat-unprotected"
	OptionGateway6   = "com.docker.network.bridge.gateway_mode_ipv6"
	OptionMTU        = "com.docker.network.driver.mtu"
	OptionIfPrefix   = "com.docker.network.container_iface_prefix" // name of interfaces inside; default "eth"
)

// Subnet is one address range of a network. In a Config any field may be zero; in a Network Subnet and
// Gateway are set.
type Subnet struct {
	Subnet  netip.Prefix          `json:"subnet,omitzero"`
	Range   netip.Prefix          `json:"range,omitzero"`   // where addresses are taken from; zero: all of Subnet
	Gateway netip.Addr            `json:"gateway,omitzero"` // the bridge's own address
	Aux     map[string]netip.Addr `json:"aux,omitempty"`    // addresses kept free, by name
}

// Config asks for a network.
type Config struct {
	Name       string
	Driver     string // empty: bridge
	Internal   bool   // no way out of the network, and no default route
	Attachable bool   // recorded only: it has a meaning in a swarm alone
	DisableV4  bool
	EnableV6   bool
	IPAMDriver string // empty or "default"
	IPAMOpts   map[string]string
	Subnets    []Subnet // families with none get one from the address pools
	Options    map[string]string
	Labels     map[string]string
}

// Network is a network as it exists. Values handed out are copies.
type Network struct {
	ID         string            `json:"id"` // 64 hexadecimal digits
	Name       string            `json:"name"`
	Driver     string            `json:"driver"`
	Created    time.Time         `json:"created"`
	Internal   bool              `json:"internal,omitempty"`
	Attachable bool              `json:"attachable,omitempty"`
	EnableV4   bool              `json:"enableV4,omitempty"`
	EnableV6   bool              `json:"enableV6,omitempty"`
	IPAMDriver string            `json:"ipamDriver,omitempty"`
	IPAMOpts   map[string]string `json:"ipamOpts,omitempty"`
	Subnets    []Subnet          `json:"subnets,omitempty"`
	Options    map[string]string `json:"options,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	Bridge     string            `json:"bridge,omitempty"` // the device; driver bridge alone
}

// Predefined tells whether the network always exists: bridge, host and none.
func (n Network) Predefined() bool {
	return n.Name == NameBridge || n.Name == NameHost || n.Name == NameNone
}

// NameService tells whether containers of the network find each other by name, through the name
// server on 127.0.0.11: user-defined networks do.
func (n Network) NameService() bool { return n.Driver == DriverBridge && !n.Predefined() }

// PortRequest asks that a container's port be published on the host.
type PortRequest struct {
	ContainerPort uint16
	Proto         string     // "tcp", "udp" or "sctp"
	HostIP        netip.Addr // zero: the network's default, mostly all addresses of the host
	HostPort      uint16     // 0: a free one from net.ipv4.ip_local_port_range
	HostPortEnd   uint16     // the first free one of HostPort-HostPortEnd; 0: HostPort alone
}

// Port is a published port as it is.
type Port struct {
	ContainerPort uint16     `json:"containerPort"`
	Proto         string     `json:"proto"`
	HostIP        netip.Addr `json:"hostIp"` // 0.0.0.0 or :: for all
	HostPort      uint16     `json:"hostPort"`
}

// EndpointRequest asks for one container's place in one network.
type EndpointRequest struct {
	NetworkID     string // id, name, or unambiguous prefix of an id
	ContainerID   string // 64 hexadecimal digits
	ContainerName string // without the leading slash
	Aliases       []string
	DNSNames      []string          // all names the container answers to here; empty: name, aliases and short id
	IPv4, IPv6    netip.Addr        // zero: the next free one
	MAC           net.HardwareAddr  // nil: made from the IPv4 address
	Ports         []PortRequest     // publish on one endpoint of a container only: the one with the default route
	GwPriority    int               // the highest of a container's endpoints gets the default route; equal: first by network name
	Interface     string            // name inside, as "eth1"; empty: the first free "eth%d"
	Links         map[string]string // more names that this container alone sees: alias to container name
	PortsLater    bool              // ports come by HandOver
}

// Endpoint is one container's place in one network. It is what inspect shows.
type Endpoint struct {
	ID            string            `json:"id"` // 64 hexadecimal digits
	NetworkID     string            `json:"networkId"`
	NetworkName   string            `json:"networkName"`
	ContainerID   string            `json:"containerId"`
	ContainerName string            `json:"containerName"`
	Aliases       []string          `json:"aliases,omitempty"`
	DNSNames      []string          `json:"dnsNames,omitempty"`
	IPv4          netip.Prefix      `json:"ipv4,omitzero"` // address and prefix length
	IPv6          netip.Prefix      `json:"ipv6,omitzero"`
	Gateway4      netip.Addr        `json:"gateway4,omitzero"`
	Gateway6      netip.Addr        `json:"gateway6,omitzero"`
	MAC           net.HardwareAddr  `json:"mac,omitempty"`
	Ports         []Port            `json:"ports,omitempty"`
	GwPriority    int               `json:"gwPriority,omitempty"`
	Links         map[string]string `json:"links,omitempty"`
	Interface     string            `json:"interface,omitempty"` // name inside, once attached
	Veth          string            `json:"veth,omitempty"`      // name on the host, "dv" and 8 hexadecimal digits, once attached
	Port          int               `json:"port,omitempty"`      // index of Veth
	DNS           []netip.Addr      `json:"dns,omitempty"`       // Sandbox.DNS at its attachment
	PortsLater    bool              `json:"portsLater,omitempty"`
	TookPorts     bool              `json:"tookPorts,omitempty"` // from another container: its claim is the younger one
}

// Sandbox is the network namespace of a container.
type Sandbox struct {
	ContainerID string
	NetNS       NetNS
	// DNS are the servers that the name server on 127.0.0.11 asks for names outside (--dns); empty:
	// the engine's Options.DNS, and when that is empty too those of the host.
	DNS []netip.Addr
}

// NetNS is an open network namespace; an *os.File of /proc/<pid>/ns/net is one. It is used during the
// call only.
type NetNS interface{ Fd() uintptr }
