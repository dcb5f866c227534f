package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/engine/container"
	"davit/kernel/cgroup"
	"davit/kernel/mount"
	"davit/kernel/probe"
	"davit/kernel/seccomp"
	"davit/kernel/sys"
	"davit/oci/rootfs"
)

// host is what the engine has the kernel do; it implements engine.Host.
type host struct {
	mu           sync.Mutex
	capabilities []string
	profile      *specs.LinuxSeccomp // the default one for these capabilities
}

// MountRoot implements engine.Host.
func (*host) MountRoot(_ context.Context, r rootfs.Rootfs, readOnly bool) (*os.File, error) {
	if readOnly && r.Upper != "" {
		r.Lower, r.Upper, r.Work = append(append([]string{}, r.Lower...), r.Upper), "", ""
	}
	return mount.Rootfs(r, mount.Mapping{})
}

// Seccomp implements engine.Host. The default profile for the capabilities asked for last is the same
// value again: task.Client encodes it once.
func (h *host) Seccomp(profile string, capabilities []string) (*specs.LinuxSeccomp, error) {
	if profile == "" {
		return h.defaultProfile(capabilities)
	}
	return seccomp.Load([]byte(profile), capabilities)
}

func (h *host) defaultProfile(capabilities []string) (*specs.LinuxSeccomp, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.profile != nil && slices.Equal(h.capabilities, capabilities) {
		return h.profile, nil
	}
	profile, err := seccomp.Default(capabilities)
	if err != nil {
		return nil, err
	}
	h.capabilities, h.profile = slices.Clone(capabilities), profile
	return profile, nil
}

// AsOwner implements engine.Host. The thread is not used for anything else afterwards.
func (*host) AsOwner(id uint32, f func() error) error {
	if id == 0 {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- sys.AsFileOwner(int(id), int(id), f)
	}()
	return <-done
}

// facts reads what specs depend on.
func facts(c config) (container.HostFacts, probe.HostFacts, error) {
	kernel, err := probe.In(c.dataRoot)
	if err != nil {
		return container.HostFacts{}, kernel, err
	}
	return container.HostFacts{
		CPUs: runtime.NumCPU(), OnlineCPUs: online("cpu"), OnlineNodes: online("node"), CgroupV2: kernel.Cgroups == cgroup.V2, CgroupParent: c.cgroupParent,
		Systemd: c.cgroupDriver() == "systemd", Capabilities: kernel.Capabilities.Names(),
		Devices: allDevices, Device: devices,
		HasPath: func(path string) bool { _, err := os.Lstat(path); return err == nil },
	}, kernel, nil
}

// online lists what the kernel has running of a kind of system device, empty if it does not say.
func online(kind string) string {
	b, err := os.ReadFile("/sys/devices/system/" + kind + "/online")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// allDevices lists the host's device nodes for a privileged container, but for those that every
// container has of its own.
func allDevices() []specs.LinuxDevice {
	all, err := devices("/dev")
	if err != nil {
		return nil
	}
	return all
}

// devices returns the device node at a path, or all below a directory.
func devices(path string) ([]specs.LinuxDevice, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		d, ok := deviceOf(path, info)
		if !ok {
			return nil, fmt.Errorf("%s: not a device node", path)
		}
		return []specs.LinuxDevice{d}, nil
	}
	var all []specs.LinuxDevice
	err = filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // hot-plugged away
		case err != nil:
			return err
		case entry.IsDir() && ownDirectory(name):
			return filepath.SkipDir
		case name == "/dev/console" || name == "/dev/ptmx":
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return nil
		}
		if d, ok := deviceOf(name, info); ok {
			all = append(all, d)
		}
		return nil
	})
	return all, err
}

// ownDirectory says whether every container has a directory of /dev of its own.
func ownDirectory(name string) bool {
	switch name {
	case "/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd", "/dev/.lxc", "/dev/.lxd-mounts", "/dev/.udev":
		return true
	}
	return false
}

func deviceOf(path string, info fs.FileInfo) (specs.LinuxDevice, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode()&fs.ModeDevice == 0 {
		return specs.LinuxDevice{}, false
	}
	d := specs.LinuxDevice{Path: path, Type: "b", Major: major(st.Rdev), Minor: minor(st.Rdev), UID: &st.Uid, GID: &st.Gid}
	if info.Mode()&fs.ModeCharDevice != 0 {
		d.Type = "c"
	}
	mode := info.Mode().Perm()
	d.FileMode = &mode
	return d, true
}

// major and minor are those of makedev(3).
func major(dev uint64) int64 { return int64(dev>>8&0xfff | dev>>32&^0xfff) }
func minor(dev uint64) int64 { return int64(dev&0xff | dev>>12&^0xff) }
