package ociruntime_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/oci/errdefs"
	"davit/ociruntime"
)

func TestExitStatus(t *testing.T) {
	e := newEnv(t)
	for script, want := range map[string]int{"exit 0": 0, "exit 42": 42, "sh -c 'kill -TERM $$'; exit $?": 143} {
		if _, got := e.run(e.spec("sh", "-c", script)); got.Code != want {
			t.Errorf("%s: got %+v, want %d", script, got, want)
		}
	}
	c := e.sleeper()
	if err := c.Kill(t.Context(), syscall.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Wait(t.Context()); err != nil || got.Code != 137 || got.Signal != 9 {
		t.Errorf("got %+v, %v", got, err)
	}
	if err := c.Kill(t.Context(), syscall.SIGTERM, false); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("a signal to a stopped container: %v", err)
	}
}

func TestProgramThatCannotBeExecuted(t *testing.T) {
	e := newEnv(t)
	c := e.sleeper()
	for _, test := range []struct {
		program, text string
		class         error
	}{
		{"nosuch", `exec: "nosuch": executable file not found in $PATH`, fs.ErrNotExist},
		{"/no/such", `exec: "/no/such": stat /no/such: no such file or directory`, fs.ErrNotExist},
		{"/etc", `exec: "/etc": is a directory: permission denied`, fs.ErrPermission},
		{"/bin/notexec", `exec: "/bin/notexec": permission denied`, fs.ErrPermission},
	} {
		if err := os.WriteFile(e.rootfs.Lower[0]+"/bin/notexec", []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		err := e.create(e.spec(test.program), ociruntime.Stdio{}).Start(t.Context())
		if err == nil || err.Error() != test.text || !errors.Is(err, test.class) {
			t.Errorf("run: got %v", err)
		}
		_, err = c.Exec(t.Context(), ociruntime.ExecOptions{Process: &specs.Process{Args: []string{test.program}, Cwd: "/", Env: []string{"PATH=/bin"}}})
		if err == nil || err.Error() != test.text || !errors.Is(err, test.class) {
			t.Errorf("exec: got %v", err)
		}
	}
}

func TestExec(t *testing.T) {
	e := newEnv(t)
	for name, s := range map[string]*specs.Spec{"own user namespace": e.spec("sleep", "1000"), "host's": hostUser(e.spec("sleep", "1000"))} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			e.n++
			c := e.create(s, ociruntime.Stdio{})
			if err := c.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			loaded, err := e.runtime.Load(t.Context(), c.ID)
			if err != nil {
				t.Fatal(err)
			}
			defer loaded.Close()
			p := &specs.Process{
				Args: []string{"sh", "-c", "id -u; id -G; hostname; echo $X; ps | grep -c '[s]leep 1000'; grep CapEff /proc/self/status; pwd; exit 7"},
				Env:  []string{"PATH=/bin", "X=y"}, Cwd: "/tmp", User: specs.User{UID: 12, GID: 13},
			}
			out, status := e.exec(loaded, p)
			if want := "12\n13\nbox\ny\n1\nCapEff:\t0000000000000000\n/tmp\n"; out != want || status.Code != 7 {
				t.Errorf("got %q, %+v", out, status)
			}
		})
	}
}

func TestExecIsInTheContainersCgroup(t *testing.T) {
	e := newEnv(t)
	c := e.sleeper()
	r, w := pipe(t)
	p, err := c.Exec(t.Context(), ociruntime.ExecOptions{
		Process: &specs.Process{Args: []string{"/bin/cat"}, Cwd: "/"}, Stdio: ociruntime.Stdio{Stdin: r},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	pids, err := c.Pids(t.Context())
	if err != nil || len(pids) != 2 {
		t.Errorf("the container has processes %v, %v", pids, err)
	}
	w.Close()
	if _, err := p.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestTerminal(t *testing.T) {
	e := newEnv(t)
	s := e.spec("sh", "-c", "tty; stty size; id -u; echo hi > /dev/console; ls -l /dev/console | grep -c ' 1000 '")
	s.Process.Terminal = true
	s.Process.ConsoleSize = &specs.Box{Height: 33, Width: 77}
	s.Process.User = specs.User{UID: 1000}
	c := e.create(s, ociruntime.Stdio{})
	if err := c.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c.Console == nil {
		t.Fatal("no console")
	}
	defer c.Console.Close()
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := readTerminal(c.Console); got != "/dev/pts/0\r\n33 77\r\n1000\r\nhi\r\n1\r\n" {
		t.Errorf("got %q", got)
	}
}

func TestExecTerminal(t *testing.T) {
	e := newEnv(t)
	c := e.sleeper()
	p, err := c.Exec(t.Context(), ociruntime.ExecOptions{Process: &specs.Process{
		Args: []string{"sh", "-c", "tty; stty size"}, Cwd: "/", Terminal: true, ConsoleSize: &specs.Box{Height: 5, Width: 6},
		Env: []string{"PATH=/bin"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if got := readTerminal(p.Console); got != "/dev/pts/0\r\n5 6\r\n" {
		t.Errorf("got %q", got)
	}
	if status, err := p.Wait(t.Context()); err != nil || status.Code != 0 {
		t.Errorf("%+v, %v", status, err)
	}
}

// readTerminal reads until the last process has closed the terminal, which is EIO on its master.
func readTerminal(master *os.File) string {
	out, _ := io.ReadAll(master)
	return string(out)
}

func TestMemoryHogIsKilled(t *testing.T) {
	e := newEnv(t)
	s := e.spec("sh", "-c", "dd if=/dev/zero of=/dev/null bs=200M count=2")
	limit := int64(20 << 20)
	s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}
	if out, status := e.run(s); status.Code != 137 && !strings.Contains(out, "Killed") {
		t.Errorf("got %+v %s", status, out)
	}
}

func TestLimitsAndScore(t *testing.T) {
	e := newEnv(t)
	s := e.spec("sh", "-c", "ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj; umask")
	s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}, {Type: "RLIMIT_CORE", Soft: 0, Hard: 0}}
	score := 321
	s.Process.OOMScoreAdj = &score
	if out, _ := e.run(s); out != "100\n200\n321\n0022\n" {
		t.Errorf("got %q", out)
	}
}

func TestTinyInit(t *testing.T) {
	e := newEnv(t)
	s := e.spec("sh", "-c", "echo $$; (sleep 0.01 & ) ; exit 9")
	s.Annotations = map[string]string{"org.davit.init": "true"}
	if out, status := e.run(s); status.Code != 9 || strings.TrimSpace(out) == "1" {
		t.Errorf("got %q, %+v", out, status)
	}
	e.n++
	s = e.spec("sleep", "1000") // which as process 1 would ignore SIGTERM
	s.Annotations = map[string]string{"org.davit.init": "true"}
	c := e.create(s, ociruntime.Stdio{})
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Kill(t.Context(), syscall.SIGTERM, false); err != nil {
		t.Fatal(err)
	}
	if status, err := c.Wait(t.Context()); err != nil || status.Code != 143 {
		t.Errorf("got %+v, %v", status, err)
	}
}

func TestPauseAndResume(t *testing.T) {
	e := newEnv(t)
	c := e.sleeper()
	for _, step := range []struct {
		do   func() error
		want specs.ContainerState
	}{
		{func() error { return nil }, specs.StateRunning},
		{func() error { return c.Pause(t.Context()) }, ociruntime.StatePaused},
		{func() error { return c.Resume(t.Context()) }, specs.StateRunning},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if st, err := c.State(t.Context()); err != nil || st.Status != step.want {
			t.Errorf("got %s, %v, want %s", st.Status, err, step.want)
		}
	}
}

func TestAnotherProcessStartsIt(t *testing.T) {
	e := newEnv(t)
	r, w := pipe(t)
	c := e.create(e.spec("echo", "started"), ociruntime.Stdio{Stdout: w})
	w.Close()
	if err := c.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	other, err := e.runtime.Load(t.Context(), c.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if st, _ := other.State(t.Context()); st.Status != specs.StateCreated || st.Pid != c.Pid {
		t.Errorf("got %+v", st)
	}
	if err := other.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := other.Start(t.Context()); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("a second start: %v", err)
	}
	if out, _ := io.ReadAll(r); string(out) != "started\n" {
		t.Errorf("got %q", out)
	}
}

func TestJoinNamespacesOfAnother(t *testing.T) {
	e := newEnv(t)
	first := e.sleeper()
	s := e.spec("sh", "-c", "ps | grep -c '[s]leep 1000'; readlink /proc/self/ns/net")
	s.Linux.UIDMappings, s.Linux.GIDMappings = nil, nil
	s.Linux.Sysctl = nil
	for i, n := range s.Linux.Namespaces {
		if n.Type == "network" || n.Type == "ipc" || n.Type == "user" || n.Type == "pid" {
			s.Linux.Namespaces[i].Path = "/proc/" + strconv.Itoa(first.Pid) + "/ns/" + map[specs.LinuxNamespaceType]string{"network": "net", "ipc": "ipc", "user": "user", "pid": "pid"}[n.Type]
		}
	}
	want, err := os.Readlink("/proc/" + strconv.Itoa(first.Pid) + "/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if out, status := e.run(s); status.Code != 0 || out != "1\n"+want+"\n" {
		t.Errorf("got %q, %+v, want %s", out, status, want)
	}
}

func TestHostNetwork(t *testing.T) {
	e := newEnv(t)
	s := e.spec("sh", "-c", "ls /sys/class/net | grep -c lo; touch /sys/x || echo read-only")
	s.Linux.Sysctl = nil
	s.Linux.Namespaces = append(s.Linux.Namespaces[:1:1], s.Linux.Namespaces[2:]...)
	if out, _ := e.run(s); !strings.HasPrefix(out, "1\n") || !strings.Contains(out, "read-only") {
		t.Errorf("got %q", out)
	}
}

func TestHooks(t *testing.T) {
	e := newEnv(t)
	dir := t.TempDir()
	s := e.spec("sh", "-c", "cat /tmp/started; echo program")
	hook := func(name string) []specs.Hook {
		return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "cat > " + dir + "/" + name}}}
	}
	s.Hooks = &specs.Hooks{
		CreateRuntime: hook("createRuntime"), Poststart: hook("poststart"), Poststop: hook("poststop"),
		CreateContainer: []specs.Hook{{Path: "/bin/true"}},
		StartContainer:  []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "/bin/cat > /tmp/started"}}},
	}
	r, w := pipe(t)
	c, err := e.runtime.Create(t.Context(), "hooked", ociruntime.CreateOptions{Spec: s, Rootfs: e.rootfs, Stdio: ociruntime.Stdio{Stdout: w}})
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(errors.Join(err, c.Delete(background, true)))
	}
	out, _ := io.ReadAll(r)
	if _, err := c.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	if err := c.Delete(t.Context(), false); err != nil {
		t.Error(err)
	}
	if !strings.Contains(string(out), `"status":"created"`) || !strings.HasSuffix(string(out), "program\n") {
		t.Errorf("the program said %q", out)
	}
	for _, name := range []string{"createRuntime", "poststart", "poststop"} {
		if text, err := os.ReadFile(dir + "/" + name); err != nil || !strings.Contains(string(text), `"id":"hooked"`) {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
}

func TestFailingHookStopsCreation(t *testing.T) {
	e := newEnv(t)
	s := e.spec("true")
	s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo why >&2; exit 3"}}}}
	c := e.create(s, ociruntime.Stdio{})
	if err := c.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "exit status 3: why") {
		t.Errorf("got %v", err)
	}
}

func TestTakenID(t *testing.T) {
	e := newEnv(t)
	c := e.sleeper()
	_, err := e.runtime.Create(t.Context(), c.ID, ociruntime.CreateOptions{Spec: e.spec("true"), Rootfs: e.rootfs})
	if !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("got %v", err)
	}
	if err := c.Delete(t.Context(), false); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("deleting a running container: %v", err)
	}
	if _, err := e.runtime.Load(t.Context(), "nosuch"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}
