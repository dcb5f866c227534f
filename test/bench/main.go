// Command bench measures davit beside the peers that are installed: the same work, on the same machine,
// in turns, so that noise hits all alike. It prints one table a subject, with the budget of the design
// beside davit's figure. Run it through "make bench", which gives it namespaces of its own.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// subject is one thing to measure.
type subject struct {
	name string
	run  func(*bench) error
}

var subjects = []subject{
	{"run", (*bench).runLatency},
	{"parallel", (*bench).parallel},
	{"memory", (*bench).memory},
	{"build", (*bench).build},
	{"ship", (*bench).ship},
	{"delta", (*bench).delta},
	{"registry", (*bench).registry},
	{"pages", (*bench).pages},
	{"network", (*bench).network},
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(names []string) (err error) {
	for _, name := range names {
		if !slices.ContainsFunc(subjects, func(s subject) bool { return s.name == name }) {
			return fmt.Errorf("no subject %q", name)
		}
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("bring up loopback: %w: %s", err, out)
	}
	root, err := os.MkdirTemp("", "davit-bench-")
	if err != nil {
		return err
	}
	repository, err := filepath.Abs("../..")
	if err != nil {
		return err
	}
	b := &bench{root: root, repository: repository, bin: filepath.Join(repository, "bin")}
	defer b.close()
	if err := b.start(); err != nil {
		return err
	}
	for _, s := range subjects {
		if len(names) > 0 && !slices.Contains(names, s.name) {
			continue
		}
		if err := s.run(b); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// command runs a program and returns what it printed.
func command(env []string, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}
