package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/oci/errdefs"
)

func ptr[T any](v T) *T { return &v }

func host(t testing.TB) *Layout {
	t.Helper()
	l, err := Host()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// newGroup makes a group that is gone, with its processes, after the test.
func newGroup(t testing.TB, r *specs.LinuxResources) *Group {
	t.Helper()
	parent := fmt.Sprintf("/davit-test-%d", os.Getpid())
	g, err := Create(Config{Path: parent + "/" + strings.ReplaceAll(t.Name(), "/", "-"), Resources: r})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := errors.Join(killIfThere(ctx, g), g.Delete(ctx)); err != nil {
			t.Error(err)
		}
		for _, h := range host(t).Hierarchies {
			if err := os.Remove(h.dir(parent)); err != nil && !os.IsNotExist(err) {
				t.Error(err)
			}
		}
	})
	return g
}

func killIfThere(ctx context.Context, g *Group) error {
	if !exists(g.dirs[0].path) {
		return nil
	}
	return g.Kill(ctx)
}

// start runs a command until the test ends, and puts it into g if there is one.
func start(t testing.TB, g *Group, argv ...string) *exec.Cmd {
	t.Helper()
	c := exec.Command(argv[0], argv[1:]...)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	if g != nil {
		if err := g.Add(c.Process.Pid); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func TestCreateLoadDelete(t *testing.T) {
	g := newGroup(t, nil)
	for _, d := range g.Dirs() {
		if !exists(d.Path) {
			t.Errorf("%s was not created", d.Path)
		}
	}
	if v2 := host(t).Mode != V1; v2 != (g.FD() != nil) {
		t.Errorf("FD() = %v in mode %s", g.FD(), host(t).Mode)
	}
	same, err := Load(g.Path())
	if err != nil {
		t.Fatal(err)
	}
	if len(same.dirs) != len(g.dirs) {
		t.Errorf("Load found %d directories, Create made %d", len(same.dirs), len(g.dirs))
	}
	if err := same.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(g.Path()); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("Load after Delete: %v, want not found", err)
	}
	if err := g.Delete(t.Context()); err != nil {
		t.Errorf("second Delete: %v", err)
	}
}

func TestBadPaths(t *testing.T) {
	for _, p := range []string{"", "/", "/a/../..", "a\x00b"} {
		if _, err := Create(Config{Path: p}); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("Create(%q): %v, want invalid", p, err)
		}
	}
	if p, err := cleanPath("../../x"); err != nil || p != "/davit/x" {
		t.Errorf("cleanPath(../../x) = %q, %v", p, err)
	}
}

func TestAddAndPids(t *testing.T) {
	g := newGroup(t, nil)
	c := start(t, g, "sleep", "100")
	pids, err := g.Pids()
	if err != nil || !slices.Equal(pids, []int{c.Process.Pid}) {
		t.Fatalf("Pids() = %v, %v; want %d", pids, err, c.Process.Pid)
	}
	own, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", c.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(own), ":"+g.Path()+"\n"); n < len(g.dirs) {
		t.Errorf("the process is in %d of %d hierarchies:\n%s", n, len(g.dirs), own)
	}
}

// TestBornInside clones a child into the group without ever writing its pid.
func TestBornInside(t *testing.T) {
	g := newGroup(t, nil)
	attr := &syscall.SysProcAttr{}
	if g.FD() != nil {
		attr.UseCgroupFD, attr.CgroupFD = true, int(g.FD().Fd())
	}
	c := exec.Command("sleep", "100")
	c.SysProcAttr = attr
	if err := g.Spawn(c.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	own, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", c.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(own), ":"+g.Path()+"\n"); n < len(g.dirs) {
		t.Errorf("the child is in %d of %d hierarchies:\n%s", n, len(g.dirs), own)
	}
}

func TestFreezeAndKill(t *testing.T) {
	g := newGroup(t, nil)
	c := start(t, g, "sh", "-c", "while :; do :; done")
	if err := g.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	if frozen, err := g.Frozen(); err != nil || !frozen {
		t.Errorf("Frozen() = %v, %v", frozen, err)
	}
	before, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.Process.Pid))
	if err != nil || string(before) != string(after) {
		t.Errorf("a frozen process moved: %v\n%s%s", err, before, after)
	}
	if err := g.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := c.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the process ended with %v, want SIGKILL", err)
	}
	if err := g.Thaw(); err != nil {
		t.Error(err)
	}
}

func TestSignalReachesAll(t *testing.T) {
	g := newGroup(t, nil)
	var all []*exec.Cmd
	for range 5 {
		all = append(all, start(t, g, "sleep", "100"))
	}
	if err := g.Signal(t.Context(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		var exit *exec.ExitError
		if err := c.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
			t.Errorf("a process ended with %v, want SIGTERM", err)
		}
	}
}

func TestDeleteRefusesWhileOccupied(t *testing.T) {
	g := newGroup(t, nil)
	c := start(t, g, "sleep", "100")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := g.Delete(ctx); !errors.Is(err, errdefs.ErrConflict) {
		t.Fatalf("Delete of an occupied group: %v, want conflict", err)
	}
	if err := syscall.Kill(c.Process.Pid, 0); err != nil {
		t.Fatal("Delete killed the process")
	}
	done := make(chan error)
	go func() { done <- g.Delete(t.Context()) }()
	c.Process.Kill()
	c.Wait()
	if err := <-done; err != nil {
		t.Errorf("Delete while the last process ended: %v", err)
	}
}

func TestDeleteTakesEmptySubgroups(t *testing.T) {
	g := newGroup(t, nil)
	for _, d := range g.dirs {
		if err := os.MkdirAll(filepath.Join(d.path, "a", "b"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, d := range g.dirs {
		if exists(d.path) {
			t.Errorf("%s is still there", d.path)
		}
	}
}

func TestFailedCreateLeavesNothing(t *testing.T) {
	bad := &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Type: "x"}}}
	path := fmt.Sprintf("/davit-test-%d-bad", os.Getpid())
	if _, err := Create(Config{Path: path, Resources: bad}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Fatalf("Create: %v, want invalid", err)
	}
	if _, err := Load(path); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("the group is still there: %v", err)
	}
}

func TestStatsCountWork(t *testing.T) {
	g := newGroup(t, nil)
	before, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	c := start(t, g, "sh", "-c", "read line; i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done")
	c.Wait() // stdin is /dev/null: read returns at once
	after, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if after.CPU.Total <= before.CPU.Total {
		t.Errorf("CPU time went from %d to %d", before.CPU.Total, after.CPU.Total)
	}
}

// oneTask is a group that also holds a v1 layout's controllers; tests of limits need them.
func limited(t *testing.T, controller string) bool {
	t.Helper()
	for _, h := range host(t).Hierarchies {
		if h.has(controller) {
			return true
		}
	}
	return false
}

func TestLimitsWithoutController(t *testing.T) {
	if limited(t, "memory") {
		return // TestLimitsBite covers this layout
	}
	g := newGroup(t, nil)
	err := g.Set(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](64 << 20)}})
	if !errors.Is(err, errdefs.ErrUnsupported) {
		t.Errorf("a memory limit without the controller: %v, want unsupported", err)
	}
	err = g.Set(&specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: ptr[uint16](500)}})
	if err != nil {
		t.Errorf("a blkio weight must be skipped with a warning: %v", err)
	}
}

func TestLimitsAreSetAndChanged(t *testing.T) {
	if !limited(t, "memory") {
		return // TestLimitsWithoutController covers this layout
	}
	g := newGroup(t, &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr[int64](64 << 20), Swap: ptr[int64](128 << 20), Reservation: ptr[int64](32 << 20)},
		CPU:    &specs.LinuxCPU{Shares: ptr[uint64](512), Quota: ptr[int64](50000), Period: ptr[uint64](100000), Cpus: "0", Mems: "0"},
		Pids:   &specs.LinuxPids{Limit: ptr[int64](20)},
	})
	s, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if s.Memory.Limit != 64<<20 || s.Pids.Limit != 20 {
		t.Errorf("limits are %d bytes and %d pids", s.Memory.Limit, s.Pids.Limit)
	}
	for _, mib := range []int64{256, 32, 512} {
		r := &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(mib << 20), Swap: ptr(mib << 20)}}
		if err := g.Set(r); err != nil {
			t.Fatalf("change the limit to %d MiB: %v", mib, err)
		}
	}
	if err := g.Set(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](-1)}, Pids: &specs.LinuxPids{Limit: ptr[int64](-1)}}); err != nil {
		t.Fatal(err)
	}
	if s, err = g.Stats(); err != nil || s.Memory.Limit != 0 || s.Pids.Limit != 0 {
		t.Errorf("after unlimiting: %d bytes, %d pids, %v", s.Memory.Limit, s.Pids.Limit, err)
	}
}

// A limit may need a controller that none needed when the group was made.
func TestLaterLimitReachesProcesses(t *testing.T) {
	if !limited(t, "cpuset") {
		return
	}
	g := newGroup(t, nil)
	c := exec.Command("sleep", "1000")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	if err := g.Add(c.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if err := g.Set(&specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0"}}); err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.Process.Pid))
	if err != nil || !strings.Contains(string(status), "Cpus_allowed_list:\t0\n") {
		t.Errorf("the process was not limited to CPU 0: %v\n%s", err, status)
	}
}

func TestForkBombStops(t *testing.T) {
	if !limited(t, "pids") {
		return
	}
	g := newGroup(t, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr[int64](8)}})
	c := exec.Command("sh", "-c", "read go; for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 100 & done; wait")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	if err := g.Add(c.Process.Pid); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in, "go")
	c.Wait() // the shell gives up when it cannot fork
	if s, err := g.Stats(); err != nil || s.Pids.Current > 8 {
		t.Errorf("%d tasks in a group of 8, %v", s.Pids.Current, err)
	}
}

func TestOOMIsCountedAndNotified(t *testing.T) {
	if !limited(t, "memory") {
		return
	}
	g := newGroup(t, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](16 << 20), Swap: ptr[int64](16 << 20)}})
	events, err := g.OOMEvents()
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	// tail keeps all it reads while it waits for a line's end.
	c := exec.Command("sh", "-c", "read go; exec tail /dev/zero")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if err := g.Add(c.Process.Pid); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in, "go")
	c.Wait()
	events.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := events.Read(make([]byte, 4096)); err != nil {
		t.Errorf("no notification: %v", err)
	}
	if n, err := g.OOMKills(); err != nil || n == 0 {
		t.Errorf("OOMKills() = %d, %v", n, err)
	}
}

func BenchmarkCreateEnterDelete(b *testing.B) {
	r := &specs.LinuxResources{
		Devices: append([]specs.LinuxDeviceCgroup{{Access: "rwm"}}, DefaultDevices()...),
	}
	l, err := Host()
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		for _, h := range l.Hierarchies {
			os.Remove(h.dir("/davit-bench"))
		}
	}()
	for b.Loop() {
		g, err := Create(Config{Path: "/davit-bench/x", Resources: r})
		if err != nil {
			b.Fatal(err)
		}
		if err := g.Delete(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
