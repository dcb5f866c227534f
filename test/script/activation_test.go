package script

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestSocketActivation has systemd's own program listen on three sockets and hand them to davitd when the
// first client comes.
func TestSocketActivation(t *testing.T) {
	e := newEngine(t)
	davit := filepath.Join(e.bin, "davit")
	e.must(t, davit, "run", "-d", "--name", "stays", "busybox", "sleep", "1000")
	second, tcp := filepath.Join(e.root, "second.sock"), "127.0.0.1:18126"
	for range 2 { // the second time with sockets that are there, as after systemctl restart
		if err := e.stop(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := e.activate(second, tcp); err != nil {
			t.Fatal(err)
		}
		for _, host := range []string{"unix://" + e.socket(), "unix://" + second, "tcp://" + tcp} {
			if out := e.must(t, "docker", "-H", host, "ps", "--format", "{{.Names}} {{.Status}}"); !strings.HasPrefix(out, "stays Up") {
				t.Errorf("%s: %s", host, out)
			}
		}
		if out := e.must(t, davit, "run", "--rm", "busybox", "echo", "activated"); out != "activated\n" {
			t.Errorf("run: %q", out)
		}
	}
	if err := e.stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{e.socket(), second} { // systemd's, which goes on listening
		if _, err := os.Stat(path); err != nil {
			t.Errorf("the engine took a socket with it: %v", err)
		}
	}
	if err := e.start(); err != nil { // which ends as every engine of these tests does
		t.Fatal(err)
	}
}

// activate starts systemd-socket-activate, which becomes davitd, and connects.
func (e *engine) activate(second, tcp string) error {
	davitd := exec.Command(filepath.Join(e.bin, "davitd"), e.flags()...)
	cmd := exec.Command("systemd-socket-activate", "--listen="+e.socket(), "--listen="+second, "--listen="+tcp)
	for _, variable := range e.env() { // it hands on nothing else
		cmd.Args = append(cmd.Args, "--setenv="+variable)
	}
	cmd.Args = append(append(cmd.Args, davitd.Args...), "-H", "fd://")
	cmd.Stdout, cmd.Stderr = e.log, e.log
	if err := cmd.Start(); err != nil {
		return err
	}
	e.process = cmd
	return e.waitReady()
}

// Without sockets there is nothing to listen on.
func TestNoActivation(t *testing.T) {
	e := &engine{bin: filepath.Join(repository(t), "bin"), root: t.TempDir()}
	e.data = filepath.Join(e.root, "data")
	for _, env := range [][]string{nil, {"LISTEN_PID=1", "LISTEN_FDS=1"}} {
		cmd := exec.Command(filepath.Join(e.bin, "davitd"), append(e.flags(), "-H", "fd://")...)
		cmd.Env = append(e.env(), env...)
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "no sockets were handed over") {
			t.Errorf("%v: %v\n%s", env, err, out)
		}
	}
	if left, err := os.ReadDir(e.root); err != nil || len(left) > 0 {
		t.Errorf("it made %v, %v", left, err)
	}
}
