package server

import (
	"net/netip"
	"strings"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	wirenet "github.com/moby/moby/api/types/network"

	"davit/engine"
)

// inspectAnswer is a container's description with what API versions up to 1.51 have beyond the newest
// wire types, which scripts read (NetworkSettings.IPAddress), and davit's own.
type inspectAnswer struct {
	engine.Inspection
	NetworkSettings networkSettings
	HostConfig      hostConfig
}

// networkSettings adds the settings of the default network at the top, as before 1.52.
type networkSettings struct {
	*wire.NetworkSettings
	Bridge                 string
	HairpinMode            bool
	LinkLocalIPv6Address   string
	LinkLocalIPv6PrefixLen int
	SecondaryIPAddresses   []string
	SecondaryIPv6Addresses []string
	EndpointID             string
	Gateway                string
	GlobalIPv6Address      string
	GlobalIPv6PrefixLen    int
	IPAddress              string
	IPPrefixLen            int
	IPv6Gateway            string
	MacAddress             string
}

// hostConfig adds fields that left the wire types while clients still read them.
type hostConfig struct {
	*wire.HostConfig
	KernelMemoryTCP int64 `json:"KernelMemoryTCP"`
}

func inspected(i engine.Inspection) inspectAnswer {
	a := inspectAnswer{Inspection: i, NetworkSettings: networkSettings{NetworkSettings: i.NetworkSettings}, HostConfig: hostConfig{HostConfig: i.HostConfig}}
	if e := i.NetworkSettings.Networks[wirenet.NetworkBridge]; e != nil {
		n := &a.NetworkSettings
		n.EndpointID, n.Gateway, n.IPAddress, n.IPPrefixLen = e.EndpointID, text(e.Gateway), text(e.IPAddress), e.IPPrefixLen
		n.GlobalIPv6Address, n.GlobalIPv6PrefixLen, n.IPv6Gateway = text(e.GlobalIPv6Address), e.GlobalIPv6PrefixLen, text(e.IPv6Gateway)
		n.MacAddress = e.MacAddress.String()
	}
	return a
}

// text is an address in words, empty for none.
func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// imageAnswer is an image's description with the fields that left the wire types while templates of
// clients still name them.
type imageAnswer struct {
	image.InspectResponse
	Parent        string
	Comment       string
	Author        string
	DockerVersion string
	VirtualSize   int64 `json:",omitempty"`

	// ContainerConfig was of the container that a step of the classic builder ran in, until 1.44. docker-compose
	// 1 speaks the newest version and yet cannot make a container again without it.
	ContainerConfig *dockerspec.DockerOCIImageConfig `json:",omitempty"`
}

func inspectedImage(i image.InspectResponse, r *request) imageAnswer {
	a := imageAnswer{InspectResponse: i, Comment: i.Comment, Author: i.Author}
	if r.version.before(44) {
		a.VirtualSize = i.Size
	}
	if r.version.before(45) || strings.HasPrefix(r.UserAgent(), "docker-compose/1.") {
		a.ContainerConfig = i.Config
	}
	return a
}
