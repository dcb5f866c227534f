package monitor_test

import (
	"context"
	encoding "encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/oci/rootfs"
	"davit/store/logs"
	"davit/task"
)

// binary is davit-oci, built once for all tests.
var binary string

func TestMain(m *testing.M) {
	if request := os.Getenv("DAVIT_TEST_ENGINE"); request != "" {
		fakeEngine(request)
	}
	code, err := withBinary(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// withBinary builds davit-oci with a davit-init inside that is not in the tree.
func withBinary(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "davit-oci")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	place, err := filepath.Abs("../ociruntime/initbin/davit-init")
	if err != nil {
		return 0, err
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {place: dir + "/davit-init"}})
	if err != nil {
		return 0, err
	}
	if err := os.WriteFile(dir+"/overlay.json", overlay, 0o600); err != nil {
		return 0, err
	}
	binary = dir + "/davit-oci"
	for _, args := range [][]string{
		{"-o", dir + "/davit-init", "davit/cmd/davit-init"},
		{"-overlay", dir + "/overlay.json", "-o", binary, "davit/cmd/davit-oci"},
	} {
		build := exec.Command("go", append([]string{"build", "-trimpath", "-ldflags", "-s -w"}, args...)...)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("build: %w: %s", err, out)
		}
	}
	return m.Run(), nil
}

// env is a monitor with a client, gone after the test with all its tasks.
type env struct {
	testing.TB
	ctx     context.Context
	dir     string
	options task.LaunchOptions
	client  *task.Client
	events  <-chan task.Event
}

func newEnv(t testing.TB) *env {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("this test needs root")
	}
	dir, err := os.MkdirTemp("", "davit-monitor")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // the container's root must pass
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	e := &env{TB: t, ctx: ctx, dir: dir, options: task.LaunchOptions{
		Binary: binary, Socket: dir + "/m.sock", Dir: dir + "/m", Args: []string{"--idle", "500ms", "--log-level", "info"},
	}}
	t.Cleanup(func() {
		e.tearDown()
		cancel()
		os.RemoveAll(dir)
	})
	e.makeBase()
	e.connect()
	return e
}

func (e *env) must(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

// makeBase makes a layer of busybox.
func (e *env) makeBase() {
	for _, d := range []string{"bin", "tmp", "proc", "dev"} {
		e.must(os.MkdirAll(filepath.Join(e.dir, "base", d), 0o755))
	}
	busybox, err := os.ReadFile("/bin/busybox")
	e.must(err)
	e.must(os.WriteFile(e.dir+"/base/bin/busybox", busybox, 0o755))
	for _, name := range []string{"sh", "cat", "sleep", "echo", "stty", "seq", "yes", "head", "tail", "kill", "true"} {
		e.must(os.Symlink("busybox", e.dir+"/base/bin/"+name))
	}
}

// connect makes e.client a new connection, launching a monitor when there is none.
func (e *env) connect() {
	e.Helper()
	var err error
	e.client, err = task.Connect(e.ctx, e.options)
	e.must(err)
	e.events, err = e.client.Events(e.ctx, 0)
	e.must(err)
}

// tearDown ends all tasks, and the monitor with the last of them.
func (e *env) tearDown() {
	hello, err := e.client.Hello(e.ctx)
	if err != nil {
		e.connect()
		hello, err = e.client.Hello(e.ctx)
		e.must(err)
	}
	states, err := e.client.List(e.ctx)
	e.must(err)
	for _, s := range states {
		e.client.Kill(e.ctx, s.ID, "", syscall.SIGKILL, true)
		for errors.Is(e.client.Delete(e.ctx, s.ID), errConflict) {
			e.awaitExit(s.ID)
		}
	}
	e.client.Close()
	waitGone(e, hello.Pid)
	if e.Failed() {
		text, _ := os.ReadFile(e.dir + "/m/monitor.log")
		e.Logf("monitor.log:\n%s", text)
	}
	if left, _ := filepath.Glob("/sys/fs/cgroup/*/davit-monitor-test"); len(left) > 0 {
		for _, group := range left {
			if err := os.Remove(group); err != nil {
				e.Errorf("left behind: %v", err)
			}
		}
	}
}

// waitGone waits until the monitor has ended by itself.
func waitGone(e *env, pid int) {
	process, err := os.FindProcess(pid)
	e.must(err)
	deadline := time.Now().Add(20 * time.Second)
	for process.Signal(syscall.Signal(0)) == nil {
		if text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); strings.Contains(string(text), ") Z ") {
			return
		}
		if time.Now().After(deadline) {
			e.Errorf("monitor %d does not leave", pid)
			process.Kill()
		}
		time.Sleep(5 * time.Millisecond) // not a child: there is nothing to wait on
	}
}

const hostBase = 1 << 21

func (e *env) request(id string, args ...string) task.CreateRequest {
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: hostBase, Size: 65536}}
	caps := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SETUID", "CAP_SETGID"}
	for _, d := range []string{"fs", "work"} {
		e.must(os.MkdirAll(filepath.Join(e.dir, "c", id, d), 0o755))
	}
	return task.CreateRequest{
		ID: id,
		Rootfs: rootfs.Rootfs{
			Lower: []string{e.dir + "/base"}, Upper: filepath.Join(e.dir, "c", id, "fs"), Work: filepath.Join(e.dir, "c", id, "work"),
		},
		Log: task.LogConfig{Path: filepath.Join(e.dir, "c", id, "json.log")},
		Spec: &specs.Spec{
			Version: specs.Version,
			Root:    &specs.Root{Path: "rootfs"},
			Process: &specs.Process{
				Args: args, Cwd: "/", Env: []string{"PATH=/bin"},
				Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
			},
			Mounts: []specs.Mount{
				{Destination: "/proc", Type: "proc", Source: "proc"},
				{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=755"}},
				{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666", "mode=0620"}},
			},
			Linux: &specs.Linux{
				CgroupsPath: fmt.Sprintf("/davit-monitor-test/%d-%s", os.Getpid(), id),
				UIDMappings: ids, GIDMappings: ids,
				Namespaces: []specs.LinuxNamespace{
					{Type: "pid"}, {Type: "network"}, {Type: "mount"}, {Type: "ipc"}, {Type: "uts"}, {Type: "user"},
				},
			},
		},
	}
}

func (e *env) create(r task.CreateRequest) task.State {
	e.Helper()
	s, netns, err := e.client.Create(e.ctx, r)
	e.must(err)
	if netns == nil {
		e.Fatal("no network namespace")
	}
	e.must(netns.Close())
	return s
}

// run creates and starts a task.
func (e *env) run(r task.CreateRequest) task.State {
	e.Helper()
	e.create(r)
	s, err := e.client.Start(e.ctx, r.ID)
	e.must(err)
	return s
}

func (e *env) attach(r task.AttachRequest) *net.UnixConn {
	e.Helper()
	conn, err := e.client.Attach(e.ctx, r)
	e.must(err)
	e.Cleanup(func() { conn.Close() })
	return conn
}

// await returns the next event that ok accepts.
func (e *env) await(ok func(task.Event) bool) task.Event {
	e.Helper()
	for {
		select {
		case event, open := <-e.events:
			if !open {
				e.Fatal("no more events")
			}
			if ok(event) {
				return event
			}
		case <-e.ctx.Done():
			e.Fatal("no such event")
		}
	}
}

func (e *env) awaitExit(id string) task.State {
	e.Helper()
	return e.await(func(v task.Event) bool { return v.Type == task.EventExit && v.State.ID == id }).State
}

func (e *env) awaitExec(execID string) task.State {
	e.Helper()
	return e.await(func(v task.Event) bool { return v.Type == task.EventExecExit && v.State.ExecID == execID }).State
}

// logged returns the whole log of a task.
func (e *env) logged(r task.CreateRequest) string {
	e.Helper()
	var b strings.Builder
	for entry, err := range logs.Read(e.ctx, r.Log.Path, logs.Options{Stdout: true, Stderr: true}) {
		e.must(err)
		b.Write(entry.Line)
	}
	return b.String()
}

// readLine reads from a raw stream up to the end of a line.
func readLine(e *env, r io.Reader) string {
	e.Helper()
	var line []byte
	for one := make([]byte, 1); ; {
		if _, err := io.ReadFull(r, one); err != nil {
			e.Fatalf("after %q: %v", line, err)
		}
		if line = append(line, one...); one[0] == '\n' {
			return string(line)
		}
	}
}

// unframed is a stream without its frame headers, both streams in one.
func unframed(r io.Reader) io.Reader {
	out, in := io.Pipe()
	go func() {
		for {
			var header [8]byte
			_, err := io.ReadFull(r, header[:])
			if err == nil {
				_, err = io.CopyN(in, r, int64(encoding.BigEndian.Uint32(header[4:])))
			}
			if err != nil {
				in.CloseWithError(err)
				return
			}
		}
	}()
	return out
}

var background = context.Background()

// failing ends the process where a test would end.
type failing struct{ testing.TB }

func (failing) Helper() {}

func (failing) Fatal(args ...any) {
	fmt.Fprintln(os.Stderr, args...)
	os.Exit(1)
}
