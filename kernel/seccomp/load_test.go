package seccomp

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestKernelTakesIt loads the default profile into a real process.
func TestKernelTakesIt(t *testing.T) {
	load := filepath.Join(t.TempDir(), "load")
	if out, err := exec.Command("gcc", "-Wall", "-Werror", "-o", load, "testdata/load.c").CombinedOutput(); err != nil {
		t.Fatalf("compile the loader (needs gcc): %v\n%s", err, out)
	}
	x86_64 := native("amd64")[0]
	run := func(p *specs.LinuxSeccomp, numbers ...uint32) (string, error) {
		prog := compile(t, p, "amd64")
		args := []string{fmt.Sprint(prog.Flags)}
		for _, n := range numbers {
			args = append(args, fmt.Sprint(n))
		}
		c := exec.Command(load, args...)
		c.Stdin = bytes.NewReader(prog.Filter)
		out, err := c.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	// getppid works, keyctl is forbidden, close(0) works, a call of the future is unknown, mount is forbidden.
	numbers := []uint32{number(t, x86_64, "getppid"), number(t, x86_64, "keyctl"), number(t, x86_64, "close"), 600, number(t, x86_64, "mount")}
	out, err := run(dockerDefault(t), numbers...)
	if err != nil || out != "0 1 0 38 1" {
		t.Errorf("under the default profile: %q, %v; want errno 0 1 0 38 1", out, err)
	}
	// With CAP_SYS_ADMIN the filter lets mount through, and the kernel finds the address bad.
	if out, err = run(dockerDefault(t, "CAP_SYS_ADMIN"), number(t, x86_64, "mount")); err != nil || out == "1" {
		t.Errorf("mount with CAP_SYS_ADMIN: %q, %v", out, err)
	}
	only := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64}}
	_, err = run(only, number(t, x86_64, "getppid")|x32Bit)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGSYS {
		t.Errorf("an x32 call under a filter for x86-64 ended with %v, want SIGSYS", err)
	}
}

func TestCache(t *testing.T) {
	var c Cache
	p := dockerDefault(t)
	first, err := c.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	second, err := c.Compile(dockerDefault(t))
	if err != nil || &first.Filter[0] != &second.Filter[0] {
		t.Errorf("the same profile was compiled twice: %v", err)
	}
	changes := map[string]func(p *specs.LinuxSeccomp){
		"default": func(p *specs.LinuxSeccomp) { p.DefaultAction = specs.ActKill },
		"errno":   func(p *specs.LinuxSeccomp) { p.DefaultErrnoRet = ptr(uint(7)) },
		"arch":    func(p *specs.LinuxSeccomp) { p.Architectures = nil },
		"name":    func(p *specs.LinuxSeccomp) { p.Syscalls[0].Names = p.Syscalls[0].Names[1:] },
		"flags":   func(p *specs.LinuxSeccomp) { p.Flags = []specs.LinuxSeccompFlag{} },
		"rule":    func(p *specs.LinuxSeccomp) { p.Syscalls = p.Syscalls[1:] },
	}
	for name, change := range changes {
		p := dockerDefault(t)
		change(p)
		if fingerprint(p) == fingerprint(dockerDefault(t)) {
			t.Errorf("a profile with another %s has the same fingerprint", name)
		}
	}
	for i := range 2 * cacheSize {
		p.DefaultErrnoRet = ptr(uint(i))
		if _, err := c.Compile(p); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.programs) > cacheSize {
		t.Errorf("the cache holds %d programs", len(c.programs))
	}
}

func BenchmarkCached(b *testing.B) {
	var c Cache
	p := dockerDefault(b)
	for b.Loop() {
		if _, err := c.Compile(p); err != nil {
			b.Fatal(err)
		}
	}
}
