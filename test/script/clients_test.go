package script

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// The libraries that other people's programs are written with: test/clients against an engine of its own.
func TestClients(t *testing.T) {
	program := filepath.Join(t.TempDir(), "clients.test")
	// The modules come from outside of the tests' network.
	build := exec.Command("nsenter", "--net=/proc/self/fd/3", "go", "test", "-c", "-o", program, ".")
	build.Dir = filepath.Join(repository(t), "test/clients")
	build.ExtraFiles = []*os.File{outside(t)}
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	e := newEngine(t)
	run := exec.Command(program, "-test.v", "-test.timeout=2m")
	run.Dir = build.Dir
	// The reaper of testcontainers is an image of its own, which is not here.
	run.Env = append(e.env(), "TESTCONTAINERS_RYUK_DISABLED=true", "HOME="+t.TempDir())
	out, err := run.CombinedOutput()
	if passed := len(regexp.MustCompile(`(?m)^--- PASS`).FindAll(out, -1)); err != nil || passed < 12 {
		t.Errorf("%d tests passed: %v\n%s", passed, err, out)
	}
}
