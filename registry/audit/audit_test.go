package audit

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func openLog(t *testing.T, path string) *Log {
	t.Helper()
	l, err := Open(path, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	return l
}

// until waits for a condition that another goroutine brings about.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s does not happen", what)
		}
	}
}

// references returns those of a file's records, each of which has to be whole.
func references(t *testing.T, path string) (found []string) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var r Record
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		found = append(found, r.Reference)
	}
	return found
}

// A file that is renamed, or removed, is followed by a new one; no record is lost or in both.
func TestRotate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.json")
	l := openLog(t, path)
	for i := range 50 {
		l.Write(t.Context(), Record{Reference: fmt.Sprint(i)}, true)
		if i == 20 {
			until(t, "writing", func() bool { return l.Written.Load() == 21 })
			if err := os.Rename(path, path+".1"); err != nil {
				t.Fatal(err)
			}
		}
	}
	until(t, "writing", func() bool { return l.Written.Load() == 50 })
	old, now := references(t, path+".1"), references(t, path)
	if len(old) != 21 || len(now) != 29 || now[0] != "21" || now[28] != "49" {
		t.Errorf("old %v, new %v", old, now)
	}
}

// A line that a crash has cut off spoils only itself.
func TestTornLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.json")
	if err := os.WriteFile(path, []byte(`{"time":`), 0o600); err != nil {
		t.Fatal(err)
	}
	l := openLog(t, path)
	l.Write(t.Context(), Record{Reference: "a"}, true)
	until(t, "writing", func() bool { return l.Written.Load() == 1 })
	content, err := os.ReadFile(path)
	if err != nil || !strings.HasPrefix(string(content), "{\"time\":\n{") {
		t.Errorf("%q, %v", content, err)
	}
}

// While the disk is full nobody waits, and records are counted that found no room; when there is room again
// what waited is written, and every line is whole.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	path, ballast := filepath.Join(dir, "audit.json"), filepath.Join(dir, "ballast")
	l := openLog(t, path)
	if err := os.WriteFile(ballast, make([]byte, 60<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	agent, count := strings.Repeat("x", 1000), 0
	began := time.Now()
	for ; l.Failures.Load() == 0 || count < 200; count++ {
		l.Write(t.Context(), Record{Reference: fmt.Sprint(count), Agent: agent}, false)
	}
	for range queued {
		l.Write(t.Context(), Record{Reference: "lost"}, false)
		count++
	}
	if took := time.Since(began); took > 20*time.Second || l.Lost.Load() == 0 {
		t.Errorf("writing took %v, %d are lost", took, l.Lost.Load())
	}
	if err := os.Rename(path, path+".1"); err != nil { // in the middle of a line
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(ballast), syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=64m")); err != nil {
		t.Fatal(err)
	}
	until(t, "writing again", func() bool { return l.Written.Load()+l.Lost.Load() == int64(count) })
	if now := references(t, path); int64(len(now)) > l.Written.Load() || len(now) == 0 {
		t.Errorf("%d lines, %d written", len(now), l.Written.Load())
	}
}
