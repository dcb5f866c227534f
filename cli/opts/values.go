package opts

import (
	"bufio"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// Env joins the variables of files and flags; a name without "=" takes this process's value, or is left
// out when there is none.
func Env(files, values []string) ([]string, error) {
	var all []string
	for _, file := range files {
		lines, err := Lines(file)
		if err != nil {
			return nil, err
		}
		for _, line := range lines {
			if name, _, _ := strings.Cut(line, "="); strings.ContainsAny(name, " \t") || name == "" {
				return nil, fmt.Errorf("invalid env file (%s): variable '%s' contains whitespaces or is empty", file, name)
			}
		}
		all = append(all, lines...)
	}
	var env []string
	for _, value := range append(all, values...) {
		name, _, hasValue := strings.Cut(value, "=")
		if name == "" {
			return nil, fmt.Errorf("invalid environment variable: %s", value)
		}
		if !hasValue {
			v, ok := os.LookupEnv(name)
			if !ok {
				continue
			}
			value = name + "=" + v
		}
		env = append(env, value)
	}
	return env, nil
}

// Lines reads a file of one value a line; empty lines and comments are left out.
func Lines(file string) ([]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var lines []string
	scanner := bufio.NewScanner(f)
	for scanner.Scan() {
		line := strings.TrimLeft(strings.TrimPrefix(scanner.Text(), "\uFEFF"), " \t")
		if line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return lines, scanner.Err()
}

// Pairs turns key=value words into a map; a key alone has an empty value.
func Pairs(values []string) map[string]string {
	pairs := map[string]string{}
	for _, value := range values {
		key, v, _ := strings.Cut(value, "=")
		pairs[key] = v
	}
	return pairs
}

// Labels joins the labels of files and flags.
func Labels(files, values []string) (map[string]string, error) {
	var all []string
	for _, file := range files {
		lines, err := Lines(file)
		if err != nil {
			return nil, err
		}
		all = append(all, lines...)
	}
	return Pairs(append(all, values...)), nil
}

// Restart parses a value of --restart: no, always, unless-stopped, on-failure[:count].
func Restart(value string) (container.RestartPolicy, error) {
	name, count, hasCount := strings.Cut(value, ":")
	policy := container.RestartPolicy{Name: container.RestartPolicyMode(name)}
	if hasCount {
		n, err := strconv.Atoi(count)
		if err != nil {
			return policy, errors.New("invalid restart policy format: maximum retry count must be an integer")
		}
		policy.MaximumRetryCount = n
	}
	return policy, nil
}

// CPUs parses a number of processors, "1.5", into billionths.
func CPUs(value string) (int64, error) {
	cpu, ok := new(big.Rat).SetString(value)
	if !ok {
		return 0, fmt.Errorf("failed to parse %v as a rational number", value)
	}
	nano := cpu.Mul(cpu, big.NewRat(1e9, 1))
	if !nano.IsInt() {
		return 0, fmt.Errorf("value is too precise")
	}
	return nano.Num().Int64(), nil
}

// Bytes parses a size such as 512m; "" is 0.
func Bytes(value string) (int64, error) {
	if value == "" {
		return 0, nil
	}
	return units.RAMInBytes(value)
}

// Swap parses a value of --memory-swap, where -1 means unlimited.
func Swap(value string) (int64, error) {
	if value == "-1" {
		return -1, nil
	}
	return Bytes(value)
}

// Device parses a value of --device: host[:container[:permissions]].
func Device(value string) (container.DeviceMapping, error) {
	m := container.DeviceMapping{CgroupPermissions: "rwm"}
	parts := strings.Split(value, ":")
	m.PathOnHost, m.PathInContainer = parts[0], parts[0]
	switch {
	case len(parts) == 2 && permissions(parts[1]):
		m.CgroupPermissions = parts[1]
	case len(parts) == 2:
		m.PathInContainer = parts[1]
	case len(parts) == 3:
		m.PathInContainer, m.CgroupPermissions = parts[1], parts[2]
	case len(parts) > 3:
		return m, fmt.Errorf("invalid device specification: %s", value)
	}
	if !permissions(m.CgroupPermissions) {
		return m, fmt.Errorf("invalid device mode: %s", m.CgroupPermissions)
	}
	if !path.IsAbs(m.PathInContainer) {
		return m, fmt.Errorf("invalid device specification: %s", value)
	}
	return m, nil
}

func permissions(s string) bool { return s != "" && strings.Trim(s, "rwm") == "" }

// Throttle parses device:rate; a rate of bytes may have a unit.
func Throttle(value string, bytes bool) (*blkiodev.ThrottleDevice, error) {
	device, rate, ok := strings.Cut(value, ":")
	if !ok || !strings.HasPrefix(device, "/dev/") {
		return nil, fmt.Errorf("bad format: %s. Correct format is <device-path>:<rate>", value)
	}
	var n int64
	var err error
	if bytes {
		n, err = units.RAMInBytes(rate)
	} else {
		n, err = strconv.ParseInt(rate, 10, 64)
	}
	if err != nil || n < 0 {
		return nil, fmt.Errorf("invalid rate for device: %s", value)
	}
	return &blkiodev.ThrottleDevice{Path: device, Rate: uint64(n)}, nil
}

// Weight parses device:weight.
func Weight(value string) (*blkiodev.WeightDevice, error) {
	device, weight, ok := strings.Cut(value, ":")
	n, err := strconv.ParseUint(weight, 10, 16)
	if !ok || err != nil || !strings.HasPrefix(device, "/dev/") {
		return nil, fmt.Errorf("bad format: %s. Correct format is <device-path>:<weight>", value)
	}
	return &blkiodev.WeightDevice{Path: device, Weight: uint16(n)}, nil
}

// Addresses parses the values of --dns.
func Addresses(values []string) ([]netip.Addr, error) {
	var all []netip.Addr
	for _, value := range values {
		address, err := netip.ParseAddr(value)
		if err != nil {
			return nil, fmt.Errorf("%s is not an ip address", value)
		}
		all = append(all, address)
	}
	return all, nil
}

// Network is a value of --network: a name or mode, or name=..,alias=..,ip=..
type Network struct {
	Name     string
	Settings *network.EndpointSettings
}

// ParseNetwork parses a value of --network.
func ParseNetwork(value string) (Network, error) {
	n := Network{Name: value, Settings: &network.EndpointSettings{}}
	if !strings.Contains(value, "=") {
		return n, nil
	}
	n.Name = ""
	for field := range strings.SplitSeq(value, ",") {
		key, v, ok := strings.Cut(field, "=")
		if !ok {
			return n, fmt.Errorf("invalid field %s", field)
		}
		if err := n.set(strings.TrimSpace(strings.ToLower(key)), strings.TrimSpace(v)); err != nil {
			return n, err
		}
	}
	if n.Name == "" {
		return n, errors.New("network name/id is not specified")
	}
	return n, nil
}

func (n *Network) set(key, value string) error {
	var err error
	switch key {
	case "name":
		n.Name = value
	case "alias":
		n.Settings.Aliases = append(n.Settings.Aliases, value)
	case "ip":
		err = n.SetIP(value, "")
	case "ip6":
		err = n.SetIP("", value)
	case "mac-address":
		err = n.Settings.MacAddress.UnmarshalText([]byte(value))
	case "driver-opt":
		n.Settings.DriverOpts = withPair(n.Settings.DriverOpts, value)
	case "gw-priority":
		n.Settings.GwPriority, err = strconv.Atoi(value)
	case "link-local-ip":
		var address netip.Addr
		if address, err = netip.ParseAddr(value); err == nil {
			n.ipam().LinkLocalIPs = append(n.ipam().LinkLocalIPs, address)
		}
	default:
		return fmt.Errorf("invalid field key %s", key)
	}
	if err != nil {
		return fmt.Errorf("invalid %s %q: %w", key, value, err)
	}
	return nil
}

func (n *Network) ipam() *network.EndpointIPAMConfig {
	if n.Settings.IPAMConfig == nil {
		n.Settings.IPAMConfig = &network.EndpointIPAMConfig{}
	}
	return n.Settings.IPAMConfig
}

// SetIP sets the addresses that are not empty.
func (n *Network) SetIP(ip4, ip6 string) (err error) {
	if ip4 != "" {
		if n.ipam().IPv4Address, err = netip.ParseAddr(ip4); err != nil {
			return fmt.Errorf("invalid IPv4 address: %s", ip4)
		}
	}
	if ip6 != "" {
		if n.ipam().IPv6Address, err = netip.ParseAddr(ip6); err != nil {
			return fmt.Errorf("invalid IPv6 address: %s", ip6)
		}
	}
	return nil
}

// SecurityOptions replaces seccomp=FILE by the file's content, as the engine may be elsewhere.
func SecurityOptions(values []string) ([]string, error) {
	out := make([]string, 0, len(values))
	for _, value := range values {
		key, v, ok := strings.Cut(value, "=")
		if !ok {
			key, v, ok = strings.Cut(value, ":")
		}
		if !ok && value != "no-new-privileges" {
			return nil, fmt.Errorf("invalid --security-opt: %q", value)
		}
		if key == "seccomp" && v != "unconfined" && v != "builtin" {
			profile, err := os.ReadFile(v)
			if err != nil {
				return nil, fmt.Errorf("opening seccomp profile (%s) failed: %w", v, err)
			}
			value = "seccomp=" + string(profile)
		}
		out = append(out, value)
	}
	return out, nil
}
