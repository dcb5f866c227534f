package container

import (
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"davit/oci/errdefs"
)

// ParseMounts returns every mount that a request means: --volumes-from first, then -v, --mount,
// --tmpfs, and the image's VOLUMEs where nothing else is mounted. Volumes have their Name, empty for an
// anonymous one, and no Source yet. from returns the mounts of another container.
func ParseMounts(c *container.Config, h *container.HostConfig, from func(container string) ([]Mount, error)) ([]Mount, error) {
	byDestination := map[string]Mount{}
	for _, spec := range h.VolumesFrom {
		inherited, err := volumesFrom(spec, from)
		if err != nil {
			return nil, err
		}
		for _, m := range inherited {
			byDestination[m.Destination] = m
		}
	}
	asked, err := requested(h)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, m := range asked {
		if seen[m.Destination] {
			return nil, errdefs.Invalid("Duplicate mount point: %s", m.Destination)
		}
		seen[m.Destination] = true
		byDestination[m.Destination] = m
	}
	for volume := range c.Volumes {
		m, err := fromVolumeConfig(volume, h.VolumeDriver)
		if err != nil {
			return nil, err
		}
		if _, taken := byDestination[m.Destination]; !taken {
			byDestination[m.Destination] = m
		}
	}
	return slices.SortedFunc(maps.Values(byDestination), func(a, b Mount) int {
		return strings.Compare(a.Destination, b.Destination)
	}), nil
}

// requested are the mounts that the user wrote.
func requested(h *container.HostConfig) ([]Mount, error) {
	var all []Mount
	for _, bind := range h.Binds {
		m, err := ParseBind(bind, h.VolumeDriver)
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	for _, request := range h.Mounts {
		m, err := fromMount(request)
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	for destination, options := range h.Tmpfs {
		if !path.IsAbs(destination) {
			return nil, errdefs.Invalid("invalid mount path: '%s' mount path must be absolute", destination)
		}
		all = append(all, Mount{Type: mount.TypeTmpfs, Destination: path.Clean(destination), RW: true, Options: TmpfsOptions(options, 0, 0)})
	}
	return all, nil
}

// ParseBind reads "[source:]destination[:options]" as -v takes it. A source that is a path is a bind
// mount, a name is a volume, and without source the volume is anonymous.
func ParseBind(spec, driver string) (Mount, error) {
	bad := errdefs.Invalid("invalid volume specification: '%s'", spec)
	parts := strings.Split(spec, ":")
	if spec == "" || len(parts) > 3 || slices.Contains(parts[:min(2, len(parts))], "") {
		return Mount{}, bad
	}
	m := Mount{RW: true}
	switch len(parts) {
	case 1:
		return fromVolumeConfig(spec, driver)
	case 3:
		m.Mode = parts[2]
	}
	m.Source, m.Destination = parts[0], path.Clean(parts[1])
	if !path.IsAbs(m.Destination) {
		return Mount{}, errdefs.Invalid("invalid volume specification: '%s': invalid mount config for type \"volume\": invalid mount path: '%s' mount path must be absolute", spec, parts[1])
	}
	if m.Destination == "/" {
		return Mount{}, errdefs.Invalid("invalid volume specification: '%s': invalid mount config for type \"volume\": invalid specification: destination can't be '/'", spec)
	}
	if path.IsAbs(m.Source) {
		m.Type, m.Source, m.CreateSource = mount.TypeBind, path.Clean(m.Source), true
		m.Propagation = mount.PropagationRPrivate
	} else {
		m.Type, m.Name, m.Source, m.Driver = mount.TypeVolume, m.Source, "", localDriver(driver)
	}
	if !m.applyMode() {
		return Mount{}, errdefs.Invalid("invalid volume specification: '%s': invalid mode: %s", spec, m.Mode)
	}
	return m, nil
}

// applyMode reads the third part of -v.
func (m *Mount) applyMode() bool {
	if m.Mode == "" {
		return true
	}
	for option := range strings.SplitSeq(m.Mode, ",") {
		switch option {
		case "rw", "z", "Z", "cached", "delegated", "consistent", "default":
		case "ro":
			m.RW = false
		case "nocopy":
			m.NoCopy = true
		default:
			p := mount.Propagation(option)
			if m.Type != mount.TypeBind || !slices.Contains(mount.Propagations, p) {
				return false
			}
			m.Propagation = p
		}
	}
	return true
}

func fromVolumeConfig(destination, driver string) (Mount, error) {
	clean := path.Clean(destination)
	if !path.IsAbs(clean) {
		return Mount{}, errdefs.Invalid("invalid volume specification: '%s': invalid mount path: '%s' mount path must be absolute", destination, destination)
	}
	if clean == "/" {
		return Mount{}, errdefs.Invalid("invalid volume: cannot use '/' as a destination")
	}
	return Mount{Type: mount.TypeVolume, Destination: clean, RW: true, Anonymous: true, FromImage: true, Driver: localDriver(driver)}, nil
}

func localDriver(driver string) string {
	if driver == "" {
		return "local"
	}
	return driver
}

// fromMount reads one entry of HostConfig.Mounts, which is what --mount sends.
func fromMount(r mount.Mount) (Mount, error) {
	fail := func(format string, args ...any) (Mount, error) {
		return Mount{}, errdefs.New(errdefs.ErrInvalid, "invalid mount config for type %q: %w", string(r.Type), errdefs.Invalid(format, args...))
	}
	if r.Target == "" {
		return fail("field Target must not be empty")
	}
	m := Mount{Type: r.Type, Destination: path.Clean(r.Target), RW: !r.ReadOnly}
	if !path.IsAbs(r.Target) {
		return fail("invalid mount path: '%s' mount path must be absolute", r.Target)
	}
	if m.Destination == "/" {
		return fail("invalid specification: destination can't be '/'")
	}
	switch r.Type {
	case mount.TypeBind:
		if r.Source == "" {
			return fail("field Source must not be empty")
		}
		if !path.IsAbs(r.Source) {
			return fail("invalid mount path: '%s' mount path must be absolute", r.Source)
		}
		m.fromBindMount(r)
	case mount.TypeVolume:
		m.fromVolumeMount(r)
	case mount.TypeTmpfs:
		if r.Source != "" {
			return fail("field Source must not be specified")
		}
		m.fromTmpfsMount(r)
	case mount.TypeImage:
		if r.Source == "" {
			return fail("field Source must not be empty")
		}
		m.Name, m.Mode, m.RW = r.Source, "", false
		if r.ImageOptions != nil {
			m.Subpath = r.ImageOptions.Subpath
		}
	default:
		return fail("mount type unknown")
	}
	return m, nil
}

func (m *Mount) fromBindMount(r mount.Mount) {
	m.Source, m.Propagation = path.Clean(r.Source), mount.PropagationRPrivate
	if o := r.BindOptions; o != nil {
		if o.Propagation != "" {
			m.Propagation = o.Propagation
		}
		m.NonRecursive, m.ReadOnlyTop, m.CreateSource = o.NonRecursive, o.ReadOnlyNonRecursive, o.CreateMountpoint
	}
}

func (m *Mount) fromVolumeMount(r mount.Mount) {
	m.Name, m.Anonymous, m.Mode, m.Driver = r.Source, r.Source == "", "z", "local"
	if o := r.VolumeOptions; o != nil {
		m.NoCopy, m.Subpath, m.VolumeLabels = o.NoCopy, o.Subpath, o.Labels
		if o.DriverConfig != nil {
			m.Driver, m.VolumeOptions = localDriver(o.DriverConfig.Name), o.DriverConfig.Options
		}
	}
}

func (m *Mount) fromTmpfsMount(r mount.Mount) {
	options, size, mode := "", int64(0), uint32(0)
	if o := r.TmpfsOptions; o != nil {
		size, mode = o.SizeBytes, uint32(o.Mode)
		for _, option := range o.Options {
			options += "," + strings.Join(option, "=")
		}
	}
	if r.ReadOnly {
		options += ",ro"
	}
	m.Options = TmpfsOptions(options, size, mode)
}

// volumesFrom returns the mounts of another container, read-only if "container:ro" says so.
func volumesFrom(spec string, from func(string) ([]Mount, error)) ([]Mount, error) {
	name, mode, _ := strings.Cut(spec, ":")
	if name == "" {
		return nil, errdefs.Invalid("malformed volumes-from specification: '%s'", spec)
	}
	if strings.Trim(mode, "rwozZ,") != "" {
		return nil, errdefs.Invalid("invalid mode for volumes-from: '%s'", mode)
	}
	mounts, err := from(name)
	if err != nil {
		return nil, err
	}
	var inherited []Mount
	for _, m := range mounts {
		if m.Type == mount.TypeTmpfs {
			continue
		}
		m.RW = m.RW && mode != "ro"
		m.Anonymous = false
		inherited = append(inherited, m)
	}
	return inherited, nil
}
