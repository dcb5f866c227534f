package ociruntime_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/ociruntime"
	"davit/ociruntime/plan"
)

func TestRootIsNobodyOnTheHost(t *testing.T) {
	e := newEnv(t)
	r, w := pipe(t)
	c := e.create(e.spec("sh", "-c", "touch /made && echo done && sleep 1000"), ociruntime.Stdio{Stdout: w})
	w.Close()
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if line := make([]byte, 5); true {
		if _, err := io.ReadFull(r, line); err != nil {
			t.Fatal(err)
		}
	}
	if uid, _ := owner(t, filepath.Join(e.rootfs.Upper, "made")); uid != 0 {
		t.Errorf("a file made by the container's root belongs to %d on disk, want 0", uid)
	}
	if uid, _ := owner(t, "/proc/"+strconv.Itoa(c.Pid)); uid != hostBase {
		t.Errorf("the container's root runs as %d on the host, want %d", uid, hostBase)
	}
}

func TestBindMountKeepsOwners(t *testing.T) {
	e := newEnv(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "mine"), []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := e.spec("sh", "-c", "cat /data/mine; stat -c %u:%g /data/mine; echo x > /data/new; echo y > /ro/new 2>&1 || true")
	s.Mounts = append(s.Mounts,
		specs.Mount{Destination: "/data", Type: "bind", Source: dir, Options: []string{"rbind", "idmap"}},
		specs.Mount{Destination: "/ro", Type: "bind", Source: dir, Options: []string{"bind", "ro", "idmap"}})
	out, _ := e.run(s)
	if !strings.HasPrefix(out, "hello0:0\n") || !strings.Contains(out, "Read-only file system") {
		t.Errorf("got %q", out)
	}
	if uid, gid := owner(t, filepath.Join(dir, "new")); uid != 0 || gid != 0 {
		t.Errorf("the new file belongs to %d:%d, want 0:0", uid, gid)
	}
}

func TestUnmappableMountIsNamed(t *testing.T) {
	e := newEnv(t)
	s := e.spec("true")
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "bind", Source: "/proc/fs", Options: []string{"bind", "idmap"}})
	_, err := e.runtime.Create(t.Context(), "c", ociruntime.CreateOptions{Spec: s, Rootfs: e.rootfs})
	if err == nil || !strings.Contains(err.Error(), "/proc/fs") || !strings.Contains(err.Error(), "cannot be idmapped") {
		t.Errorf("got %v", err)
	}
}

func TestUnmappableMountMayBeBound(t *testing.T) {
	e := newEnv(t)
	s := e.spec("sh", "-c", "cat /x/version; echo x > /null && echo written")
	options := []string{"rbind", "ridmap", plan.OptionalIDMap}
	s.Mounts = append(s.Mounts,
		specs.Mount{Destination: "/x", Type: "bind", Source: "/proc", Options: options},
		specs.Mount{Destination: "/null", Type: "bind", Source: "/dev/null", Options: options})
	out, _ := e.run(s)
	if !strings.HasPrefix(out, "Linux version") || !strings.HasSuffix(out, "written\n") {
		t.Errorf("got %q", out)
	}
}

func TestCapabilities(t *testing.T) {
	e := newEnv(t)
	got := e.sh("grep -E 'Cap(Prm|Eff|Bnd|Amb)' /proc/self/status")
	if want := "CapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\n"; got != want {
		t.Errorf("got %q", got)
	}
	s := e.spec("sh", "-c", "grep -E 'Cap(Prm|Eff|Amb)|NoNew' /proc/self/status; id")
	s.Process.User = specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{5, 7}}
	s.Process.NoNewPrivileges = true
	one := []string{"CAP_NET_RAW"}
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: one, Effective: one, Permitted: one, Inheritable: one, Ambient: one}
	got, _ = e.run(s)
	want := "CapPrm:\t0000000000002000\nCapEff:\t0000000000002000\nCapAmb:\t0000000000002000\nNoNewPrivs:\t1\nuid=1000 gid=1001 groups=5,7,1001\n"
	if strings.Replace(got, "groups=1001,5,7", "groups=5,7,1001", 1) != want && strings.Replace(got, "groups=5,7\n", "groups=5,7,1001\n", 1) != want {
		t.Errorf("got %q", got)
	}
}

func TestSeccompFilterIsLoaded(t *testing.T) {
	e := newEnv(t)
	for _, noNewPrivs := range []bool{false, true} {
		s := e.spec("sh", "-c", "grep ^Seccomp: /proc/self/status; mkdir /tmp/x; mount -t tmpfs x /tmp/x")
		s.Process.NoNewPrivileges = noNewPrivs
		if out, _ := e.run(s); !strings.HasPrefix(out, "Seccomp:\t2\n") || !strings.Contains(out, "denied") && !strings.Contains(out, "not permitted") {
			t.Errorf("no_new_privs %v: got %q", noNewPrivs, out)
		}
		e.n++
	}
	c := e.sleeper()
	if out, _ := e.exec(c, &specs.Process{Args: []string{"/bin/grep", "^Seccomp:", "/proc/self/status"}, Cwd: "/"}); out != "Seccomp:\t2\n" {
		t.Errorf("exec: got %q", out)
	}
}

func TestMaskedAndReadOnlyPaths(t *testing.T) {
	e := newEnv(t)
	got := e.sh(`cat /proc/keys /proc/timer_list | wc -c; ls /proc/acpi /sys/firmware
		echo 1 > /proc/sys/kernel/panic || echo refused; grep -q '/proc/irq ro' /proc/self/mountinfo && echo read-only`)
	if !strings.HasPrefix(got, "0\n") || !strings.Contains(got, "refused") || !strings.Contains(got, "read-only") {
		t.Errorf("got %q", got)
	}
	if strings.Contains(got, "dmi") || strings.Contains(got, "wakeup") {
		t.Errorf("masked directories show their content: %q", got)
	}
}

// A descriptor that leaks leads to the host (CVE-2024-21626, CVE-2016-9962).
func TestNoDescriptorLeaks(t *testing.T) {
	e := newEnv(t)
	leak, err := syscall.Open("/", syscall.O_RDONLY, 0) // deliberately not close-on-exec
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(leak)
	for _, s := range []*specs.Spec{e.spec("ls", "/proc/self/fd"), hostUser(e.spec("ls", "/proc/self/fd"))} {
		e.n++
		if out, _ := e.run(s); out != "0\n1\n2\n3\n" { // 3 is ls's own
			t.Errorf("the program has descriptors %q", out)
		}
	}
	c := e.sleeper()
	if out, _ := e.exec(c, &specs.Process{Args: []string{"/bin/ls", "/proc/self/fd"}, Cwd: "/"}); out != "0\n1\n2\n3\n" {
		t.Errorf("an exec has descriptors %q", out)
	}
}

func TestWorkingDirectoryStaysInside(t *testing.T) {
	e := newEnv(t)
	for _, cwd := range []string{"/proc/self/fd/3", "/proc/self/fd/7", "/proc/1/cwd"} {
		s := e.spec("true")
		s.Process.Cwd = cwd
		c := e.create(s, ociruntime.Stdio{})
		if err := c.Start(t.Context()); err == nil {
			t.Errorf("a container started in %s", cwd)
		}
	}
}

// A link in the image must not lead a mount, mask or device out of the container (CVE-2021-30465,
// CVE-2025-31133, CVE-2025-52565).
func TestLinksLeadNowhere(t *testing.T) {
	e := newEnv(t)
	outside := t.TempDir()
	base := e.rootfs.Lower[0]
	for link, to := range map[string]string{"data": outside, "etc/up": "../../../../../../../.." + outside, "dev": outside} {
		if err := os.Symlink(to, filepath.Join(base, link)); err != nil {
			t.Fatal(err)
		}
	}
	s := e.spec("sh", "-c", "ls -d "+outside+"/sub; ls /dev/null; test -c /dev/null")
	source := t.TempDir()
	s.Mounts = append(s.Mounts,
		specs.Mount{Destination: "/data/sub", Type: "bind", Source: source, Options: []string{"bind"}},
		specs.Mount{Destination: "/etc/up/sub2", Type: "tmpfs", Source: "tmpfs"})
	out, status := e.run(s)
	if status.Code != 0 {
		t.Errorf("exit status %d: %s", status.Code, out)
	}
	left, err := os.ReadDir(outside)
	if err != nil || len(left) != 0 {
		t.Errorf("the host's directory has %v, %v", left, err)
	}
}

func TestSysctlsOfTheHostAreRefused(t *testing.T) {
	e := newEnv(t)
	for _, key := range []string{"kernel.core_pattern", "kernel.panic", "net/../kernel/panic", "fs.file-max"} {
		s := e.spec("true")
		s.Linux.Sysctl = map[string]string{key: "1"}
		if _, err := e.runtime.Create(t.Context(), "c", ociruntime.CreateOptions{Spec: s, Rootfs: e.rootfs}); err == nil {
			t.Errorf("sysctl %s was set", key)
		}
	}
}

// The binary that started the container cannot be changed from inside it (CVE-2019-5736).
func TestInitIsSealed(t *testing.T) {
	f, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(int(initFile.Fd())), os.O_RDWR, 0)
	if err == nil {
		defer f.Close()
		if _, err = f.WriteAt([]byte("x"), 0); err == nil {
			t.Error("the sealed binary was written")
		}
	}
}

func owner(t *testing.T, path string) (uid, gid uint32) {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Uid, st.Gid
}

func pipe(t testing.TB) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r, w
}

// sleeper is a running container that does nothing.
func (e *env) sleeper() *ociruntime.Container {
	e.t.Helper()
	c := e.create(e.spec("sleep", "1000"), ociruntime.Stdio{})
	if err := c.Start(e.t.Context()); err != nil {
		e.t.Fatal(err)
	}
	return c
}

// exec runs one more process and returns what it said and how it ended.
func (e *env) exec(c *ociruntime.Container, p *specs.Process) (string, ociruntime.ExitStatus) {
	e.t.Helper()
	r, w := pipe(e.t)
	process, err := c.Exec(e.t.Context(), ociruntime.ExecOptions{Process: p, Stdio: ociruntime.Stdio{Stdout: w, Stderr: w}})
	w.Close()
	if err != nil {
		e.t.Fatal(err)
	}
	defer process.Close()
	var out bytes.Buffer
	if _, err := io.Copy(&out, r); err != nil {
		e.t.Fatal(err)
	}
	status, err := process.Wait(e.t.Context())
	if err != nil {
		e.t.Fatal(err)
	}
	return out.String(), status
}
