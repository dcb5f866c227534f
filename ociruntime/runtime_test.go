package ociruntime_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/kernel/cap"
	"davit/kernel/seccomp"
	"davit/kernel/sys"
	"davit/oci/rootfs"
	"davit/ociruntime"
)

// initFile is davit-init, built once for all tests.
var initFile *os.File

func TestMain(m *testing.M) {
	code, err := withInit(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func withInit(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "davit-init")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "davit-init")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "davit/cmd/davit-init")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build davit-init: %w: %s", err, out)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	if initFile, err = sys.SealedMemfd("davit-init", content); err != nil {
		return 0, err
	}
	return m.Run(), removeCgroups()
}

// env is a runtime with a root file system of busybox, gone after the test.
type env struct {
	t       testing.TB
	runtime *ociruntime.Runtime
	rootfs  rootfs.Rootfs
	n       int
}

func newEnv(t testing.TB) *env {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("this test needs root")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil { // the container's root must pass
		t.Fatal(err)
	}
	r, err := ociruntime.New(ociruntime.Options{StateRoot: filepath.Join(dir, "state"), Init: initFile})
	if err != nil {
		t.Fatal(err)
	}
	e := &env{t: t, runtime: r, rootfs: rootfs.Rootfs{
		Lower: []string{dir + "/base"}, Upper: dir + "/c/fs", Work: dir + "/c/work",
	}}
	for _, d := range []string{"base/bin", "base/etc", "base/tmp", "base/proc", "c/fs", "c/work"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/base/bin/busybox", busybox, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "cat", "ls", "id", "touch", "true", "sleep", "stat", "echo", "mount", "hostname", "kill", "ps", "env", "grep", "tty", "stty", "test", "dd", "head", "wc", "readlink", "sort"} {
		if err := os.Symlink("busybox", dir+"/base/bin/"+name); err != nil {
			t.Fatal(err)
		}
	}
	return e
}

const hostBase = 1 << 20

var defaultCaps = cap.Default()

// spec is what the engine would ask for by default: all namespaces, default mounts and capabilities.
func (e *env) spec(args ...string) *specs.Spec {
	e.n++
	profile, err := seccomp.Default(defaultCaps)
	if err != nil {
		e.t.Fatal(err)
	}
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: hostBase, Size: 65536}}
	return &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{
			Args: args, Cwd: "/", Env: []string{"PATH=/bin", "A=b"},
			Capabilities: &specs.LinuxCapabilities{Bounding: defaultCaps, Effective: defaultCaps, Permitted: defaultCaps},
		},
		Hostname: "box",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=67108864"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: fmt.Sprintf("/davit-test/%d-%s-%d", os.Getpid(), strings.ToLower(e.t.Name()[4:min(len(e.t.Name()), 9)]), e.n),
			UIDMappings: ids, GIDMappings: ids,
			Namespaces: []specs.LinuxNamespace{
				{Type: "pid"}, {Type: "network"}, {Type: "mount"}, {Type: "ipc"}, {Type: "uts"}, {Type: "user"}, {Type: "cgroup"},
			},
			MaskedPaths: []string{
				"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
				"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/sys/devices/virtual/powercap", "/sys/firmware",
			},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
			Seccomp:       profile,
			Sysctl:        map[string]string{"net.ipv4.ip_unprivileged_port_start": "0"},
		},
	}
}

// hostUser takes the user namespace out of a spec.
func hostUser(s *specs.Spec) *specs.Spec {
	s.Linux.UIDMappings, s.Linux.GIDMappings = nil, nil
	s.Linux.Namespaces = append(s.Linux.Namespaces[:5:5], s.Linux.Namespaces[6:]...)
	return s
}

// create makes a container and has it deleted after the test.
func (e *env) create(s *specs.Spec, stdio ociruntime.Stdio) *ociruntime.Container {
	e.t.Helper()
	c, err := e.runtime.Create(e.t.Context(), fmt.Sprintf("c%d", e.n), ociruntime.CreateOptions{Spec: s, Rootfs: e.rootfs, Stdio: stdio})
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() {
		if err := c.Delete(background, true); err != nil {
			e.t.Error(err)
		}
	})
	return c
}

// run runs a container to its end and returns what it said and how it ended.
func (e *env) run(s *specs.Spec) (string, ociruntime.ExitStatus) {
	e.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		e.t.Fatal(err)
	}
	c := e.create(s, ociruntime.Stdio{Stdout: w, Stderr: w})
	w.Close()
	if err := c.Start(e.t.Context()); err != nil {
		e.t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		e.t.Fatal(err)
	}
	r.Close()
	status, err := c.Wait(e.t.Context())
	if err != nil {
		e.t.Fatal(err)
	}
	return string(out), status
}

// sh runs a shell script in a default container and returns its output; the script must succeed.
func (e *env) sh(script string) string {
	e.t.Helper()
	out, status := e.run(e.spec("sh", "-c", script))
	if status.Code != 0 {
		e.t.Fatalf("exit status %d: %s", status.Code, out)
	}
	return out
}

func TestFirstContainer(t *testing.T) {
	e := newEnv(t)
	if got := e.sh("echo $A; id -u; hostname; ls /"); got != "b\n0\nbox\nbin\ndev\netc\nproc\nsys\ntmp\n" {
		t.Errorf("got %q", got)
	}
}
