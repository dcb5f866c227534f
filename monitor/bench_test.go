package monitor_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"davit/task"
)

// BenchmarkLife is a container's whole life through the monitor: create, start, exit, delete.
func BenchmarkLife(b *testing.B) {
	e := newEnv(b)
	r := e.request("bench", "true")
	for b.Loop() {
		e.run(r)
		event := e.await(func(v task.Event) bool { return v.Type == task.EventExit })
		e.must(e.client.Acknowledge(e.ctx, event.Sequence))
		e.must(e.client.Delete(e.ctx, r.ID))
	}
}

// BenchmarkCall is what one exchange with the monitor costs.
func BenchmarkCall(b *testing.B) {
	e := newEnv(b)
	for b.Loop() {
		if _, err := e.client.List(e.ctx); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkIdle reports what the monitor holds in memory, alone and for each of 100 idle containers.
func BenchmarkIdle(b *testing.B) {
	const n = 100
	e := newEnv(b)
	hello, err := e.client.Hello(e.ctx)
	e.must(err)
	for b.Loop() {
		alone := settled(e, hello.Pid)
		for i := range n {
			r := e.request(fmt.Sprintf("idle-%d", i), "sleep", "1000")
			r.Log.MaxSize, r.Log.MaxFiles = 10<<20, 3
			e.run(r)
		}
		full := settled(e, hello.Pid)
		b.ReportMetric(float64(alone), "KiB/alone")
		b.ReportMetric(float64(full-alone)/n, "KiB/container")
		for i := range n {
			id := fmt.Sprintf("idle-%d", i)
			e.must(e.client.Kill(e.ctx, id, "", syscall.SIGKILL, false))
			event := e.await(func(v task.Event) bool { return v.Type == task.EventExit && v.State.ID == id })
			e.must(e.client.Acknowledge(e.ctx, event.Sequence))
			e.must(e.client.Delete(e.ctx, id))
		}
	}
}

// settled returns the proportional set size of a process in KiB, once it has given memory back.
func settled(e *env, pid int) int {
	e.Helper()
	time.Sleep(3 * time.Second) // the measure itself: memory goes back after two quiet seconds
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	e.must(err)
	var size int
	_, rest, _ := strings.Cut(string(text), "\nPss:")
	fmt.Sscan(rest, &size)
	return size
}
