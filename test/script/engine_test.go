package script

import (
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
)

// engine is the davitd under test.
type engine struct {
	bin, root string
	data      string   // its --data-root
	links     []string // network devices that were there before it
	log       *os.File
	process   *exec.Cmd
}

func (e *engine) socket() string { return filepath.Join(e.root, "davit.sock") }

// newEngine starts a davitd of its own with empty directories and the busybox image.
func newEngine(t *testing.T) *engine { return newEngineIn(t, "") }

// newEngineIn is newEngine with its durable directory at data, if that is not empty.
func newEngineIn(t *testing.T, data string) *engine {
	t.Helper()
	root, err := os.MkdirTemp("", "davit-script-")
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(root, "davitd.log"))
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{bin: filepath.Join(repository(t), "bin"), root: root, data: data, links: links(t), log: log}
	if e.data == "" {
		e.data = filepath.Join(root, "data")
	}
	t.Cleanup(func() { e.close(t) })
	if err := e.start(); err != nil {
		t.Fatal(err)
	}
	tar := filepath.Join(root, "busybox.tar")
	e.must(t, filepath.Join(repository(t), "examples/base/busybox.sh"), tar)
	e.must(t, filepath.Join(e.bin, "davit"), "import", "-c", `CMD ["sh"]`, "-c", "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", tar, "busybox")
	return e
}

func (e *engine) env() []string {
	return append(os.Environ(), "DOCKER_HOST=unix://"+e.socket(), "DAVIT_HOST=unix://"+e.socket(),
		"DOCKER_BUILDKIT=0", "DOCKER_CONFIG="+filepath.Join(e.root, "config"), "PATH="+e.bin+":"+os.Getenv("PATH"))
}

// flags are those of every davitd of this engine.
func (e *engine) flags() []string {
	return []string{
		"--data-root", e.data, "--exec-root", filepath.Join(e.root, "run"), "--pidfile", filepath.Join(e.root, "davitd.pid"),
		"--cgroup-parent", "/" + filepath.Base(e.root),
	}
}

func (e *engine) must(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := e.command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (e *engine) start(flags ...string) error {
	cmd := exec.Command(filepath.Join(e.bin, "davitd"), append(e.flags(), "-H", "unix://"+e.socket())...)
	cmd.Args = append(cmd.Args, flags...)
	cmd.Stdout, cmd.Stderr = e.log, e.log
	cmd.Env = e.env()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start davitd: %w", err)
	}
	e.process = cmd
	return e.waitReady()
}

// waitReady asks until the engine answers; an engine that has exited never will.
func (e *engine) waitReady() error {
	deadline := time.Now().Add(15 * time.Second)
	for time.Now().Before(deadline) {
		ping := exec.Command(filepath.Join(e.bin, "davit"), "ps", "-q")
		ping.Env = e.env()
		if ping.Run() == nil {
			return nil
		}
		if err := e.process.Process.Signal(syscall.Signal(0)); err != nil {
			break
		}
		<-time.After(20 * time.Millisecond)
	}
	log, _ := os.ReadFile(e.log.Name())
	return fmt.Errorf("davitd does not answer; its log:\n%s", log)
}

func (e *engine) stop(signal syscall.Signal) error {
	if err := e.process.Process.Signal(signal); err != nil {
		return fmt.Errorf("signal davitd: %w", err)
	}
	err := e.process.Wait()
	var exit *exec.ExitError
	if signal == syscall.SIGKILL && errors.As(err, &exit) {
		return nil
	}
	return err
}

// close removes containers, stops the engine and waits for its monitor to go.
func (e *engine) close(t *testing.T) {
	if e.process != nil {
		if ids := strings.Fields(e.must(t, filepath.Join(e.bin, "davit"), "ps", "-aq")); len(ids) > 0 {
			e.must(t, filepath.Join(e.bin, "davit"), append([]string{"rm", "-f", "-v"}, ids...)...)
		}
		if err := e.stop(syscall.SIGTERM); err != nil {
			t.Errorf("stop davitd: %v", err)
		}
	}
	if t.Failed() {
		log, _ := os.ReadFile(e.log.Name())
		t.Logf("davitd's log:\n%s", log[max(0, len(log)-8000):])
	}
	e.stopMonitor(t)
	for _, link := range links(t) { // its bridges, which hold the addresses that the next engine of these tests takes
		if slices.Contains(e.links, link) {
			continue
		}
		// That of a container which has just ended may be gone by now.
		if out, err := exec.Command("ip", "link", "delete", link).CombinedOutput(); err != nil && slices.Contains(links(t), link) {
			t.Errorf("clean up: %v: %s", err, out)
		}
	}
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/" + filepath.Base(e.root))
	for _, group := range groups { // the parent that the engine was given is this test's to remove
		if err := os.Remove(group); err != nil {
			t.Errorf("clean up: %v", err)
		}
	}
	if err := errors.Join(e.log.Close(), os.RemoveAll(e.root)); err != nil {
		t.Errorf("clean up: %v", err)
	}
}

// stopMonitor ends the monitor of this engine: the process whose command line names its run directory.
func (e *engine) stopMonitor(t *testing.T) {
	for _, pid := range e.processes() {
		if process, err := os.FindProcess(pid); err == nil {
			if err := process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
				t.Errorf("stop monitor: %v", err)
			}
		}
	}
	deadline := time.Now().Add(10 * time.Second)
	for len(e.processes()) > 0 {
		if time.Now().After(deadline) {
			t.Errorf("processes %v of the engine are left", e.processes())
			return
		}
		<-time.After(10 * time.Millisecond)
	}
}

// processes lists the pids whose command line names the engine's directory.
func (e *engine) processes() []int {
	entries, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	var pids []int
	for _, entry := range entries {
		cmdline, err := os.ReadFile(entry)
		if err != nil || !strings.Contains(string(cmdline), e.root+"/run") {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(entry, "/proc/%d/", &pid); err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

func (e *engine) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = e.env()
	return cmd
}
