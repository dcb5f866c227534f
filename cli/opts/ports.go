// Package opts parses the values that docker's flags take: ports, mounts, networks, environment files and
// the like. Functions are pure except where they read a file that the value names. Errors say what is
// wrong in docker's words.
package opts

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/network"
)

// Ports parses the values of --publish, [[ip:][hostPort[-end]]:]port[-end][/protocol] or
// published=..,target=..,protocol=.., into exposed ports and bindings.
func Ports(values []string) (network.PortSet, network.PortMap, error) {
	set, bindings := network.PortSet{}, network.PortMap{}
	for _, value := range values {
		if strings.Contains(value, "=") {
			short, err := longPort(value)
			if err != nil {
				return nil, nil, err
			}
			value = short
		}
		if err := addPort(set, bindings, value); err != nil {
			return nil, nil, err
		}
	}
	return set, bindings, nil
}

// longPort turns the key=value form into the short one.
func longPort(value string) (string, error) {
	fields := map[string]string{"protocol": "tcp"}
	for part := range strings.SplitSeq(value, ",") {
		key, v, ok := strings.Cut(part, "=")
		switch key {
		case "published", "target", "protocol", "mode":
		default:
			return "", fmt.Errorf("invalid field key %s in %q", key, value)
		}
		if !ok || v == "" {
			return "", fmt.Errorf("invalid field %s in %q", part, value)
		}
		fields[key] = v
	}
	if fields["target"] == "" {
		return "", fmt.Errorf("invalid port %q: target is missing", value)
	}
	return fields["published"] + ":" + fields["target"] + "/" + fields["protocol"], nil
}

func addPort(set network.PortSet, bindings network.PortMap, value string) error {
	rest, protocol, hasProtocol := strings.Cut(value, "/")
	if !hasProtocol {
		protocol = "tcp"
	}
	switch protocol = strings.ToLower(protocol); protocol {
	case "tcp", "udp", "sctp":
	default:
		return fmt.Errorf("invalid proto: %s", protocol)
	}
	ip, hostPorts, containerPorts, err := splitPort(rest)
	if err != nil {
		return err
	}
	first, last, err := portRange(containerPorts, "containerPort", value)
	if err != nil {
		return err
	}
	hostFirst, hostLast := 0, 0
	if hostPorts != "" {
		if hostFirst, hostLast, err = portRange(hostPorts, "hostPort", value); err != nil {
			return err
		}
	}
	if hostPorts != "" && hostLast-hostFirst != last-first && last != first {
		return fmt.Errorf("invalid ranges specified for container and host Ports: %s and %s", containerPorts, hostPorts)
	}
	for n := first; n <= last; n++ {
		port, ok := network.PortFrom(uint16(n), network.IPProtocol(protocol))
		if !ok {
			return fmt.Errorf("invalid port %q", value)
		}
		set[port] = struct{}{}
		host := hostPorts
		if hostPorts != "" && last != first {
			host = strconv.Itoa(hostFirst + n - first)
		}
		bindings[port] = append(bindings[port], network.PortBinding{HostIP: ip, HostPort: host})
	}
	return nil
}

// splitPort takes [ip:]host:container apart; an IPv6 address is in brackets.
func splitPort(value string) (ip netip.Addr, host, container string, err error) {
	address := ""
	if strings.HasPrefix(value, "[") {
		end := strings.Index(value, "]:")
		if end < 0 {
			return ip, "", "", fmt.Errorf("invalid IP address in port %q", value)
		}
		address, value = value[1:end], value[end+2:]
	}
	parts := strings.Split(value, ":")
	switch len(parts) {
	case 1:
		container = parts[0]
	case 2:
		host, container = parts[0], parts[1]
	case 3:
		address, host, container = parts[0], parts[1], parts[2]
	default:
		return ip, "", "", fmt.Errorf("invalid port specification %q", value)
	}
	if container == "" {
		return ip, "", "", fmt.Errorf("no port specified: %s<empty>", value)
	}
	if address != "" {
		if ip, err = netip.ParseAddr(address); err != nil {
			return ip, "", "", fmt.Errorf("invalid IP address: %s", address)
		}
	}
	return ip, host, container, nil
}

func portRange(value, what, whole string) (first, last int, err error) {
	low, high, ok := strings.Cut(value, "-")
	if !ok {
		high = low
	}
	first, err1 := strconv.Atoi(low)
	last, err2 := strconv.Atoi(high)
	if err1 != nil || err2 != nil || first < 0 || last > 65535 || first > last {
		return 0, 0, fmt.Errorf("invalid %s: %s (in %q)", what, value, whole)
	}
	return first, last, nil
}

// Expose parses a value of --expose, port[-end][/protocol], into the set.
func Expose(set network.PortSet, value string) error {
	parsed, err := network.ParsePortRange(value)
	if err != nil {
		return fmt.Errorf("invalid range format for --expose: %s, error: %w", value, err)
	}
	for port := range parsed.All() {
		set[port] = struct{}{}
	}
	return nil
}
