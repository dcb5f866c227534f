package cgroup

import (
	"context"
	"fmt"
	"math"
	"path"
	"strings"

	systemd "github.com/godbus/dbus/v5"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// allowedDevice is systemd's (ss) pair of DeviceAllow; see systemd.resource-control(5).
type allowedDevice struct{ Path, Access string }

// limitProperties say in systemd's words what Set writes. systemd writes its own idea of a unit's limits
// again whenever it likes (systemctl daemon-reload), and would take away those that it was not told.
func limitProperties(r *specs.LinuxResources, v2 bool) ([]property, error) {
	if r == nil {
		return nil, nil
	}
	var props []property
	add := func(name string, value any) { props = append(props, property{name, systemd.MakeVariant(value)}) }
	if m := r.Memory; m != nil {
		memory, err := memoryProperties(m, v2)
		if err != nil {
			return nil, err
		}
		props = append(props, memory...)
	}
	if c := r.CPU; c != nil {
		if c.Shares != nil && *c.Shares != 0 && v2 {
			add("CPUWeight", weight(*c.Shares))
		} else if c.Shares != nil && *c.Shares != 0 {
			add("CPUShares", *c.Shares)
		}
		if c.Period != nil && *c.Period != 0 {
			add("CPUQuotaPeriodUSec", *c.Period)
		}
		if c.Quota != nil {
			add("CPUQuotaPerSecUSec", quotaPerSecond(c))
		}
	}
	if p := r.Pids; p != nil && p.Limit != nil && *p.Limit != 0 {
		add("TasksMax", orInfinity(*p.Limit))
	}
	if len(r.Devices) > 0 {
		devices, err := deviceProperties(r.Devices)
		if err != nil {
			return nil, err
		}
		props = append(props, devices...)
	}
	return props, nil
}

func memoryProperties(m *specs.LinuxMemory, v2 bool) ([]property, error) {
	var props []property
	if m.Limit != nil && *m.Limit != 0 {
		name := "MemoryLimit"
		if v2 {
			name = "MemoryMax"
		}
		props = append(props, property{name, systemd.MakeVariant(orInfinity(*m.Limit))})
	}
	if !v2 {
		return props, nil
	}
	if m.Reservation != nil && *m.Reservation > 0 {
		props = append(props, property{"MemoryLow", systemd.MakeVariant(uint64(*m.Reservation))})
	}
	swap, set, err := swapV2(m)
	if err != nil {
		return nil, err
	}
	if set {
		props = append(props, property{"MemorySwapMax", systemd.MakeVariant(orInfinity(swap))})
	}
	return props, nil
}

// orInfinity is a limit in systemd's numbering, where the highest number means none.
func orInfinity(n int64) uint64 {
	if n < 0 {
		return math.MaxUint64
	}
	return uint64(n)
}

// quotaPerSecond is a quota in microseconds of each second, in steps of 10 ms: systemd knows no finer.
func quotaPerSecond(c *specs.LinuxCPU) uint64 {
	if *c.Quota <= 0 {
		return math.MaxUint64
	}
	period := uint64(100_000)
	if c.Period != nil && *c.Period != 0 {
		period = *c.Period
	}
	const step = 10_000
	return (uint64(*c.Quota)*1_000_000/period + step - 1) / step * step
}

// deviceProperties is the list of allowed devices, in place of an earlier one. systemd has no word for
// "all but some"; then it allows all, and what Set writes holds until systemd writes again.
func deviceProperties(rules []specs.LinuxDeviceCgroup) ([]property, error) {
	list, err := resolveDevices(rules)
	if err != nil {
		return nil, err
	}
	policy, allowed := "strict", []allowedDevice{}
	if list.allow {
		policy = "auto"
	} else {
		for _, d := range list.sorted() {
			if name := unitDevice(d); name != "" {
				allowed = append(allowed, allowedDevice{name, list.except[d].String()})
			}
		}
	}
	return []property{
		{"DevicePolicy", systemd.MakeVariant(policy)},
		{"DeviceAllow", systemd.MakeVariant([]allowedDevice{})}, // an empty list makes the next one the only one
		{"DeviceAllow", systemd.MakeVariant(allowed)},
	}, nil
}

// unitDevice names devices for systemd: a node of /dev/char and /dev/block by number, or a group of
// /proc/devices, of which only the pseudo-terminals' is the same everywhere.
func unitDevice(d device) string {
	kind := map[byte]string{'c': "char", 'b': "block"}[d.kind]
	const pseudoTerminals = 136
	switch {
	case d.major == anyNumber:
		return kind + "-*"
	case d.minor != anyNumber:
		return fmt.Sprintf("/dev/%s/%d:%d", kind, d.major, d.minor)
	case d.major == pseudoTerminals:
		return kind + "-pts"
	}
	return ""
}

// tellSystemd has a scope's unit say what is about to be set.
func (g *Group) tellSystemd(r *specs.LinuxResources) error {
	if !strings.HasSuffix(g.path, scopeSuffix) || !exists(systemdRunning) {
		return nil
	}
	props, err := limitProperties(r, g.pureV2())
	if err != nil || len(props) == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), scopeTimeout)
	defer cancel()
	conn, err := systemd.ConnectSystemBus(systemd.WithContext(ctx))
	if err != nil {
		return fmt.Errorf("connect to systemd: %w", err)
	}
	defer conn.Close()
	unit := path.Base(g.path)
	const runtime = true // not over a reboot
	if err := conn.Object(bus, busPath).CallWithContext(ctx, busManager+".SetUnitProperties", 0, unit, runtime, props).Err; err != nil {
		return fmt.Errorf("set limits of scope %s: %w", unit, err)
	}
	return nil
}
