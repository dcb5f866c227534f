package cgroup

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	systemd "github.com/godbus/dbus/v5"

	"davit/oci/errdefs"
)

const (
	// systemdRunning exists when systemd is process 1; sd_booted(3).
	systemdRunning = "/run/systemd/system"

	scopeSuffix = ".scope"
	bus         = "org.freedesktop.systemd1"
	busPath     = "/org/freedesktop/systemd1"
	busManager  = bus + ".Manager"

	scopeTimeout = 30 * time.Second
)

// property is systemd's (sv) pair; see org.freedesktop.systemd1(5).
type property struct {
	Name  string
	Value systemd.Variant
}

// auxUnit is the type of StartTransientUnit's last argument, which is always empty here.
type auxUnit struct {
	Name       string
	Properties []property
}

// createScope asks systemd for a scope unit around cfg.Pid with all its controllers delegated to davit,
// then limits it as any other group.
func createScope(l *Layout, cfg Config) (*Group, error) {
	if !l.systemd {
		return nil, errdefs.New(errdefs.ErrUnsupported, "the systemd cgroup driver needs systemd as process 1")
	}
	slice, unit, err := scopeName(cfg.Path)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), scopeTimeout)
	defer cancel()
	props := []property{
		{"Description", systemd.MakeVariant("davit container " + unit)},
		{"Slice", systemd.MakeVariant(slice)},
		{"PIDs", systemd.MakeVariant([]uint32{uint32(cfg.Pid)})},
		{"Delegate", systemd.MakeVariant(true)},
		{"MemoryAccounting", systemd.MakeVariant(true)},
		{"CPUAccounting", systemd.MakeVariant(true)},
		{"TasksAccounting", systemd.MakeVariant(true)},
		{"DefaultDependencies", systemd.MakeVariant(false)},
	}
	limits, err := limitProperties(cfg.Resources, l.Mode == V2)
	if err != nil {
		return nil, err
	}
	props = append(props, limits...)
	err = job(ctx, func(m systemd.BusObject) *systemd.Call {
		return m.CallWithContext(ctx, busManager+".StartTransientUnit", 0, unit, "replace", props, []auxUnit{})
	})
	if err != nil {
		return nil, fmt.Errorf("start scope %s: %w", unit, err)
	}
	g, err := l.create(scopePath(slice, unit), cfg)
	if err == nil {
		err = g.Add(cfg.Pid) // into the v1 hierarchies, which systemd leaves alone
	}
	if err != nil {
		return nil, errors.Join(err, stopScope(context.WithoutCancel(ctx), unit))
	}
	return g, nil
}

// scopeName splits slice:prefix:name into the slice and the scope unit's name.
func scopeName(p string) (slice, unit string, err error) {
	parts := strings.Split(p, ":")
	if len(parts) != 3 || parts[2] == "" || strings.Contains(p, "/") {
		return "", "", errdefs.Invalid("invalid cgroup path %q: with systemd it must be slice:prefix:name", p)
	}
	slice, unit = parts[0], parts[2]+scopeSuffix
	if slice == "" {
		slice = "system.slice"
	}
	if parts[1] != "" {
		unit = parts[1] + "-" + unit
	}
	return slice, unit, nil
}

// scopePath is where systemd puts a unit: a-b.slice lies in a.slice (systemd.slice(5)).
func scopePath(slice, unit string) string {
	p, prefix := "/", ""
	name := strings.TrimSuffix(slice, ".slice")
	if name == "-" {
		return path.Join("/", unit)
	}
	for part := range strings.SplitSeq(name, "-") {
		prefix += part
		p = path.Join(p, prefix+".slice")
		prefix += "-"
	}
	return path.Join(p, unit)
}

// stopScope removes a scope unit. systemd removes an empty one by itself, so one that is unknown is
// fine.
func stopScope(ctx context.Context, p string) error {
	unit := path.Base(p)
	err := job(ctx, func(m systemd.BusObject) *systemd.Call {
		return m.CallWithContext(ctx, busManager+".StopUnit", 0, unit, "replace")
	})
	var failure systemd.Error
	if errors.As(err, &failure) && failure.Name == bus+".NoSuchUnit" {
		return nil
	}
	if err != nil {
		return fmt.Errorf("stop scope %s: %w", unit, err)
	}
	return nil
}

// job runs a call that queues a systemd job and waits until that job has been done.
func job(ctx context.Context, call func(systemd.BusObject) *systemd.Call) error {
	conn, err := systemd.ConnectSystemBus(systemd.WithContext(ctx))
	if err != nil {
		return fmt.Errorf("connect to systemd: %w", err)
	}
	defer conn.Close()
	removed := make(chan *systemd.Signal, 64)
	conn.Signal(removed)
	match := []systemd.MatchOption{systemd.WithMatchInterface(busManager), systemd.WithMatchMember("JobRemoved")}
	if err := conn.AddMatchSignalContext(ctx, match...); err != nil {
		return fmt.Errorf("watch systemd's jobs: %w", err)
	}
	var queued systemd.ObjectPath
	if err := call(conn.Object(bus, busPath)).Store(&queued); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case s, ok := <-removed:
			if !ok {
				return errdefs.Unavailable("the connection to systemd was lost")
			}
			// JobRemoved(u id, o job, s unit, s result)
			if len(s.Body) == 4 && s.Body[1] == queued {
				if result, _ := s.Body[3].(string); result != "done" {
					return errdefs.Unavailable("systemd's job ended as %q", result)
				}
				return nil
			}
		}
	}
}
