package network

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Host is one line of /etc/hosts.
type Host struct {
	Addr  netip.Addr
	Names []string
}

// HostsFile returns the content of a container's /etc/hosts: the loopback names, extra (--add-host,
// links), and for each endpoint a line with hostname, qualified first when domain is set. The address
// host-gateway of --add-host must be resolved by the caller (Controller.HostGateway).
func HostsFile(hostname, domain string, endpoints []Endpoint, extra []Host) []byte {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n" +
		"::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::\tip6-localnet\n" +
		"ff00::\tip6-mcastprefix\n" +
		"ff02::1\tip6-allnodes\n" +
		"ff02::2\tip6-allrouters\n")
	for _, h := range extra {
		fmt.Fprintf(&b, "%s\t%s\n", h.Addr, strings.Join(h.Names, " "))
	}
	names := hostname
	if domain != "" {
		names += "." + domain
	}
	if short, _, long := strings.Cut(names, "."); long {
		names += " " + short
	}
	for _, e := range endpoints {
		for _, p := range []netip.Prefix{e.IPv4, e.IPv6} {
			if p.IsValid() && hostname != "" {
				fmt.Fprintf(&b, "%s\t%s\n", p.Addr(), names)
			}
		}
	}
	return []byte(b.String())
}

// ResolvRequest is what a container's /etc/resolv.conf is made from.
type ResolvRequest struct {
	Host        []byte       // the host's resolv.conf
	Servers     []netip.Addr // --dns; empty: the host's
	Search      []string     // --dns-search; nil: the host's; ["."]: none
	Options     []string     // --dns-option; nil: the host's
	NameService bool         // a network of the container has one: the only server is 127.0.0.11
	IPv6        bool         // the container has IPv6: keep such servers
	HostNetwork bool         // --net=host: loopback servers of the host work, keep them
}

// ServerEmbedded is where a container finds davit's own name server.
func ServerEmbedded() netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 0, 11}) }

// ResolvConf returns the content of a container's /etc/resolv.conf by Docker's rules: loopback servers
// of the host mean nothing in a container and are left out, and where none is left Google's public ones
// stand in.
func ResolvConf(r ResolvRequest) []byte {
	host := parseResolv(r.Host)
	search, options := host.search, host.options
	if r.Search != nil {
		search = slices.DeleteFunc(slices.Clone(r.Search), func(s string) bool { return s == "." || s == "" })
	}
	if r.Options != nil {
		options = slices.Clone(r.Options)
	}
	if r.NameService && !slices.ContainsFunc(options, func(o string) bool { return strings.HasPrefix(o, "ndots:") }) {
		options = append(options, "ndots:0")
	}
	var b strings.Builder
	for _, server := range r.servers(host.servers) {
		fmt.Fprintf(&b, "nameserver %s\n", server)
	}
	if len(search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(search, " "))
	}
	if len(options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(options, " "))
	}
	return []byte(b.String())
}

// servers chooses the name servers of the file.
func (r ResolvRequest) servers(host []netip.Addr) []netip.Addr {
	switch {
	case r.NameService:
		return []netip.Addr{ServerEmbedded()}
	case len(r.Servers) > 0:
		return r.Servers
	case r.HostNetwork:
		return host
	}
	usable := slices.DeleteFunc(slices.Clone(host), func(a netip.Addr) bool {
		return a.IsLoopback() || a.Is6() && !r.IPv6
	})
	if len(usable) > 0 {
		return usable
	}
	usable = []netip.Addr{netip.AddrFrom4([4]byte{8, 8, 8, 8}), netip.AddrFrom4([4]byte{8, 8, 4, 4})}
	if r.IPv6 {
		usable = append(usable, netip.MustParseAddr("2001:4860:4860::8888"), netip.MustParseAddr("2001:4860:4860::8844"))
	}
	return usable
}

// resolv is a parsed resolv.conf; see resolv.conf(5).
type resolv struct {
	servers []netip.Addr
	search  []string
	options []string
}

// parseResolv reads a resolv.conf and ignores what it does not know, as the C library does.
func parseResolv(content []byte) resolv {
	var r resolv
	for line := range strings.Lines(string(content)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || strings.HasPrefix(fields[0], "#") || strings.HasPrefix(fields[0], ";") {
			continue
		}
		switch fields[0] {
		case "nameserver":
			if addr, err := netip.ParseAddr(fields[1]); err == nil {
				r.servers = append(r.servers, addr)
			}
		case "search", "domain":
			r.search = fields[1:]
		case "options":
			r.options = append(r.options, fields[1:]...)
		}
	}
	return r
}
