package engine

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"

	"davit/engine/container"
	"davit/image"
	"davit/internal/version"
	"davit/kernel/sys"
)

// System describes the engine and its host.
type System struct {
	*shared
	builds  *Builds
	started time.Time
}

func newSystem(s *shared) *System { return &System{shared: s, started: s.Now()} }

// Version says what runs here. The API's own versions are the server's to fill in.
func (y *System) Version() system.VersionResponse {
	return system.VersionResponse{
		Platform: system.PlatformInfo{Name: "davit"}, Version: version.Version, Os: "linux", Arch: runtime.GOARCH,
		GitCommit: commit(), GoVersion: runtime.Version(), KernelVersion: kernelVersion(),
		Components: []system.ComponentVersion{{Name: "Engine", Version: version.Version, Details: map[string]string{
			"Os": "linux", "Arch": runtime.GOARCH, "GitCommit": commit(), "GoVersion": runtime.Version(), "KernelVersion": kernelVersion(), "Experimental": "false",
		}}},
	}
}

// commit is what the version was built from, empty if it does not say.
func commit() string {
	_, built, _ := strings.Cut(version.Version, "+")
	return built
}

// kernelVersion is the release of uname(2).
func kernelVersion() string {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// Info is what docker info shows.
func (y *System) Info(ctx context.Context) (system.Info, error) {
	host, err := os.Hostname()
	if err != nil {
		return system.Info{}, fmt.Errorf("read host name: %w", err)
	}
	i := system.Info{
		ID: y.identity(), Name: host, ServerVersion: version.Version, Driver: "overlay2", DriverStatus: y.driverStatus(),
		Plugins:     system.PluginsInfo{Volume: []string{"local"}, Network: []string{"bridge", "host", "null"}, Log: []string{"json-file", "local", "none"}},
		MemoryLimit: true, SwapLimit: true, CPUCfsPeriod: true, CPUCfsQuota: true, CPUShares: true, CPUSet: true, PidsLimit: true,
		IPv4Forwarding: forwards(), OomKillDisable: !y.Facts.CgroupV2, NFd: openFiles(), NGoroutines: runtime.NumGoroutine(),
		SystemTime: y.Now().Format(time.RFC3339Nano), LoggingDriver: y.Defaults.LogDriver, CgroupDriver: "cgroupfs", CgroupVersion: "1",
		NEventsListener: y.bus.Listeners(), KernelVersion: kernelVersion(), OSType: "linux", Architecture: machine(),
		IndexServerAddress: "https://index.docker.io/v1/", RegistryConfig: y.registryConfig(), NCPU: y.Facts.CPUs, MemTotal: int64(totalMemory()),
		DockerRootDir: y.Root, Labels: append([]string{}, y.Labels...), Runtimes: map[string]system.RuntimeWithStatus{"davit": {}, "runc": {}},
		DefaultRuntime: "davit", Swarm: swarm.Info{LocalNodeState: swarm.LocalNodeStateInactive}, LiveRestoreEnabled: true,
		InitBinary: "davit-init", SecurityOptions: y.securityOptions(), FirewallBackend: &system.FirewallInfo{Driver: "nftables"},
		CDISpecDirs: []string{}, Warnings: []string{},
	}
	if y.Facts.CgroupV2 {
		i.CgroupVersion = "2"
	}
	if y.Facts.Systemd {
		i.CgroupDriver = "systemd"
	}
	i.OperatingSystem, i.OSVersion = osRelease()
	y.countContainers(&i)
	images, err := y.Options.Images.List(ctx, image.ListOptions{All: true})
	if err != nil {
		return system.Info{}, err
	}
	i.Images = len(images)
	return i, nil
}

func (y *System) countContainers(i *system.Info) {
	for _, a := range y.roster.all() {
		i.Containers++
		switch a.record().State.Status {
		case container.Running, container.Restarting:
			i.ContainersRunning++
		case container.Paused:
			i.ContainersPaused++
		default:
			i.ContainersStopped++
		}
	}
}

func (y *System) driverStatus() [][2]string {
	return [][2]string{{"Backing Filesystem", backing(y.Root)}, {"Supports d_type", "true"}, {"Using metacopy", "false"}, {"Native Overlay Diff", "true"}, {"userxattr", "false"}}
}

// backing names the file system of a directory by its magic number (statfs(2)), in Docker's words.
func backing(dir string) string {
	space, err := sys.SpaceOf(dir)
	if err != nil {
		return "<unknown>"
	}
	name, known := map[int64]string{
		0xef53: "extfs", 0x58465342: "xfs", 0x9123683e: "btrfs", 0x01021994: "tmpfs", 0x2fc12fc1: "zfs", 0x794c7630: "overlayfs",
		0xf2f52010: "f2fs", 0xca451a4e: "bcachefs", 0x6969: "nfs", 0x65735546: "fuse", 0x858458f6: "ramfs", 0x3153464a: "jfs", 0x52654973: "reiserfs",
	}[space.Type]
	if !known {
		return fmt.Sprintf("%#x", space.Type)
	}
	return name
}

func (y *System) securityOptions() []string {
	options := []string{"name=seccomp,profile=builtin"}
	if y.UserMode != container.UserHost {
		options = append(options, "name=userns")
	}
	if y.Facts.CgroupV2 {
		options = append(options, "name=cgroupns")
	}
	return options
}

func (y *System) registryConfig() *registry.ServiceConfig {
	c := &registry.ServiceConfig{
		InsecureRegistryCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
		IndexConfigs:          map[string]*registry.IndexInfo{"docker.io": {Name: "docker.io", Mirrors: []string{}, Secure: true, Official: true}},
		Mirrors:               append([]string{}, y.Mirrors["docker.io"]...), // Docker knows no others
	}
	for _, insecure := range y.Insecure {
		if prefix, err := netip.ParsePrefix(insecure); err == nil {
			c.InsecureRegistryCIDRs = append(c.InsecureRegistryCIDRs, prefix)
			continue
		}
		c.IndexConfigs[insecure] = &registry.IndexInfo{Name: insecure, Mirrors: []string{}}
	}
	for host, mirrors := range y.Mirrors {
		if c.IndexConfigs[host] == nil {
			c.IndexConfigs[host] = &registry.IndexInfo{Name: host, Secure: true}
		}
		c.IndexConfigs[host].Mirrors = append([]string{}, mirrors...)
	}
	return c
}

// identity is the engine's id: that of the machine (machine-id(5)), if it has one.
func (y *System) identity() string {
	b, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func machine() string {
	var u syscall.Utsname
	if err := syscall.Uname(&u); err != nil {
		return runtime.GOARCH
	}
	var b []byte
	for _, c := range u.Machine {
		if c == 0 {
			break
		}
		b = append(b, byte(c))
	}
	return string(b)
}

func forwards() bool {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
	return err == nil && bytes.HasPrefix(b, []byte("1"))
}

func openFiles() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries)
}

// osRelease reads the distribution's name and version (os-release(5)).
func osRelease() (name, version string) {
	name = "Linux"
	b, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return name, ""
	}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		value = strings.Trim(value, `"'`)
		switch key {
		case "PRETTY_NAME":
			name = value
		case "VERSION_ID":
			version = value
		}
	}
	return name, version
}
