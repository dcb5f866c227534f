package logs

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func writer(t *testing.T, o WriterOptions) *Writer {
	t.Helper()
	w, err := NewWriter(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func texts(t *testing.T, path string, o Options) []string {
	t.Helper()
	if !o.Stdout && !o.Stderr {
		o.Stdout, o.Stderr = true, true
	}
	var all []string
	for e, err := range Read(context.Background(), path, o) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(e.Line))
	}
	return all
}

func equal(t *testing.T, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func TestLinesAreDockersJSON(t *testing.T) {
	path := filepath.Join(t.TempDir(), "json.log")
	w := writer(t, WriterOptions{Path: path, Attrs: map[string]string{"env": "a\"b"}})
	w.Write(Stdout, []byte("he said \"hi\"\t\\ \x01 \xff é <&>\n"))
	w.Write(Stderr, []byte("part"))
	w.Write(Stderr, []byte("ial\nrest"))
	w.Flush(Stderr)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"he said \"hi\"\t\\ \x01 \ufffd é <&>\n", "partial\n", "rest"}
	scanner := bufio.NewScanner(bytes.NewReader(data))
	for i := 0; scanner.Scan(); i++ {
		var r record
		if err := json.Unmarshal(scanner.Bytes(), &r); err != nil {
			t.Fatalf("line %q: %v", scanner.Text(), err)
		}
		if r.Log != want[i] || r.Attrs["env"] != "a\"b" || time.Since(r.Time) > time.Minute {
			t.Errorf("line %d is %+v, want %q", i, r, want[i])
		}
	}
	equal(t, texts(t, path, Options{}), want...)
	equal(t, texts(t, path, Options{Stdout: true}), want[0])
}

func TestParseAgreesWithEncodingJSON(t *testing.T) {
	for _, line := range []string{
		`{"log":"a\n","stream":"stdout","time":"2026-01-02T15:04:05.1Z"}`,
		`{"log":"\u003cb\u003e \"\\\/\b\f\n\r\t","stream":"stderr","time":"2026-01-02T15:04:05+02:00"}`,
		`{"log":"\ud83d\ude00","stream":"stdout","time":"2026-01-02T15:04:05Z"}`,
		`{"log":"x","stream":"stdout","attrs":{"k":"v"},"time":"2026-01-02T15:04:05Z"}`,
		`{"time":"2026-01-02T15:04:05Z","stream":"stdout","log":"x"}`,
	} {
		var want record
		if err := json.Unmarshal([]byte(line), &want); err != nil {
			t.Fatal(err)
		}
		got, err := parse([]byte(line + "\n"))
		if err != nil || string(got.Line) != want.Log || got.Stream != want.Stream || !got.Time.Equal(want.Time) || got.Attrs["k"] != want.Attrs["k"] {
			t.Errorf("parse(%s) = %+v, %v", line, got, err)
		}
	}
	for _, line := range []string{`{"log":"x`, `{"log":"x","stream":"stdout","time":"yesterday"}`, `x`, ``} {
		if e, err := parse([]byte(line)); err == nil {
			t.Errorf("parse(%q) = %+v", line, e)
		}
	}
}

func TestLongLinesAreSplitAtCharacters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "json.log")
	w := writer(t, WriterOptions{Path: path})
	long := strings.Repeat("é", MaxLine) + "\n" // twice MaxLine bytes
	for i := 0; i < len(long); i += 1001 {
		w.Write(Stdout, []byte(long[i:min(i+1001, len(long))]))
	}
	w.Write(Stdout, []byte("x"+long))
	got := texts(t, path, Options{})
	if joined := strings.Join(got, ""); joined != long+"x"+long {
		t.Fatalf("%d bytes became %d", 2*len(long)+1, len(joined))
	}
	if len(got) < 4 || len(got) > 8 {
		t.Errorf("%d entries", len(got))
	}
}

func TestRotationKeepsTheCap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "json.log")
	w := writer(t, WriterOptions{Path: path, MaxSize: 1000, MaxFiles: 3})
	for i := range 100 {
		w.Write(Stdout, []byte(fmt.Sprintf("line %d\nline %d.5\n", i, i)))
	}
	files, _ := filepath.Glob(path + "*")
	if len(files) != 3 {
		t.Fatalf("files: %v", files)
	}
	for _, f := range files {
		if info, _ := os.Stat(f); info.Size() > 1000 {
			t.Errorf("%s has %d bytes", f, info.Size())
		}
	}
	got := texts(t, path, Options{})
	if len(got) < 20 || got[len(got)-1] != "line 99.5\n" {
		t.Fatalf("read %d lines, last %q", len(got), got[len(got)-1])
	}
	n := len(got) - 2 // reaches into the oldest file
	equal(t, texts(t, path, Options{Tail: &n}), got[2:]...)
	for _, n := range []int{0, 1, 5, len(got), 10 * len(got)} {
		equal(t, texts(t, path, Options{Tail: &n}), got[max(len(got)-n, 0):]...)
	}
}

func TestOneFileIsCut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "json.log")
	w := writer(t, WriterOptions{Path: path, MaxSize: 300, MaxFiles: 1})
	for i := range 20 {
		w.Write(Stdout, []byte(fmt.Sprintf("%d\n", i)))
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() > 300 || info.Size() == 0 {
		t.Fatalf("%v, %v", info.Size(), err)
	}
	if got := texts(t, path, Options{}); got[len(got)-1] != "19\n" {
		t.Fatalf("last is %q", got[len(got)-1])
	}
}

func TestTailReadsOnlyTheEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "json.log")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(1 << 40); err != nil { // a hole that nobody could read through
		t.Fatal(err)
	}
	file.Seek(0, 2)
	fmt.Fprintf(file, "\n%s\n", `{"log":"end\n","stream":"stdout","time":"2026-01-02T15:04:05Z"}`)
	one := 1
	equal(t, texts(t, path, Options{Tail: &one}), "end\n")
}

func TestSinceAndUntil(t *testing.T) {
	path := filepath.Join(t.TempDir(), "json.log")
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for n, name := range []string{path + ".1", path} {
		var b []byte
		for i := range 5000 {
			at := start.Add(time.Duration(n*5000+i) * time.Second)
			b = appendRecord(b, []byte(at.Format(time.TimeOnly)+"\n"), Stdout, "", at.AppendFormat(nil, time.RFC3339Nano))
		}
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, second := range []int{0, 1, 17, 2500, 4999, 5000, 5001, 7777, 9999} {
		since := start.Add(time.Duration(second) * time.Second)
		got := texts(t, path, Options{Since: since})
		if len(got) != 10000-second || got[0] != since.Format(time.TimeOnly)+"\n" {
			t.Errorf("since %d: %d entries, first %q", second, len(got), got[0])
		}
		got = texts(t, path, Options{Until: since})
		if len(got) != second+1 {
			t.Errorf("until %d: %d entries", second, len(got))
		}
	}
	if got := texts(t, path, Options{Since: start.Add(time.Hour * 24)}); len(got) != 0 {
		t.Errorf("since the end: %q", got)
	}
}

// follower reads a log in the background and hands out its lines.
func follower(t *testing.T, path string, o Options) (next func() string, end func()) {
	t.Helper()
	o.Stdout, o.Stderr, o.Follow = true, true, true
	ctx, cancel := context.WithCancel(context.Background())
	got, finished := make(chan string, 1000), make(chan struct{})
	go func() {
		defer close(finished)
		defer close(got)
		for e, err := range Read(ctx, path, o) {
			if err != nil {
				got <- "error " + err.Error()
				return
			}
			got <- string(e.Line)
		}
	}()
	t.Cleanup(func() { cancel(); <-finished })
	next = func() string {
		t.Helper()
		select {
		case line, ok := <-got:
			if !ok {
				return "END"
			}
			return line
		case <-time.After(10 * time.Second):
			t.Fatal("nothing came")
			return ""
		}
	}
	return next, cancel
}

func TestFollowAcrossRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "json.log")
	w := writer(t, WriterOptions{Path: path, MaxSize: 2000, MaxFiles: 50})
	done := make(chan struct{})
	next, _ := follower(t, path, Options{Done: done})
	for i := range 600 { // a burst of about 25 files, far ahead of the reader
		w.Write(Stdout, []byte(fmt.Sprintf("%d\n", i)))
	}
	for i := range 600 {
		if got := next(); got != fmt.Sprintf("%d\n", i) {
			t.Fatalf("line %d is %q", i, got)
		}
	}
	w.Write(Stdout, []byte("last\n"))
	close(done)
	if got := next() + next(); got != "last\nEND" {
		t.Fatalf("the end is %q", got)
	}
}

func TestFollowThroughClear(t *testing.T) {
	path := filepath.Join(t.TempDir(), "json.log")
	w := writer(t, WriterOptions{Path: path, MaxSize: 1000, MaxFiles: 3})
	next, end := follower(t, path, Options{})
	for round := range 5 {
		for i := range 20 {
			w.Write(Stdout, []byte(fmt.Sprintf("%d %d\n", round, i)))
			if got := next(); got != fmt.Sprintf("%d %d\n", round, i) {
				t.Fatalf("round %d line %d is %q", round, i, got)
			}
		}
		if err := Clear(path); err != nil {
			t.Fatal(err)
		}
		if got := texts(t, path, Options{}); len(got) != 0 {
			t.Fatalf("after clear: %q", got)
		}
	}
	end()
	if got := next(); got != "END" {
		t.Fatalf("after the end: %q", got)
	}
}

func TestMissingLogIsEmpty(t *testing.T) {
	path := filepath.Join(t.TempDir(), "json.log")
	equal(t, texts(t, path, Options{}))
	if err := Clear(path); err != nil {
		t.Fatal(err)
	}
	next, _ := follower(t, path, Options{})
	w := writer(t, WriterOptions{Path: path})
	w.Write(Stderr, []byte("first\n"))
	if got := next(); got != "first\n" {
		t.Fatalf("got %q", got)
	}
	if size, err := Size(path); err != nil || size == 0 {
		t.Fatalf("size %d, %v", size, err)
	}
}

// A full disk loses entries, says so, and the log is whole again afterwards.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := mountTmpfs(dir, "size=8k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmount(dir) })
	path := filepath.Join(dir, "json.log")
	w := writer(t, WriterOptions{Path: path})
	for i := range 200 {
		w.Write(Stdout, []byte(fmt.Sprintf("%d\n", i)))
	}
	lost, err := w.Failures()
	kept := texts(t, path, Options{})
	if lost == 0 || err == nil || len(kept)+lost < 200 {
		t.Fatalf("kept %d, lost %d, %v", len(kept), lost, err)
	}
	if err := mountTmpfs(dir, "remount,size=64k"); err != nil {
		t.Fatal(err)
	}
	w.Write(Stdout, []byte("again\n"))
	if got := texts(t, path, Options{}); got[len(got)-1] != "again\n" || len(got) != len(kept)+1 {
		t.Fatalf("%d entries, last %q", len(got), got[len(got)-1])
	}
}

func BenchmarkWrite(b *testing.B) {
	w, err := NewWriter(WriterOptions{Path: filepath.Join(b.TempDir(), "json.log"), MaxSize: 10 << 20, MaxFiles: 3})
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	chunk := bytes.Repeat([]byte("a line of some output as programs write it, 64 bytes in length.\n"), 500)
	b.SetBytes(int64(len(chunk)))
	b.ReportAllocs()
	for b.Loop() {
		w.Write(Stdout, chunk)
	}
}
