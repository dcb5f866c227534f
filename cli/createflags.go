package cli

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/spf13/pflag"

	"davit/cli/opts"
)

// createFlags are the flags that run and create share, as they stand on the command line.
type createFlags struct {
	config container.Config
	host   container.HostConfig

	name, platform, pull, cidFile            string
	attach, env, envFile, label, labelFile   []string
	volumes, mounts, tmpfs, publish, expose  []string
	networks, aliases, linkLocal             []string
	dns, devices, ulimits, sysctls, logOpts  []string
	storageOpts, security, annotations       []string
	readBps, writeBps, readIOps, writeIOps   []string
	weights                                  []string
	memory, swap, reservation, shm, cpus     string
	restart, entrypoint, ip, ip6, mac        string
	ipc, pid, uts, userns, cgroupns, gpus    string
	pids, swappiness                         int64
	oomDisable, init, quiet, noHealth, trust bool
	health                                   container.HealthConfig
	healthCmd                                string
	stopTimeout                              int
	ioBandwidth                              string
}

// add declares the flags; those of Windows are accepted, so that scripts that pass them work.
func (f *createFlags) add(flags *pflag.FlagSet) {
	flags.SetInterspersed(false)
	f.addProcess(flags)
	f.addNetwork(flags)
	f.addStorage(flags)
	f.addSecurity(flags)
	f.addLimits(flags)
	f.addHealth(flags)
}

func (f *createFlags) addProcess(flags *pflag.FlagSet) {
	c := &f.config
	flags.StringVar(&f.name, "name", "", "Assign a name to the container")
	flags.StringVar(&f.platform, "platform", "", "Set platform if the engine is multi-platform capable")
	flags.StringVar(&f.pull, "pull", "missing", `Pull image before running ("always", "missing", "never")`)
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "Suppress the pull output")
	flags.StringVar(&f.cidFile, "cidfile", "", "Write the container ID to the file")
	flags.VarP(opts.ListOf(&f.attach), "attach", "a", "Attach to STDIN, STDOUT or STDERR")
	flags.BoolVarP(&c.OpenStdin, "interactive", "i", false, "Keep STDIN open even if not attached")
	flags.BoolVarP(&c.Tty, "tty", "t", false, "Allocate a pseudo-TTY")
	flags.VarP(opts.ListOf(&f.env), "env", "e", "Set environment variables")
	flags.Var(opts.ListOf(&f.envFile), "env-file", "Read in a file of environment variables")
	flags.StringVar(&f.entrypoint, "entrypoint", "", "Overwrite the default ENTRYPOINT of the image")
	flags.StringVarP(&c.WorkingDir, "workdir", "w", "", "Working directory inside the container")
	flags.StringVarP(&c.User, "user", "u", "", "Username or UID (format: <name|uid>[:<group|gid>])")
	flags.StringVarP(&c.Hostname, "hostname", "h", "", "Container host name")
	flags.StringVar(&c.Domainname, "domainname", "", "Container NIS domain name")
	flags.VarP(opts.ListOf(&f.label), "label", "l", "Set meta data on a container")
	flags.Var(opts.ListOf(&f.labelFile), "label-file", "Read in a line delimited file of labels")
	flags.Var(opts.ListOf(&f.annotations), "annotation", "Add an annotation to the container (passed through to the OCI runtime)")
	flags.StringVar(&c.StopSignal, "stop-signal", "", "Signal to stop the container")
	flags.IntVar(&f.stopTimeout, "stop-timeout", 0, "Timeout (in seconds) to stop a container")
	flags.StringVar(&f.restart, "restart", "no", "Restart policy to apply when a container exits")
	flags.BoolVar(&f.host.AutoRemove, "rm", false, "Remove the container and its anonymous volumes when it exits")
	flags.BoolVar(&f.init, "init", false, "Run an init inside the container that forwards signals and reaps processes")
	flags.StringVar(&f.host.Runtime, "runtime", "", "Runtime to use for this container")
	flags.BoolVar(&f.trust, "disable-content-trust", true, "Skip image verification")
	flags.StringVar(&f.host.LogConfig.Type, "log-driver", "", "Logging driver for the container")
	flags.Var(opts.ListOf(&f.logOpts), "log-opt", "Log driver options")
	_ = flags.MarkHidden("disable-content-trust")
}

func (f *createFlags) addNetwork(flags *pflag.FlagSet) {
	flags.Var(opts.ListOf(&f.networks), "network", "Connect a container to a network")
	flags.Var(opts.ListOf(&f.networks), "net", "Connect a container to a network")
	flags.Var(opts.ListOf(&f.aliases), "network-alias", "Add network-scoped alias for the container")
	flags.Var(opts.ListOf(&f.aliases), "net-alias", "Add network-scoped alias for the container")
	flags.VarP(opts.ListOf(&f.publish), "publish", "p", "Publish a container's port(s) to the host")
	flags.BoolVarP(&f.host.PublishAllPorts, "publish-all", "P", false, "Publish all exposed ports to random ports")
	flags.Var(opts.ListOf(&f.expose), "expose", "Expose a port or a range of ports")
	flags.StringVar(&f.ip, "ip", "", "IPv4 address (e.g., 172.30.100.104)")
	flags.StringVar(&f.ip6, "ip6", "", "IPv6 address (e.g., 2001:db8::33)")
	flags.StringVar(&f.mac, "mac-address", "", "Container MAC address (e.g., 92:d0:c6:0a:29:33)")
	flags.Var(opts.ListOf(&f.linkLocal), "link-local-ip", "Container IPv4/IPv6 link-local addresses")
	flags.Var(opts.ListOf(&f.host.Links), "link", "Add link to another container")
	flags.Var(opts.ListOf(&f.dns), "dns", "Set custom DNS servers")
	flags.Var(opts.ListOf(&f.host.DNSOptions), "dns-option", "Set DNS options")
	flags.Var(opts.ListOf(&f.host.DNSOptions), "dns-opt", "Set DNS options")
	flags.Var(opts.ListOf(&f.host.DNSSearch), "dns-search", "Set custom DNS search domains")
	flags.Var(opts.ListOf(&f.host.ExtraHosts), "add-host", "Add a custom host-to-IP mapping (host:ip)")
	for _, hidden := range []string{"net", "net-alias", "dns-opt"} {
		_ = flags.MarkHidden(hidden)
	}
}

func (f *createFlags) addStorage(flags *pflag.FlagSet) {
	flags.VarP(opts.ListOf(&f.volumes), "volume", "v", "Bind mount a volume")
	flags.Var(opts.ListOf(&f.mounts), "mount", "Attach a filesystem mount to the container")
	flags.Var(opts.ListOf(&f.tmpfs), "tmpfs", "Mount a tmpfs directory")
	flags.Var(opts.ListOf(&f.host.VolumesFrom), "volumes-from", "Mount volumes from the specified container(s)")
	flags.StringVar(&f.host.VolumeDriver, "volume-driver", "", "Optional volume driver for the container")
	flags.BoolVar(&f.host.ReadonlyRootfs, "read-only", false, "Mount the container's root filesystem as read only")
	flags.Var(opts.ListOf(&f.storageOpts), "storage-opt", "Storage driver options for the container")
	flags.StringVar(&f.shm, "shm-size", "", "Size of /dev/shm")
}

func (f *createFlags) addSecurity(flags *pflag.FlagSet) {
	h := &f.host
	flags.Var(opts.ListOf(&h.CapAdd), "cap-add", "Add Linux capabilities")
	flags.Var(opts.ListOf(&h.CapDrop), "cap-drop", "Drop Linux capabilities")
	flags.BoolVar(&h.Privileged, "privileged", false, "Give extended privileges to this container")
	flags.Var(opts.ListOf(&f.security), "security-opt", "Security Options")
	flags.Var(opts.ListOf(&f.devices), "device", "Add a host device to the container")
	flags.Var(opts.ListOf(&h.DeviceCgroupRules), "device-cgroup-rule", "Add a rule to the cgroup allowed devices list")
	flags.StringVar(&f.gpus, "gpus", "", "GPU devices to add to the container ('all' to pass all GPUs)")
	flags.Var(opts.ListOf(&h.GroupAdd), "group-add", "Add additional groups to join")
	flags.StringVar(&f.ipc, "ipc", "", "IPC mode to use")
	flags.StringVar(&f.pid, "pid", "", "PID namespace to use")
	flags.StringVar(&f.uts, "uts", "", "UTS namespace to use")
	flags.StringVar(&f.userns, "userns", "", "User namespace to use (\"host\": the host's; default: one of its own)")
	flags.StringVar(&f.cgroupns, "cgroupns", "", "Cgroup namespace to use (host|private)")
	flags.Var(opts.ListOf(&f.sysctls), "sysctl", "Sysctl options")
	flags.Var(opts.ListOf(&f.ulimits), "ulimit", "Ulimit options")
	flags.StringVar((*string)(&h.Isolation), "isolation", "", "Container isolation technology")
}

func (f *createFlags) addLimits(flags *pflag.FlagSet) {
	h := &f.host
	flags.StringVarP(&f.memory, "memory", "m", "", "Memory limit")
	flags.StringVar(&f.swap, "memory-swap", "", "Swap limit equal to memory plus swap: '-1' to enable unlimited swap")
	flags.StringVar(&f.reservation, "memory-reservation", "", "Memory soft limit")
	flags.Int64Var(&f.swappiness, "memory-swappiness", -1, "Tune container memory swappiness (0 to 100)")
	flags.String("kernel-memory", "", "Kernel memory limit")
	flags.BoolVar(&f.oomDisable, "oom-kill-disable", false, "Disable OOM Killer")
	flags.IntVar(&h.OomScoreAdj, "oom-score-adj", 0, "Tune host's OOM preferences (-1000 to 1000)")
	flags.StringVar(&f.cpus, "cpus", "", "Number of CPUs")
	flags.Int64VarP(&h.CPUShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	flags.Int64Var(&h.CPUPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	flags.Int64Var(&h.CPUQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	flags.Int64Var(&h.CPURealtimePeriod, "cpu-rt-period", 0, "Limit CPU real-time period in microseconds")
	flags.Int64Var(&h.CPURealtimeRuntime, "cpu-rt-runtime", 0, "Limit CPU real-time runtime in microseconds")
	flags.StringVar(&h.CpusetCpus, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	flags.StringVar(&h.CpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	flags.Int64Var(&f.pids, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	flags.Uint16Var(&h.BlkioWeight, "blkio-weight", 0, "Block IO (relative weight), between 10 and 1000, or 0 to disable")
	flags.Var(opts.ListOf(&f.weights), "blkio-weight-device", "Block IO weight (relative device weight)")
	flags.Var(opts.ListOf(&f.readBps), "device-read-bps", "Limit read rate (bytes per second) from a device")
	flags.Var(opts.ListOf(&f.writeBps), "device-write-bps", "Limit write rate (bytes per second) to a device")
	flags.Var(opts.ListOf(&f.readIOps), "device-read-iops", "Limit read rate (IO per second) from a device")
	flags.Var(opts.ListOf(&f.writeIOps), "device-write-iops", "Limit write rate (IO per second) to a device")
	flags.StringVar(&h.CgroupParent, "cgroup-parent", "", "Optional parent cgroup for the container")
	flags.Int64Var(&h.CPUCount, "cpu-count", 0, "CPU count (Windows only)")
	flags.Int64Var(&h.CPUPercent, "cpu-percent", 0, "CPU percent (Windows only)")
	flags.StringVar(&f.ioBandwidth, "io-maxbandwidth", "", "Maximum IO bandwidth limit for the system drive (Windows only)")
	flags.Uint64Var(&h.IOMaximumIOps, "io-maxiops", 0, "Maximum IOps limit for the system drive (Windows only)")
	for _, hidden := range []string{"kernel-memory", "cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops"} {
		_ = flags.MarkHidden(hidden)
	}
}

func (f *createFlags) addHealth(flags *pflag.FlagSet) {
	flags.StringVar(&f.healthCmd, "health-cmd", "", "Command to run to check health")
	flags.DurationVar(&f.health.Interval, "health-interval", 0, "Time between running the check (ms|s|m|h) (default 0s)")
	flags.DurationVar(&f.health.Timeout, "health-timeout", 0, "Maximum time to allow one check to run (ms|s|m|h) (default 0s)")
	flags.DurationVar(&f.health.StartPeriod, "health-start-period", 0, "Start period for the container to initialize before starting health-retries countdown (ms|s|m|h) (default 0s)")
	flags.DurationVar(&f.health.StartInterval, "health-start-interval", 0, "Time between running the check during the start period (ms|s|m|h) (default 0s)")
	flags.IntVar(&f.health.Retries, "health-retries", 0, "Consecutive failures needed to report unhealthy")
	flags.BoolVar(&f.noHealth, "no-healthcheck", false, "Disable any container-specified HEALTHCHECK")
}

// request turns the flags and the words after them into the engine's terms.
func (f *createFlags) request(flags *pflag.FlagSet, args []string) (container.CreateRequest, error) {
	f.config.Image = args[0]
	f.config.Cmd = args[1:]
	networking := &network.NetworkingConfig{}
	request := container.CreateRequest{Config: &f.config, HostConfig: &f.host, NetworkingConfig: networking}
	for _, fill := range []func() error{
		func() error { return f.fillProcess(flags) },
		f.fillStreams, f.fillPorts,
		func() error { return f.fillNetworks(networking) },
		f.fillStorage, f.fillSecurity,
		func() error { return f.fillLimits(flags) },
		f.fillRates, f.fillHealth,
	} {
		if err := fill(); err != nil {
			return request, err
		}
	}
	return request, nil
}

func (f *createFlags) fillProcess(flags *pflag.FlagSet) (err error) {
	if f.config.Env, err = opts.Env(f.envFile, f.env); err != nil {
		return err
	}
	if f.config.Labels, err = opts.Labels(f.labelFile, f.label); err != nil {
		return err
	}
	if len(f.annotations) > 0 {
		f.host.Annotations = opts.Pairs(f.annotations)
	}
	if flags.Changed("entrypoint") {
		f.config.Entrypoint = []string{f.entrypoint} // "" resets the image's
	}
	if flags.Changed("stop-timeout") {
		f.config.StopTimeout = &f.stopTimeout
	}
	if flags.Changed("init") {
		f.host.Init = &f.init
	}
	f.host.ContainerIDFile = f.cidFile
	f.host.LogConfig.Config = opts.Pairs(f.logOpts)
	f.host.RestartPolicy, err = opts.Restart(f.restart)
	if err == nil && f.host.AutoRemove && !f.host.RestartPolicy.IsNone() {
		err = fmt.Errorf("conflicting options: cannot specify both --restart and --rm")
	}
	return err
}

// fillStreams says which streams a client will attach to: all that are not detached, unless -a names some.
func (f *createFlags) fillStreams() error {
	c := &f.config
	if len(f.attach) == 0 {
		c.AttachStdin, c.AttachStdout, c.AttachStderr = c.OpenStdin, true, true
	}
	for _, name := range f.attach {
		switch strings.ToLower(name) {
		case "stdin":
			c.AttachStdin = true
		case "stdout":
			c.AttachStdout = true
		case "stderr":
			c.AttachStderr = true
		default:
			return fmt.Errorf("invalid argument %q for \"-a, --attach\" flag: valid streams are STDIN, STDOUT and STDERR", name)
		}
	}
	c.StdinOnce = c.OpenStdin && c.AttachStdin
	return nil
}

func (f *createFlags) fillPorts() (err error) {
	f.config.ExposedPorts, f.host.PortBindings, err = opts.Ports(f.publish)
	if err != nil {
		return fmt.Errorf("invalid argument for \"-p, --publish\" flag: %w", err)
	}
	for _, value := range f.expose {
		if err := opts.Expose(f.config.ExposedPorts, value); err != nil {
			return err
		}
	}
	return nil
}

func (f *createFlags) fillNetworks(networking *network.NetworkingConfig) error {
	var err error
	if f.host.DNS, err = opts.Addresses(f.dns); err != nil {
		return err
	}
	if f.host.ExtraHosts, err = extraHosts(f.host.ExtraHosts); err != nil {
		return err
	}
	networks := f.networks
	if len(networks) == 0 {
		networks = []string{"default"}
	}
	networking.EndpointsConfig = map[string]*network.EndpointSettings{}
	for i, value := range networks {
		n, err := opts.ParseNetwork(value)
		if err != nil {
			return err
		}
		if i == 0 {
			f.host.NetworkMode = container.NetworkMode(n.Name)
			if err := f.firstNetwork(&n); err != nil {
				return err
			}
		}
		if userNetwork(n.Name) || n.Settings.IPAMConfig != nil || len(n.Settings.MacAddress) > 0 || len(networks) > 1 {
			networking.EndpointsConfig[n.Name] = n.Settings
		}
	}
	return nil
}

// firstNetwork gives the first network what flags of their own say.
func (f *createFlags) firstNetwork(n *opts.Network) error {
	n.Settings.Aliases = append(n.Settings.Aliases, f.aliases...)
	if len(f.host.Links) > 0 && userNetwork(n.Name) {
		n.Settings.Links = f.host.Links
		f.host.Links = nil
	}
	if f.mac != "" {
		if err := n.Settings.MacAddress.UnmarshalText([]byte(f.mac)); err != nil {
			return fmt.Errorf("%s is not a valid mac address", f.mac)
		}
	}
	for _, value := range f.linkLocal {
		address, err := netip.ParseAddr(value)
		if err != nil {
			return fmt.Errorf("%s is not an ip address", value)
		}
		if n.Settings.IPAMConfig == nil {
			n.Settings.IPAMConfig = &network.EndpointIPAMConfig{}
		}
		n.Settings.IPAMConfig.LinkLocalIPs = append(n.Settings.IPAMConfig.LinkLocalIPs, address)
	}
	return n.SetIP(f.ip, f.ip6)
}

func userNetwork(name string) bool {
	switch name {
	case "default", "bridge", "host", "none":
		return false
	}
	return !strings.HasPrefix(name, "container:")
}

func extraHosts(values []string) ([]string, error) {
	for i, value := range values {
		name, address, ok := strings.Cut(value, ":")
		if eq, v, hasEq := strings.Cut(value, "="); hasEq {
			name, address, ok = eq, v, true
		}
		if !ok || name == "" {
			return nil, fmt.Errorf("bad format for add-host: %q", value)
		}
		address = strings.TrimSuffix(strings.TrimPrefix(address, "["), "]")
		if _, err := netip.ParseAddr(address); err != nil && address != "host-gateway" {
			return nil, fmt.Errorf("invalid IP address in add-host: %q", address)
		}
		values[i] = name + ":" + address
	}
	return values, nil
}

func (f *createFlags) fillStorage() (err error) {
	if f.host.Binds, f.config.Volumes, err = opts.Volumes(f.volumes); err != nil {
		return err
	}
	for _, value := range f.mounts {
		m, err := opts.Mount(value)
		if err != nil {
			return err
		}
		f.host.Mounts = append(f.host.Mounts, m)
	}
	for _, value := range f.tmpfs {
		if f.host.Tmpfs == nil {
			f.host.Tmpfs = map[string]string{}
		}
		target, options, _ := strings.Cut(value, ":")
		f.host.Tmpfs[target] = options
	}
	if len(f.storageOpts) > 0 {
		f.host.StorageOpt = opts.Pairs(f.storageOpts)
	}
	if f.host.ShmSize, err = opts.Bytes(f.shm); err != nil {
		return fmt.Errorf("invalid argument %q for \"--shm-size\" flag: %w", f.shm, err)
	}
	return nil
}

func (f *createFlags) fillSecurity() (err error) {
	h := &f.host
	if h.SecurityOpt, err = opts.SecurityOptions(f.security); err != nil {
		return err
	}
	for i, value := range h.SecurityOpt {
		if value == "systempaths=unconfined" {
			h.MaskedPaths, h.ReadonlyPaths = []string{}, []string{}
			h.SecurityOpt = append(h.SecurityOpt[:i:i], h.SecurityOpt[i+1:]...)
			break
		}
	}
	h.IpcMode, h.PidMode, h.UTSMode = container.IpcMode(f.ipc), container.PidMode(f.pid), container.UTSMode(f.uts)
	h.UsernsMode, h.CgroupnsMode = container.UsernsMode(f.userns), container.CgroupnsMode(f.cgroupns)
	for _, value := range f.devices {
		device, err := opts.Device(value)
		if err != nil {
			return err
		}
		h.Devices = append(h.Devices, device)
	}
	for _, value := range f.ulimits {
		limit, err := units.ParseUlimit(value)
		if err != nil {
			return fmt.Errorf("invalid argument %q for \"--ulimit\" flag: %w", value, err)
		}
		h.Ulimits = append(h.Ulimits, limit)
	}
	if len(f.sysctls) > 0 {
		h.Sysctls = opts.Pairs(f.sysctls)
	}
	if f.gpus != "" {
		h.DeviceRequests = []container.DeviceRequest{{Count: -1, Capabilities: [][]string{{"gpu"}}}}
	}
	return nil
}

func (f *createFlags) fillLimits(flags *pflag.FlagSet) error {
	h := &f.host
	for _, size := range []struct {
		into        *int64
		flag, value string
		parse       func(string) (int64, error)
	}{
		{&h.Memory, "-m, --memory", f.memory, opts.Bytes},
		{&h.MemorySwap, "--memory-swap", f.swap, opts.Swap},
		{&h.MemoryReservation, "--memory-reservation", f.reservation, opts.Bytes},
	} {
		n, err := size.parse(size.value)
		if err != nil {
			return fmt.Errorf("invalid argument %q for %q flag: %w", size.value, size.flag, err)
		}
		*size.into = n
	}
	if f.cpus != "" {
		nano, err := opts.CPUs(f.cpus)
		if err != nil {
			return fmt.Errorf("invalid argument %q for \"--cpus\" flag: %w", f.cpus, err)
		}
		h.NanoCPUs = nano
	}
	if flags.Changed("pids-limit") {
		h.PidsLimit = &f.pids
	}
	if flags.Changed("memory-swappiness") {
		h.MemorySwappiness = &f.swappiness
	}
	if f.oomDisable {
		h.OomKillDisable = &f.oomDisable
	}
	return nil
}

func (f *createFlags) fillRates() error {
	h := &f.host
	for _, rate := range []struct {
		into   *[]*blkiodev.ThrottleDevice
		values []string
		bytes  bool
	}{{&h.BlkioDeviceReadBps, f.readBps, true}, {&h.BlkioDeviceWriteBps, f.writeBps, true}, {&h.BlkioDeviceReadIOps, f.readIOps, false}, {&h.BlkioDeviceWriteIOps, f.writeIOps, false}} {
		for _, value := range rate.values {
			device, err := opts.Throttle(value, rate.bytes)
			if err != nil {
				return err
			}
			*rate.into = append(*rate.into, device)
		}
	}
	for _, value := range f.weights {
		device, err := opts.Weight(value)
		if err != nil {
			return err
		}
		h.BlkioWeightDevice = append(h.BlkioWeightDevice, device)
	}
	return nil
}

func (f *createFlags) fillHealth() error {
	given := f.healthCmd != "" || f.health.Interval != 0 || f.health.Timeout != 0 || f.health.StartPeriod != 0 || f.health.StartInterval != 0 || f.health.Retries != 0
	if f.noHealth {
		if given {
			return fmt.Errorf("--no-healthcheck conflicts with --health-* options")
		}
		f.config.Healthcheck = &container.HealthConfig{Test: []string{"NONE"}}
		return nil
	}
	for name, d := range map[string]time.Duration{"--health-interval": f.health.Interval, "--health-timeout": f.health.Timeout, "--health-start-period": f.health.StartPeriod} {
		if d < 0 {
			return fmt.Errorf("%s cannot be negative", name)
		}
	}
	if f.health.Retries < 0 {
		return fmt.Errorf("--health-retries cannot be negative")
	}
	if !given {
		return nil
	}
	if f.healthCmd != "" {
		f.health.Test = []string{"CMD-SHELL", f.healthCmd}
	}
	f.config.Healthcheck = &f.health
	return nil
}
