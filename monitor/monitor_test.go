package monitor_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/oci/errdefs"
	"davit/store/logs"
	"davit/task"
)

var errConflict = errdefs.ErrConflict

func TestLife(t *testing.T) {
	e := newEnv(t)
	r := e.request("life", "sh", "-c", "echo out; echo err >&2; exit 7")
	if s := e.create(r); s.Status != task.StatusCreated || s.Pid == 0 || s.Cgroup == "" {
		t.Errorf("created: %+v", s)
	}
	if _, _, err := e.client.Create(e.ctx, r); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("created twice: %v", err)
	}
	stream := e.attach(task.AttachRequest{Task: "life", Stdout: true, Stderr: true})
	s, err := e.client.Start(e.ctx, "life")
	e.must(err)
	if s.Status != task.StatusRunning || s.StartedAt.IsZero() {
		t.Errorf("started: %+v", s)
	}
	exit := e.awaitExit("life")
	if exit.ExitCode != 7 || exit.Status != task.StatusStopped || exit.Pid != 0 || exit.ExitedAt.Before(s.StartedAt) {
		t.Errorf("exited: %+v", exit)
	}
	if got := e.logged(r); strings.Count(got, "out\n") != 1 || strings.Count(got, "err\n") != 1 {
		t.Errorf("log when the exit is known: %q", got)
	}
	if out, err := io.ReadAll(unframed(stream)); err != nil || len(out) != 8 {
		t.Errorf("stream: %q, %v", out, err)
	}
	if _, err := e.client.Start(e.ctx, "life"); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("started again: %v", err)
	}
	if err := e.client.Kill(e.ctx, "life", "", syscall.SIGTERM, false); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("killed afterwards: %v", err)
	}
	e.must(e.client.Delete(e.ctx, "life"))
	e.create(r) // the id is free at once
	e.must(e.client.Delete(e.ctx, "life"))
	if _, err := e.client.State(e.ctx, "life", ""); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("after delete: %v", err)
	}
}

func TestExitCodes(t *testing.T) {
	e := newEnv(t)
	for script, want := range map[string]int{"exit 0": 0, "exit 255": 255, "kill -KILL $$": 137, "trap 'exit 5' TERM; kill -TERM $$": 5} {
		// The first process of a pid namespace ignores signals it has no handler for, so the shell has a child.
		r := e.request("code", "sh", "-c", "sh -c \""+strings.ReplaceAll(script, "$", "\\$")+"\"; exit $?")
		e.run(r)
		if s := e.awaitExit("code"); s.ExitCode != want {
			t.Errorf("%s: %d, want %d", script, s.ExitCode, want)
		}
		e.must(e.client.Delete(e.ctx, "code"))
	}
	e.run(e.request("killed", "sleep", "1000"))
	e.must(e.client.Kill(e.ctx, "killed", "", syscall.SIGKILL, false))
	if s := e.awaitExit("killed"); s.ExitCode != 137 {
		t.Errorf("killed: %d", s.ExitCode)
	}
}

func TestProgramIsMissing(t *testing.T) {
	e := newEnv(t)
	e.create(e.request("missing", "/no/such"))
	if _, err := e.client.Start(e.ctx, "missing"); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("start: %v", err)
	}
	s, err := e.client.State(e.ctx, "missing", "")
	e.must(err)
	if s.Status != task.StatusStopped || s.StartError == "" {
		t.Errorf("state: %+v", s)
	}
	e.must(e.client.Delete(e.ctx, "missing"))
	e.run(e.request("fine", "sleep", "1000"))
	_, _, err = e.client.Exec(e.ctx, task.ExecRequest{Task: "fine", ExecID: "x", Process: process("/no/such")}, nil)
	if !errors.Is(err, syscall.ENOENT) {
		t.Errorf("exec: %v", err)
	}
}

func process(args ...string) *specs.Process {
	return &specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}}
}

func TestExec(t *testing.T) {
	e := newEnv(t)
	e.run(e.request("host", "sleep", "1000"))
	s, stream, err := e.client.Exec(e.ctx, task.ExecRequest{
		Task: "host", ExecID: "cat", Process: process("sh", "-c", "echo ready; cat; exit 4"), Stdio: task.Stdio{Stdin: true, StdinOnce: true},
	}, &task.AttachRequest{Stdin: true, Stdout: true, Stderr: true})
	e.must(err)
	defer stream.Close()
	if s.Status != task.StatusRunning || s.Pid == 0 || s.ExecID != "cat" {
		t.Errorf("started: %+v", s)
	}
	out := unframed(stream)
	if got := readLine(e, out); got != "ready\n" {
		t.Errorf("got %q", got)
	}
	if all, err := e.client.List(e.ctx); err != nil || len(all) != 1 || len(all[0].Execs) != 1 {
		t.Errorf("list: %+v, %v", all, err)
	}
	fmt.Fprint(stream, "hello\n")
	e.must(stream.CloseWrite())
	if rest, err := io.ReadAll(out); err != nil || string(rest) != "hello\n" {
		t.Errorf("got %q, %v", rest, err)
	}
	if s := e.awaitExec("cat"); s.ExitCode != 4 || s.ID != "host" {
		t.Errorf("exited: %+v", s)
	}
	_, _, err = e.client.Exec(e.ctx, task.ExecRequest{Task: "host", ExecID: "bg", Process: process("sleep", "1000"), Detach: true}, nil)
	e.must(err)
	e.must(e.client.Kill(e.ctx, "host", "bg", syscall.SIGTERM, false))
	if s := e.awaitExec("bg"); s.ExitCode != 143 {
		t.Errorf("killed: %+v", s)
	}
}

func TestTerminal(t *testing.T) {
	e := newEnv(t)
	r := e.request("tty", "sh", "-c", "stty size; echo ready; while read x; do echo got $x; stty size; done")
	r.Stdio = task.Stdio{Terminal: true, Stdin: true, StdinOnce: true, Rows: 30, Cols: 100}
	e.create(r)
	e.must(e.client.Resize(e.ctx, "tty", "", 40, 120)) // before the start
	stream := e.attach(task.AttachRequest{Task: "tty", Stdin: true, Stdout: true})
	second := e.attach(task.AttachRequest{Task: "tty", Stdout: true})
	_, err := e.client.Start(e.ctx, "tty")
	e.must(err)
	if got := readLine(e, stream) + readLine(e, stream); got != "40 120\r\nready\r\n" {
		t.Errorf("got %q", got)
	}
	e.must(e.client.Resize(e.ctx, "tty", "", 50, 80))
	fmt.Fprint(stream, "word\n")
	var seen string
	for !strings.Contains(seen, "got word\r\n") || !strings.Contains(seen, "50 80\r\n") {
		seen += readLine(e, stream)
	}
	stream.Write([]byte{4}) // end of file, as typed
	e.awaitExit("tty")
	rest, err := io.ReadAll(second)
	if err != nil || !strings.Contains(string(rest), "got word") {
		t.Errorf("second client: %q, %v", rest, err)
	}
}

func TestPause(t *testing.T) {
	e := newEnv(t)
	e.run(e.request("frozen", "sleep", "1000"))
	e.must(e.client.Pause(e.ctx, "frozen"))
	if s, err := e.client.State(e.ctx, "frozen", ""); err != nil || s.Status != task.StatusPaused {
		t.Errorf("%+v, %v", s, err)
	}
	if _, _, err := e.client.Exec(e.ctx, task.ExecRequest{Task: "frozen", ExecID: "x", Process: process("true")}, nil); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("exec: %v", err)
	}
	if err := e.client.Pause(e.ctx, "frozen"); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("paused twice: %v", err)
	}
	e.must(e.client.Resume(e.ctx, "frozen"))
	e.must(e.client.Pause(e.ctx, "frozen"))
	e.must(e.client.Kill(e.ctx, "frozen", "", syscall.SIGKILL, false)) // works on a frozen one
	if s := e.awaitExit("frozen"); s.ExitCode != 137 {
		t.Errorf("%+v", s)
	}
}

func TestOOM(t *testing.T) {
	e := newEnv(t)
	limit := int64(8 << 20)
	r := e.request("hog", "sh", "-c", "sh -c 'x=$(yes | head -c 100000000)'; echo child said $?; tail /dev/zero")
	r.Spec.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &limit}}
	e.run(r)
	oom := e.await(func(v task.Event) bool { return v.Type == task.EventOOM })
	if oom.State.ID != "hog" || !oom.State.OOMKilled {
		t.Errorf("event: %+v", oom)
	}
	if s := e.awaitExit("hog"); s.ExitCode != 137 || !s.OOMKilled {
		t.Errorf("exit: %+v", s)
	}
}

func TestManyAtOnce(t *testing.T) {
	const n = 50
	e := newEnv(t)
	requests := make([]task.CreateRequest, n)
	var wg sync.WaitGroup
	for i := range requests {
		requests[i] = e.request(fmt.Sprintf("many-%d", i), "sh", "-c", fmt.Sprintf("seq %d; exit %d", 1000+i, i))
		wg.Go(func() { e.run(requests[i]) })
	}
	wg.Wait()
	codes := map[string]int{}
	for len(codes) < n {
		event := e.await(func(v task.Event) bool { return v.Type == task.EventExit })
		codes[event.State.ID] = event.State.ExitCode
		e.must(e.client.Acknowledge(e.ctx, event.Sequence))
	}
	for i, r := range requests {
		if codes[r.ID] != i {
			t.Errorf("%s: %d", r.ID, codes[r.ID])
		}
		if got := e.logged(r); strings.Count(got, "\n") != 1000+i || !strings.HasSuffix(got, fmt.Sprintf("\n%d\n", 1000+i)) {
			t.Errorf("%s: log of %d bytes", r.ID, len(got))
		}
		e.must(e.client.Delete(e.ctx, r.ID))
	}
}

// A task gets its seccomp profile when only the profile's name was sent, also after the monitor has forgotten
// which one that was.
func TestProfileIsForgotten(t *testing.T) {
	e := newEnv(t)
	confined := func(id string, profile *specs.LinuxSeccomp) {
		t.Helper()
		r := e.request(id, "busybox", "grep", "Seccomp:", "/proc/self/status")
		r.Spec.Linux.Seccomp = profile
		e.run(r)
		e.awaitExit(id)
		if got := e.logged(r); got != "Seccomp:\t2\n" {
			t.Errorf("%s: %q", id, got)
		}
		e.must(e.client.Delete(e.ctx, id))
	}
	first := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}
	confined("sent", first)
	confined("named", first)
	other, err := task.Connect(e.ctx, e.options)
	e.must(err)
	defer other.Close()
	mine := e.client
	e.client = other
	for i := range 8 {
		confined(fmt.Sprintf("other-%d", i), &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
			{Names: []string{"reboot"}, Action: specs.ActErrno, ErrnoRet: new(uint(i + 1))},
		}})
	}
	e.client = mine
	confined("forgotten", first)
}

func TestFollowLogs(t *testing.T) {
	e := newEnv(t)
	r := e.request("talks", "sh", "-c", "while read x; do echo said $x; done")
	r.Stdio = task.Stdio{Stdin: true}
	r.Log.MaxSize, r.Log.MaxFiles = 1000, 20
	e.run(r)
	input := e.attach(task.AttachRequest{Task: "talks", Stdin: true})
	done := make(chan struct{})
	var lines []string
	all, finished := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(finished)
		for entry, err := range logs.Read(e.ctx, r.Log.Path, logs.Options{Stdout: true, Follow: true, Done: done}) {
			if err != nil {
				t.Errorf("follow: %v", err)
			}
			if lines = append(lines, string(entry.Line)); len(lines) == 100 {
				close(all)
			}
		}
	}()
	for i := range 100 {
		fmt.Fprintf(input, "%d\n", i)
	}
	e.must(input.CloseWrite()) // not the end of stdin
	if s, err := e.client.State(e.ctx, "talks", ""); err != nil || s.Status != task.StatusRunning {
		t.Errorf("%+v, %v", s, err)
	}
	select { // what the client has sent is on its way by another connection than what comes next
	case <-all:
	case <-e.ctx.Done():
	}
	e.must(e.client.CloseStdin(e.ctx, "talks", ""))
	e.awaitExit("talks")
	close(done)
	<-finished
	if len(lines) != 100 || lines[99] != "said 99\n" {
		t.Errorf("followed %d lines", len(lines))
	}
}

// A log that cannot be written stops neither the container nor its clients.
func TestFullDisk(t *testing.T) {
	e := newEnv(t)
	r := e.request("full", "sh", "-c", "seq 100000; echo end")
	disk := e.dir + "/disk"
	e.must(os.Mkdir(disk, 0o755))
	e.must(syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=16k"))
	t.Cleanup(func() { syscall.Unmount(disk, syscall.MNT_DETACH) })
	r.Log.Path = disk + "/json.log"
	e.create(r)
	stream := e.attach(task.AttachRequest{Task: "full", Stdout: true})
	_, err := e.client.Start(e.ctx, "full")
	e.must(err)
	out, err := io.ReadAll(unframed(stream))
	if err != nil || !strings.HasSuffix(string(out), "100000\nend\n") {
		t.Errorf("stream has %d bytes, %v", len(out), err)
	}
	if s := e.awaitExit("full"); s.ExitCode != 0 || s.LogErrors == 0 || !strings.Contains(s.LogError, "no space") {
		t.Errorf("state: %+v", s)
	}
}
