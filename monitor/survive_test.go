package monitor_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"davit/task"
)

// fakeEngine is another process that creates and starts a task, attaches to it and waits to be killed.
func fakeEngine(request string) {
	var in struct {
		Options task.LaunchOptions
		Request task.CreateRequest
	}
	e := &env{TB: failing{}, ctx: background}
	e.must(json.Unmarshal([]byte(request), &in))
	e.options = in.Options
	e.connect()
	e.run(in.Request)
	stream, err := e.client.Attach(e.ctx, task.AttachRequest{Task: in.Request.ID, Stdin: true, Stdout: true})
	e.must(err)
	fmt.Println("attached")
	io.Copy(io.Discard, stream)
	os.Exit(0)
}

// startEngine runs fakeEngine and returns it once it is attached.
func (e *env) startEngine(r task.CreateRequest) *exec.Cmd {
	e.Helper()
	in, err := json.Marshal(map[string]any{"Options": e.options, "Request": r})
	e.must(err)
	engine := exec.Command(os.Args[0])
	engine.Env = append(os.Environ(), "DAVIT_TEST_ENGINE="+string(in))
	engine.Stderr = os.Stderr
	out, err := engine.StdoutPipe()
	e.must(err)
	e.must(engine.Start())
	if got := readLine(e, out); got != "attached\n" {
		e.Fatalf("engine says %q", got)
	}
	return engine
}

func TestEngineIsKilled(t *testing.T) {
	e := newEnv(t)
	r := e.request("survivor", "sh", "-c", "while read x; do echo said $x; seq 100; done; exit 9")
	r.Stdio = task.Stdio{Stdin: true, StdinOnce: true}
	engine := e.startEngine(r)
	e.must(engine.Process.Kill())
	engine.Wait()

	e.client.Close()
	e.connect()
	s, err := e.client.State(e.ctx, "survivor", "")
	e.must(err)
	if s.Status != task.StatusRunning {
		t.Fatalf("%+v", s)
	}
	stream := e.attach(task.AttachRequest{Task: "survivor", Stdin: true, Stdout: true})
	out := unframed(stream)
	fmt.Fprint(stream, "hello\n")
	if got := readLine(e, out); got != "said hello\n" {
		t.Errorf("got %q", got)
	}
	e.must(stream.CloseWrite())
	io.Copy(io.Discard, out)
	first := e.await(func(v task.Event) bool { return v.Type == task.EventExit })
	if first.State.ExitCode != 9 {
		t.Errorf("%+v", first)
	}

	// Not acknowledged: the next engine is told again. Acknowledged: never more.
	e.client.Close()
	e.connect()
	if again := e.await(func(v task.Event) bool { return true }); again.Sequence != first.Sequence || again.State.ExitCode != 9 {
		t.Errorf("again: %+v", again)
	}
	e.must(e.client.Acknowledge(e.ctx, first.Sequence))
	e.client.Close()
	e.connect()
	e.run(e.request("next", "true"))
	if next := e.await(func(v task.Event) bool { return true }); next.Sequence != first.Sequence+1 || next.State.ID != "next" {
		t.Errorf("next: %+v", next)
	}
}

func TestUpgradeInPlace(t *testing.T) {
	e := newEnv(t)
	r := e.request("stays", "sh", "-c", "while read x; do echo said $x; done; exit 3")
	r.Stdio = task.Stdio{Stdin: true, StdinOnce: true}
	e.run(r)
	flood := e.request("flood", "sh", "-c", "seq 200000; echo end")
	e.create(flood)
	floodStream := e.attach(task.AttachRequest{Task: "flood", Stdout: true}) // nobody reads yet
	_, err := e.client.Start(e.ctx, "flood")
	e.must(err)
	tty := e.request("tty", "sh", "-c", "while read x; do echo typed $x; done")
	tty.Stdio = task.Stdio{Terminal: true, Stdin: true}
	e.run(tty)
	e.create(e.request("parked", "sh", "-c", "exit 6"))
	stream := e.attach(task.AttachRequest{Task: "stays", Stdin: true, Stdout: true})
	terminal := e.attach(task.AttachRequest{Task: "tty", Stdin: true, Stdout: true})
	_, execStream, err := e.client.Exec(e.ctx, task.ExecRequest{
		Task: "stays", ExecID: "x", Process: process("sh", "-c", "read x; echo exec $x; exit 8"), Stdio: task.Stdio{Stdin: true},
	}, &task.AttachRequest{Stdin: true, Stdout: true})
	e.must(err)
	defer execStream.Close()
	out := unframed(stream)
	fmt.Fprint(stream, "one\n")
	if got := readLine(e, out); got != "said one\n" {
		t.Fatalf("got %q", got)
	}
	relayed := e.relay("stays")
	before, err := e.client.Hello(e.ctx)
	e.must(err)

	if err := e.client.Upgrade(e.ctx, "/bin/true"); err == nil {
		t.Error("upgraded to /bin/true")
	}
	for range 3 {
		e.must(e.client.Upgrade(e.ctx, binary))
	}

	after, err := e.client.Hello(e.ctx)
	e.must(err)
	relayed()
	if after.Pid != before.Pid || !after.Started.After(before.Started) {
		t.Errorf("%+v became %+v", before, after)
	}
	fmt.Fprint(stream, "two\n")
	if got := readLine(e, out); got != "said two\n" {
		t.Errorf("got %q", got)
	}
	fmt.Fprint(terminal, "keys\n")
	for got := ""; got != "typed keys\r\n"; {
		got = readLine(e, terminal)
	}
	fmt.Fprint(execStream, "three\n")
	if got, err := io.ReadAll(unframed(execStream)); err != nil || string(got) != "exec three\n" {
		t.Errorf("exec: %q, %v", got, err)
	}
	if s := e.awaitExec("x"); s.ExitCode != 8 {
		t.Errorf("exec: %+v", s)
	}
	var want strings.Builder
	for i := range 200000 {
		fmt.Fprintf(&want, "%d\n", i+1)
	}
	want.WriteString("end\n")
	if got, err := io.ReadAll(unframed(floodStream)); err != nil || string(got) != want.String() {
		t.Errorf("flood: %d bytes, want %d, %v", len(got), want.Len(), err)
	}
	e.awaitExit("flood")
	if got := e.logged(flood); got != want.String() {
		t.Errorf("flood's log: %d bytes, want %d", len(got), want.Len())
	}
	_, err = e.client.Start(e.ctx, "parked")
	e.must(err)
	if s := e.awaitExit("parked"); s.ExitCode != 6 {
		t.Errorf("parked: %+v", s)
	}
	e.must(stream.CloseWrite())
	if s := e.awaitExit("stays"); s.ExitCode != 3 || len(s.Lost) != 0 {
		t.Errorf("stays: %+v", s)
	}
}

// A monitor that is killed loses stdin and terminals, and says so; not the containers, their output or
// their exit codes.
func TestMonitorIsKilled(t *testing.T) {
	e := newEnv(t)
	r := e.request("orphan", "sh", "-c", "echo one; sleep 0.3; seq 30000; sleep 0.3; exit 12")
	r.Stdio.Stdin = true
	e.run(r)
	e.create(e.request("parked", "true"))
	tty := e.request("tty", "sleep", "1000")
	tty.Stdio.Terminal = true
	e.run(tty)
	short := e.request("short", "sh", "-c", "exit 1")
	e.run(short)
	exit := e.awaitExit("short")
	hello, err := e.client.Hello(e.ctx)
	e.must(err)
	monitor, err := os.FindProcess(hello.Pid)
	e.must(err)
	e.must(monitor.Kill())
	<-e.client.Done()

	e.connect()
	again := e.await(func(task.Event) bool { return true })
	if again.State.ID != "short" || again.State.ExitCode != exit.ExitCode {
		t.Errorf("unacknowledged event: %+v", again)
	}
	s, err := e.client.State(e.ctx, "orphan", "")
	e.must(err)
	if s.Status != task.StatusRunning || strings.Join(s.Lost, ",") != "stdin" {
		t.Errorf("orphan: %+v", s)
	}
	if s := e.awaitExit("orphan"); s.ExitCode != 12 {
		t.Errorf("orphan: %+v", s)
	}
	if got := e.logged(r); strings.Count(got, "\n") != 30001 {
		t.Errorf("log has %d lines", strings.Count(got, "\n"))
	}
	if s, err := e.client.State(e.ctx, "tty", ""); err != nil || strings.Join(s.Lost, ",") != "terminal" {
		t.Errorf("tty: %+v, %v", s, err)
	}
	_, err = e.client.Start(e.ctx, "parked")
	e.must(err)
	e.awaitExit("parked")
}

func TestLaunch(t *testing.T) {
	e := newEnv(t)
	var wg sync.WaitGroup
	pids := make([]int, 8)
	e.options.Socket, e.options.Dir = e.dir+"/second.sock", e.dir+"/second"
	e.must(os.WriteFile(e.options.Socket, nil, 0o600)) // something in the way
	for i := range pids {
		wg.Go(func() {
			c, err := task.Connect(e.ctx, e.options)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			hello, err := c.Hello(e.ctx)
			if err != nil {
				t.Error(err)
			}
			pids[i] = hello.Pid
		})
	}
	wg.Wait()
	for _, pid := range pids {
		if pid != pids[0] {
			t.Errorf("monitors %v", pids)
		}
	}
	if info, err := os.Stat(e.options.Socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", info.Mode(), err)
	}
	begin := time.Now()
	waitGone(e, pids[0])
	if _, err := os.Stat(e.options.Socket); !errors.Is(err, os.ErrNotExist) || time.Since(begin) > 10*time.Second {
		t.Errorf("after %v the socket is there: %v", time.Since(begin), err)
	}
	e.options.Socket, e.options.Dir = e.dir+"/m.sock", e.dir+"/m"
}

// SIGTERM waits for the last task.
func TestTerminate(t *testing.T) {
	e := newEnv(t)
	e.run(e.request("holds", "sleep", "1000"))
	hello, err := e.client.Hello(e.ctx)
	e.must(err)
	e.must(syscall.Kill(hello.Pid, syscall.SIGTERM))
	if s, err := e.client.State(e.ctx, "holds", ""); err != nil || s.Status != task.StatusRunning {
		t.Errorf("%+v, %v", s, err)
	}
	e.must(e.client.Kill(e.ctx, "holds", "", syscall.SIGKILL, true))
	e.awaitExit("holds")
	e.must(e.client.Delete(e.ctx, "holds"))
	select {
	case <-e.client.Done():
	case <-e.ctx.Done():
		t.Error("the monitor stays")
	}
}
