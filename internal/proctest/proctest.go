// Package proctest has what tests need that run programs of others, or listen to a log, on loopback.
package proctest

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Prepare runs one of the scripts test/prepare-*, which builds what is missing, and returns what it prints: the
// path of a program, or of a directory of programs.
func Prepare(t testing.TB, script string, args ...string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(sources(t), "test", script), args...)
	var progress strings.Builder
	cmd.Stderr = &progress
	path, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", script, strings.Join(args, " "), err, progress.String())
	}
	return strings.TrimSpace(string(path))
}

// sources is the root of davit's tree; a test runs in its package's directory.
func sources(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "layers.txt")); err == nil {
			return dir
		}
	}
	t.Fatal("not inside davit's sources")
	return ""
}

// FreeAddress returns a host:port on loopback at which nobody listens now.
func FreeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Output collects what a process or a logger writes. The zero value is ready; it may be used concurrently.
type Output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

// String returns all of it.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
