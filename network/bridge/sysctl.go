package bridge

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Kernel parameters of devices, in the current thread's network namespace: see
// Documentation/networking/ip-sysctl in the kernel's sources.
const (
	confIPv4 = "/proc/sys/net/ipv4/conf"
	confIPv6 = "/proc/sys/net/ipv6/conf"
)

func setIPv4(device, name string, on bool) error {
	return write(filepath.Join(confIPv4, device, name), on)
}

// setIPv6 is nothing to do on a kernel without IPv6.
func setIPv6(device, name string, on bool) error {
	err := write(filepath.Join(confIPv6, device, name), on)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func write(path string, on bool) error {
	value := "0"
	if on {
		value = "1"
	}
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		return fmt.Errorf("set kernel parameter: %w", err)
	}
	return nil
}

func isOn(path string) (bool, error) {
	value, err := os.ReadFile(path)
	if err != nil {
		return false, fmt.Errorf("read kernel parameter: %w", err)
	}
	return strings.TrimSpace(string(value)) != "0", nil
}

// Forwarding makes the host route IPv4, and with v6 IPv6 too, and tells whether it did not before.
// Routing IPv6 makes the kernel ignore router advertisements; devices that lived by them are told to go
// on (accept_ra 2).
func Forwarding(v6 bool) (changed bool, err error) {
	const path4 = "/proc/sys/net/ipv4/ip_forward"
	on, err := isOn(path4)
	if err != nil {
		return false, err
	}
	if !on {
		changed = true
		err = write(path4, true)
	}
	if v6 {
		err = errors.Join(err, forwarding6())
	}
	return changed, err
}

func forwarding6() error {
	path := filepath.Join(confIPv6, "all", "forwarding")
	if on, err := isOn(path); err != nil || on {
		return err
	}
	devices, err := os.ReadDir(confIPv6)
	if err != nil {
		return fmt.Errorf("list devices: %w", err)
	}
	for _, d := range devices {
		accept := filepath.Join(confIPv6, d.Name(), "accept_ra")
		if value, err := os.ReadFile(accept); err == nil && strings.TrimSpace(string(value)) == "1" {
			if err := os.WriteFile(accept, []byte("2"), 0); err != nil {
				return fmt.Errorf("set kernel parameter: %w", err)
			}
		}
	}
	return write(path, true)
}
