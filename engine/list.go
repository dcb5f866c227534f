package engine

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	wirenet "github.com/moby/moby/api/types/network"

	"github.com/docker/go-units"

	"davit/engine/container"
	"davit/oci/errdefs"
)

// Views looks at containers and changes nothing.
type Views struct{ *shared }

// ListOptions select containers.
type ListOptions struct {
	All     bool // also those that do not run
	Limit   int  // the last created so many, in whatever state; 0: all
	Size    bool // count the bytes of what they wrote
	Filters Filters
}

// List returns containers, newest first.
func (v *Views) List(ctx context.Context, o ListOptions) ([]wire.Summary, error) {
	keep, err := v.filter(ctx, o)
	if err != nil {
		return nil, err
	}
	list := []wire.Summary{}
	all := v.roster.all()
	aliases := linkAliases(all)
	for _, a := range all {
		r := a.record()
		if r.State.Status == container.Removed || !keep(r) {
			continue
		}
		s := v.summary(r)
		s.Names = append(s.Names, aliases[r.Name]...)
		if o.Size {
			if s.SizeRw, s.SizeRootFs, err = v.sizes(ctx, r); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
				return nil, err
			}
		}
		list = append(list, s)
		if o.Limit > 0 && len(list) == o.Limit {
			break
		}
	}
	return list, nil
}

// filter returns the test that a listed container passes.
func (v *Views) filter(ctx context.Context, o ListOptions) (func(*container.Record) bool, error) {
	f := o.Filters
	if err := f.Only("ancestor", "before", "expose", "exited", "health", "id", "isolation", "is-task", "label", "label!", "name", "network", "publish", "since", "status", "volume"); err != nil {
		return nil, err
	}
	for _, s := range f["status"] {
		if err := wire.ValidateContainerState(wire.ContainerState(s)); err != nil {
			return nil, errdefs.Invalid("invalid filter 'status=%s'", s)
		}
	}
	for _, code := range f["exited"] {
		if _, err := strconv.Atoi(code); err != nil {
			return nil, errdefs.Invalid("invalid filter 'exited=%s'", code)
		}
	}
	for _, field := range []string{"publish", "expose"} {
		for _, ports := range f[field] {
			if _, err := wirenet.ParsePortRange(ports); err != nil {
				return nil, errdefs.Invalid("invalid filter '%s=%s': %w", field, ports, err)
			}
		}
	}
	if _, _, err := f.Flag("is-task"); err != nil {
		return nil, err
	}
	for _, health := range f["health"] {
		if !slices.Contains([]wire.HealthStatus{wire.NoHealthcheck, wire.Starting, wire.Healthy, wire.Unhealthy}, wire.HealthStatus(health)) {
			return nil, errdefs.Invalid("unrecognised filter value for health: %s", health)
		}
	}
	before, err := v.createdOf(f["before"])
	if err != nil {
		return nil, err
	}
	since, err := v.createdOf(f["since"])
	if err != nil {
		return nil, err
	}
	ancestors := v.ancestors(ctx, f["ancestor"])
	all := o.All || o.Limit > 0 || len(f["status"]) > 0 || len(f["exited"]) > 0
	return func(r *container.Record) bool {
		return (all || r.State.Status.Alive() || r.State.Status == container.Restarting) &&
			(before.IsZero() || r.Created.Before(before)) && (since.IsZero() || r.Created.After(since)) &&
			(ancestors == nil || ancestors(r)) && f.Labels(r.Config.Labels) && matchesRecord(f, r)
	}, nil
}

func matchesRecord(f Filters, r *container.Record) bool {
	volumes := []string{}
	for _, m := range r.Mounts {
		volumes = append(volumes, m.Name, m.Destination, m.Source)
	}
	networks := []string{}
	for name := range r.Endpoints {
		networks = append(networks, name)
	}
	for name, e := range r.State.Networks {
		networks = append(networks, name, e.NetworkID)
	}
	idMatches := len(f["id"]) == 0 || slices.ContainsFunc(f["id"], func(id string) bool { return strings.HasPrefix(r.ID, id) })
	return idMatches && f.Match("name", r.Name) && f.Exact("status", string(r.State.Status.Shown())) &&
		f.Exact("exited", exitedAs(r)) && f.Exact("health", string(healthOf(r))) && f.Exact("volume", volumes...) &&
		f.Exact("network", networks...) && f.Exact("isolation", "", "default") && f.Exact("is-task", "false") &&
		matchesPorts(f["publish"], r.HostConfig.PortBindings) && matchesPorts(f["expose"], r.Config.ExposedPorts)
}

func exitedAs(r *container.Record) string {
	if r.State.Status != container.Exited || r.State.StartedAt.IsZero() {
		return ""
	}
	return strconv.Itoa(r.State.ExitCode)
}

// matchesPorts says whether one of the filter's ports or ranges is among ports.
func matchesPorts[V any](wanted []string, ports map[wirenet.Port]V) bool {
	if len(wanted) == 0 {
		return true
	}
	for _, text := range wanted {
		asked, err := wirenet.ParsePortRange(text)
		if err != nil {
			continue
		}
		for port := range ports {
			if port.Proto() == asked.Proto() && port.Num() >= asked.Start() && port.Num() <= asked.End() {
				return true
			}
		}
	}
	return false
}

func (v *Views) createdOf(names []string) (time.Time, error) {
	if len(names) == 0 {
		return time.Time{}, nil
	}
	a, err := v.roster.find(names[0])
	if err != nil {
		return time.Time{}, err
	}
	return a.record().Created, nil
}

// ancestors tests whether a container comes from one of the images, or one built on it.
func (v *Views) ancestors(ctx context.Context, names []string) func(*container.Record) bool {
	if len(names) == 0 {
		return nil
	}
	var stacks [][]string
	for _, name := range names {
		if img, err := v.Options.Images.Resolve(ctx, name, nil); err == nil {
			stack := []string{}
			for _, l := range img.Layers {
				stack = append(stack, string(l))
			}
			stacks = append(stacks, stack)
		}
	}
	return func(r *container.Record) bool {
		return slices.ContainsFunc(stacks, func(stack []string) bool {
			if len(stack) > len(r.Image.Layers) {
				return false
			}
			for i, l := range stack {
				if string(r.Image.Layers[i]) != l {
					return false
				}
			}
			return true
		})
	}
}

func (v *Views) summary(r *container.Record) wire.Summary {
	s := wire.Summary{
		ID: r.ID, Names: []string{"/" + r.Name}, Image: v.imageName(r), ImageID: string(r.Image.ID),
		Command: commandLine(r), Created: r.Created.Unix(), Ports: portSummaries(r), Labels: r.Config.Labels,
		State: wire.ContainerState(r.State.Status.Shown()), Status: v.phrase(r),
		NetworkSettings: &wire.NetworkSettingsSummary{Networks: networksOf(r)}, Mounts: mountPoints(r),
	}
	if s.Labels == nil {
		s.Labels = map[string]string{}
	}
	s.HostConfig.NetworkMode, s.HostConfig.Annotations = string(r.HostConfig.NetworkMode), r.HostConfig.Annotations
	if h := healthOf(r); h != wire.NoHealthcheck {
		s.Health = &wire.HealthSummary{Status: h, FailingStreak: r.State.Health.FailingStreak}
	}
	return s
}

// imageName is the name that the user gave, as long as it means the same image.
func (v *Views) imageName(r *container.Record) string {
	img, err := v.Options.Images.Resolve(context.Background(), r.Image.Name, nil)
	if err == nil && img.ID == r.Image.ID {
		return r.Image.Name
	}
	return string(r.Image.ID)
}

func commandLine(r *container.Record) string {
	var words []string
	for _, w := range append(slices.Clone(r.Config.Entrypoint), r.Config.Cmd...) {
		if strings.Contains(w, " ") {
			w = "'" + w + "'"
		}
		words = append(words, w)
	}
	return strings.Join(words, " ")
}

func networksOf(r *container.Record) map[string]*wirenet.EndpointSettings {
	if len(r.State.Networks) > 0 {
		return r.State.Networks
	}
	all := map[string]*wirenet.EndpointSettings{}
	for name, e := range r.Endpoints {
		all[name] = e
	}
	return all
}

func portSummaries(r *container.Record) []wire.PortSummary {
	list := []wire.PortSummary{}
	if !r.State.Status.Alive() {
		return list
	}
	for port, bindings := range r.State.Ports {
		if len(bindings) == 0 {
			list = append(list, wire.PortSummary{PrivatePort: port.Num(), Type: string(port.Proto())})
		}
		for _, b := range bindings {
			public, _ := strconv.ParseUint(b.HostPort, 10, 16)
			list = append(list, wire.PortSummary{IP: b.HostIP, PrivatePort: port.Num(), PublicPort: uint16(public), Type: string(port.Proto())})
		}
	}
	slices.SortFunc(list, func(a, b wire.PortSummary) int {
		if d := int(a.PrivatePort) - int(b.PrivatePort); d != 0 {
			return d
		}
		return a.IP.Compare(b.IP)
	})
	return list
}

func mountPoints(r *container.Record) []wire.MountPoint {
	points := []wire.MountPoint{}
	for _, m := range r.Mounts {
		if _, asked := r.HostConfig.Tmpfs[m.Destination]; asked && m.Type == mount.TypeTmpfs {
			continue // --tmpfs is shown in HostConfig alone
		}
		points = append(points, wire.MountPoint{
			Type: m.Type, Name: m.Name, Source: path.Join(m.Source, m.Subpath), Destination: m.Destination,
			Driver: m.Driver, Mode: m.Mode, RW: m.RW, Propagation: m.Propagation,
		})
	}
	return points
}

func healthOf(r *container.Record) wire.HealthStatus {
	if r.State.Health == nil {
		return wire.NoHealthcheck
	}
	return r.State.Health.Status
}

// phrase is the state in words, as ps shows it.
func (v *Views) phrase(r *container.Record) string {
	s := r.State
	upFor := units.HumanDuration(v.Now().Sub(s.StartedAt))
	downFor := units.HumanDuration(v.Now().Sub(s.FinishedAt))
	switch s.Status {
	case container.Running:
		switch h := healthOf(r); h {
		case wire.NoHealthcheck:
			return "Up " + upFor
		case wire.Starting:
			return fmt.Sprintf("Up %s (health: starting)", upFor)
		default:
			return fmt.Sprintf("Up %s (%s)", upFor, h)
		}
	case container.Paused:
		return fmt.Sprintf("Up %s (Paused)", upFor)
	case container.Restarting:
		return fmt.Sprintf("Restarting (%d) %s ago", s.ExitCode, downFor)
	case container.Removing, container.Removed:
		return "Removal In Progress"
	case container.Dead:
		return "Dead"
	case container.Exited:
		if s.FinishedAt.IsZero() {
			return "Created"
		}
		return fmt.Sprintf("Exited (%d) %s ago", s.ExitCode, downFor)
	}
	return "Created"
}

// sizes are the bytes that a container's own files hold, and those and its image's together. What they take
// on the disk, its log included, is in DiskUsage.
func (s *shared) sizes(ctx context.Context, r *container.Record) (written, total int64, err error) {
	if written, err = s.Snapshots.Written(ctx, r.ID); err != nil {
		return 0, 0, err
	}
	total = written
	for i := range r.Image.Layers {
		n, err := s.Layers.Size(r.Image.Layers[:i+1]...)
		if err != nil {
			return 0, 0, err
		}
		total += n
	}
	return written, total, nil
}
