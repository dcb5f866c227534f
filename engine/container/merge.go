package container

import (
	"maps"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"davit/oci"
	"davit/oci/errdefs"
)

// Merge fills in what a request leaves to the image and returns the result: what inspect shows.
func Merge(request *container.Config, image oci.Config) (*container.Config, error) {
	c := *request
	if c.User == "" {
		c.User = image.User
	}
	if len(c.Entrypoint) == 0 {
		if len(c.Cmd) == 0 {
			c.Cmd, c.ArgsEscaped = image.Cmd, image.ArgsEscaped
		}
		if c.Entrypoint == nil {
			c.Entrypoint = image.Entrypoint
		}
	}
	if len(c.Entrypoint) == 1 && c.Entrypoint[0] == "" {
		c.Entrypoint = nil // --entrypoint "" takes the image's away
	}
	if c.WorkingDir == "" {
		c.WorkingDir = image.WorkingDir
	}
	if c.StopSignal == "" {
		c.StopSignal = image.StopSignal
	}
	if c.StopTimeout == nil {
		c.StopTimeout = image.StopTimeout
	}
	if len(c.Shell) == 0 {
		c.Shell = image.Shell
	}
	c.OnBuild = slices.Clone(image.OnBuild)
	c.Env = mergeImageEnv(c.Env, image.Env)
	c.Labels = union(image.Labels, c.Labels)
	c.Volumes = union(image.Volumes, c.Volumes)
	c.Healthcheck = mergeHealth(c.Healthcheck, image.Healthcheck)
	ports, err := mergePorts(c.ExposedPorts, image.ExposedPorts)
	if err != nil {
		return nil, err
	}
	c.ExposedPorts = ports
	return &c, nil
}

// mergeImageEnv appends the image's variables that the user does not set.
func mergeImageEnv(user, image []string) []string {
	merged := slices.Clone(user)
	for _, entry := range image {
		name, _, _ := strings.Cut(entry, "=")
		set := func(e string) bool { return e == name || strings.HasPrefix(e, name+"=") }
		if !slices.ContainsFunc(user, set) {
			merged = append(merged, entry)
		}
	}
	return merged
}

func union[V any](under, over map[string]V) map[string]V {
	all := maps.Clone(under)
	if all == nil {
		return over
	}
	maps.Copy(all, over)
	return all
}

func mergePorts(user network.PortSet, image map[string]struct{}) (network.PortSet, error) {
	if len(image) == 0 {
		return user, nil
	}
	all := maps.Clone(user)
	if all == nil {
		all = network.PortSet{}
	}
	for text := range image {
		ports, err := network.ParsePortRange(text)
		if err != nil {
			return nil, errdefs.As(errdefs.ErrInvalid, err)
		}
		for port := range ports.All() {
			all[port] = struct{}{}
		}
	}
	return all, nil
}

func mergeHealth(user *container.HealthConfig, image *oci.Healthcheck) *container.HealthConfig {
	if image == nil {
		return user
	}
	merged := container.HealthConfig{}
	if user != nil {
		merged = *user
	}
	if len(merged.Test) == 0 {
		merged.Test = image.Test
	}
	for _, d := range []struct{ to, from *int64 }{
		{(*int64)(&merged.Interval), (*int64)(&image.Interval)},
		{(*int64)(&merged.Timeout), (*int64)(&image.Timeout)},
		{(*int64)(&merged.StartPeriod), (*int64)(&image.StartPeriod)},
		{(*int64)(&merged.StartInterval), (*int64)(&image.StartInterval)},
	} {
		if *d.to == 0 {
			*d.to = *d.from
		}
	}
	if merged.Retries == 0 {
		merged.Retries = image.Retries
	}
	return &merged
}
