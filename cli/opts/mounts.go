package opts

import (
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/mount"
)

// Mount parses a value of --mount: comma-separated key=value pairs.
func Mount(value string) (mount.Mount, error) {
	m := mount.Mount{Type: mount.TypeVolume}
	fields, err := csv.NewReader(strings.NewReader(value)).Read()
	if err != nil {
		return m, fmt.Errorf("invalid argument %q for \"--mount\" flag: %w", value, err)
	}
	for _, field := range fields {
		key, v, hasValue := strings.Cut(field, "=")
		if err := mountField(&m, strings.ToLower(strings.TrimSpace(key)), v, hasValue); err != nil {
			return m, fmt.Errorf("invalid argument %q for \"--mount\" flag: %w", value, err)
		}
	}
	if m.Target == "" {
		return m, fmt.Errorf("invalid argument %q for \"--mount\" flag: target is required", value)
	}
	if err := mountKind(m); err != nil {
		return m, fmt.Errorf("invalid argument %q for \"--mount\" flag: %w", value, err)
	}
	if m.Type == mount.TypeBind && strings.HasPrefix(m.Source, ".") {
		if m.Source, err = filepath.Abs(m.Source); err != nil {
			return m, err
		}
	}
	return m, nil
}

// mountKind refuses options of another type of mount.
func mountKind(m mount.Mount) error {
	switch {
	case m.BindOptions != nil && m.Type != mount.TypeBind:
		return fmt.Errorf("cannot mix 'bind-*' options with mount type '%s'", m.Type)
	case m.VolumeOptions != nil && m.Type != mount.TypeVolume:
		return fmt.Errorf("cannot mix 'volume-*' options with mount type '%s'", m.Type)
	case m.TmpfsOptions != nil && m.Type != mount.TypeTmpfs:
		return fmt.Errorf("cannot mix 'tmpfs-*' options with mount type '%s'", m.Type)
	case m.ImageOptions != nil && m.Type != mount.TypeImage:
		return fmt.Errorf("cannot mix 'image-*' options with mount type '%s'", m.Type)
	}
	return nil
}

func mountField(m *mount.Mount, key, value string, hasValue bool) error {
	switch key {
	case "readonly", "ro":
		on, err := flagValue(key, value, hasValue)
		m.ReadOnly = on
		return err
	case "volume-nocopy":
		on, err := flagValue(key, value, hasValue)
		volumeOptions(m).NoCopy = on
		return err
	case "bind-nonrecursive":
		on, err := flagValue(key, value, hasValue)
		bindOptions(m).NonRecursive = on
		return err
	case "bind-create-src":
		on, err := flagValue(key, value, hasValue)
		bindOptions(m).CreateMountpoint = on
		return err
	}
	if !hasValue {
		return fmt.Errorf("invalid field '%s' must be a key=value pair", key)
	}
	switch key {
	case "type":
		m.Type = mount.Type(strings.ToLower(value))
	case "source", "src":
		m.Source = value
	case "target", "dst", "destination":
		m.Target = value
	case "consistency":
		m.Consistency = mount.Consistency(strings.ToLower(value))
	case "bind-propagation":
		bindOptions(m).Propagation = mount.Propagation(strings.ToLower(value))
	case "bind-recursive":
		return bindRecursive(m, value)
	case "image-subpath":
		m.ImageOptions = &mount.ImageOptions{Subpath: value}
	default:
		return otherMountField(m, key, value)
	}
	return nil
}

func otherMountField(m *mount.Mount, key, value string) error {
	switch key {
	case "volume-subpath":
		volumeOptions(m).Subpath = value
	case "volume-label":
		volumeOptions(m).Labels = withPair(volumeOptions(m).Labels, value)
	case "volume-driver":
		driver(m).Name = value
	case "volume-opt":
		driver(m).Options = withPair(driver(m).Options, value)
	case "tmpfs-size":
		size, err := units.RAMInBytes(value)
		if err != nil {
			return fmt.Errorf("invalid value for %s: %s", key, value)
		}
		tmpfsOptions(m).SizeBytes = size
	case "tmpfs-mode":
		mode, err := strconv.ParseUint(value, 8, 32)
		if err != nil {
			return fmt.Errorf("invalid value for %s: %s", key, value)
		}
		tmpfsOptions(m).Mode = os.FileMode(mode)
	default:
		return fmt.Errorf("unexpected key '%s' in '%s=%s'", key, key, value)
	}
	return nil
}

func bindRecursive(m *mount.Mount, value string) error {
	switch value {
	case "enabled":
	case "disabled":
		bindOptions(m).NonRecursive = true
	case "writable":
		bindOptions(m).ReadOnlyNonRecursive = true
	case "readonly":
		bindOptions(m).ReadOnlyForceRecursive = true
	default:
		return fmt.Errorf("invalid value for bind-recursive: %s (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")", value)
	}
	return nil
}

func flagValue(key, value string, hasValue bool) (bool, error) {
	if !hasValue {
		return true, nil
	}
	on, err := strconv.ParseBool(value)
	if err != nil {
		return false, fmt.Errorf("invalid value for %s: %s", key, value)
	}
	return on, nil
}

func bindOptions(m *mount.Mount) *mount.BindOptions {
	if m.BindOptions == nil {
		m.BindOptions = &mount.BindOptions{}
	}
	return m.BindOptions
}

func volumeOptions(m *mount.Mount) *mount.VolumeOptions {
	if m.VolumeOptions == nil {
		m.VolumeOptions = &mount.VolumeOptions{}
	}
	return m.VolumeOptions
}

func tmpfsOptions(m *mount.Mount) *mount.TmpfsOptions {
	if m.TmpfsOptions == nil {
		m.TmpfsOptions = &mount.TmpfsOptions{}
	}
	return m.TmpfsOptions
}

func driver(m *mount.Mount) *mount.Driver {
	if volumeOptions(m).DriverConfig == nil {
		m.VolumeOptions.DriverConfig = &mount.Driver{}
	}
	return m.VolumeOptions.DriverConfig
}

func withPair(pairs map[string]string, value string) map[string]string {
	if pairs == nil {
		pairs = map[string]string{}
	}
	key, v, _ := strings.Cut(value, "=")
	pairs[key] = v
	return pairs
}

// Volumes sorts the values of --volume: "/path" alone is an anonymous volume, the rest are binds. A
// source that begins with "." is made absolute; "~" is the shell's business.
func Volumes(values []string) (binds []string, anonymous map[string]struct{}, err error) {
	for _, value := range values {
		source, rest, hasTarget := strings.Cut(value, ":")
		switch {
		case value == "":
			return nil, nil, errors.New("invalid volume specification: ''")
		case !hasTarget:
			if anonymous == nil {
				anonymous = map[string]struct{}{}
			}
			anonymous[source] = struct{}{}
			continue
		case strings.HasPrefix(source, "."):
			if source, err = filepath.Abs(source); err != nil {
				return nil, nil, err
			}
		}
		binds = append(binds, source+":"+rest)
	}
	return binds, anonymous, nil
}
