package container

import (
	"maps"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"

	"davit/oci/errdefs"
)

// Defaults are what the engine puts where a request says nothing.
type Defaults struct {
	LogDriver  string
	LogOptions map[string]string
	CgroupV2   bool
	Systemd    bool // cgroups are systemd's: a parent has to be a slice
	Ulimits    []*container.Ulimit
	Hostname   string // the host's, which containers in its network have too
}

// Complete checks a request and returns a copy with every default written out, as inspect shows it.
func Complete(id string, c *container.Config, h *container.HostConfig, d Defaults) (*container.Config, *container.HostConfig, error) {
	config, host := *c, container.HostConfig{}
	if h != nil {
		host = *h
	}
	if err := completeHost(&host, d); err != nil {
		return nil, nil, err
	}
	if err := checkRequest(&config, &host); err != nil {
		return nil, nil, err
	}
	if len(config.Volumes) == 0 {
		config.Volumes = nil
	}
	if config.Hostname == "" && !host.UTSMode.IsHost() && !host.NetworkMode.IsContainer() {
		config.Hostname = short(id)
		if host.NetworkMode.IsHost() && d.Hostname != "" {
			config.Hostname = d.Hostname
		}
	}
	if config.WorkingDir != "" && !strings.HasPrefix(config.WorkingDir, "/") {
		return nil, nil, errdefs.Invalid("the working directory '%s' is invalid, it needs to be an absolute path", config.WorkingDir)
	}
	for _, entry := range config.Env {
		if entry == "" || entry[0] == '=' {
			return nil, nil, errdefs.Invalid("invalid environment variable: %s", entry)
		}
	}
	if config.Healthcheck != nil {
		if err := checkHealth(config.Healthcheck); err != nil {
			return nil, nil, err
		}
	}
	return &config, &host, nil
}

func completeHost(h *container.HostConfig, d Defaults) error {
	if h.NetworkMode == "" || h.NetworkMode == "default" {
		h.NetworkMode = "bridge"
	}
	if h.IpcMode == "" {
		h.IpcMode = container.IPCModePrivate
	}
	if h.CgroupnsMode == "" {
		h.CgroupnsMode = container.CgroupnsModePrivate
		if h.Privileged && !d.CgroupV2 {
			h.CgroupnsMode = container.CgroupnsModeHost
		}
	}
	if h.RestartPolicy.Name == "" {
		h.RestartPolicy.Name = container.RestartPolicyDisabled
	}
	if h.ShmSize == 0 {
		h.ShmSize = DefaultShmSize
	}
	if h.Runtime == "" {
		h.Runtime = "davit"
	}
	if h.MemorySwappiness != nil && *h.MemorySwappiness == -1 {
		h.MemorySwappiness = nil
	}
	if h.PidsLimit != nil && *h.PidsLimit == 0 {
		h.PidsLimit = nil
	}
	if d.Systemd && h.CgroupParent != "" && !isSlice(h.CgroupParent) {
		return errdefs.Invalid("cgroup-parent for systemd cgroup should be a valid slice named as \"xxx.slice\"")
	}
	if h.LogConfig.Type == "" {
		h.LogConfig.Type = d.LogDriver
	}
	if h.LogConfig.Type == d.LogDriver {
		options := maps.Clone(d.LogOptions)
		maps.Copy(options, h.LogConfig.Config)
		h.LogConfig.Config = options
	}
	if !h.Privileged {
		if h.MaskedPaths == nil {
			h.MaskedPaths = MaskedPaths()
		}
		if h.ReadonlyPaths == nil {
			h.ReadonlyPaths = ReadonlyPaths()
		}
	}
	for _, u := range d.Ulimits {
		if !slices.ContainsFunc(h.Ulimits, func(o *container.Ulimit) bool { return o.Name == u.Name }) {
			h.Ulimits = append(h.Ulimits, u)
		}
	}
	return checkHost(h)
}

func checkHost(h *container.HostConfig) error {
	if err := ValidateRestart(h.RestartPolicy, h.AutoRemove); err != nil {
		return err
	}
	if h.UsernsMode != "" && h.UsernsMode != "host" && h.UsernsMode != "private" {
		return errdefs.Invalid("invalid user namespace mode: %q", h.UsernsMode)
	}
	for _, check := range []struct {
		ok   bool
		what string
		mode string
	}{
		{h.PidMode == "" || h.PidMode == "private" || h.PidMode.Valid(), "PID mode", string(h.PidMode)},
		{h.IpcMode.Valid(), "IPC mode", string(h.IpcMode)},
		{h.UTSMode == "private" || h.UTSMode.Valid(), "UTS mode", string(h.UTSMode)},
		{h.CgroupnsMode.Valid(), "cgroup namespace mode", string(h.CgroupnsMode)},
	} {
		if !check.ok {
			return errdefs.Invalid("invalid %s: %v", check.what, check.mode)
		}
	}
	for _, u := range h.Ulimits {
		if u.Soft > u.Hard && u.Hard != -1 {
			return errdefs.Invalid("ulimit soft limit must be less than or equal to hard limit: %d > %d", u.Soft, u.Hard)
		}
	}
	return CheckResources(&h.Resources)
}

// The least memory in bytes that a container may be limited to: below it, it cannot start.
const leastMemory = 6 << 20

// CheckResources refuses limits that cannot be meant, and gives a container with a memory limit alone
// as much swap again, as Docker does.
func CheckResources(r *container.Resources) error {
	switch {
	case r.Memory != 0 && r.Memory < leastMemory:
		return errdefs.Invalid("Minimum memory limit allowed is 6MB")
	case r.MemorySwap > 0 && r.Memory == 0:
		return errdefs.Invalid("You should always set the Memory limit when using Memoryswap limit, see usage")
	case r.Memory > 0 && r.MemorySwap > 0 && r.MemorySwap < r.Memory:
		return errdefs.Invalid("Minimum memoryswap limit should be larger than memory limit, see usage")
	case r.MemoryReservation > 0 && r.Memory > 0 && r.Memory < r.MemoryReservation:
		return errdefs.Invalid("Minimum memory limit can not be less than memory reservation limit, see usage")
	case r.NanoCPUs < 0:
		return errdefs.Invalid("Range of CPUs is from 0.01, as there are only 0 or more CPUs available")
	case r.NanoCPUs > 0 && r.CPUPeriod > 0:
		return errdefs.Invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set")
	case r.NanoCPUs > 0 && r.CPUQuota > 0:
		return errdefs.Invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
	case r.CPUPeriod != 0 && (r.CPUPeriod < 1000 || r.CPUPeriod > 1000000):
		return errdefs.Invalid("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
	case r.CPUQuota > 0 && r.CPUQuota < 1000:
		return errdefs.Invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)")
	case r.CPUShares < 0:
		return errdefs.Invalid("invalid CPU shares (%d): value must be a positive integer", r.CPUShares)
	case r.BlkioWeight > 0 && (r.BlkioWeight < 10 || r.BlkioWeight > 1000):
		return errdefs.Invalid("Range of blkio weight is from 10 to 1000")
	}
	if r.Memory > 0 && r.MemorySwap == 0 {
		r.MemorySwap = 2 * r.Memory
	}
	return nil
}

func checkHealth(h *container.HealthConfig) error {
	for _, d := range []struct {
		name  string
		value int64
	}{{"Interval", int64(h.Interval)}, {"Timeout", int64(h.Timeout)}, {"StartPeriod", int64(h.StartPeriod)}, {"StartInterval", int64(h.StartInterval)}} {
		if d.value != 0 && d.value < int64(container.MinimumDuration) {
			return errdefs.Invalid("%s in Healthcheck cannot be less than 1ms", d.name)
		}
	}
	if h.Retries < 0 {
		return errdefs.Invalid("Retries in Healthcheck cannot be negative")
	}
	return nil
}
