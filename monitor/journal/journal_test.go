package journal

import (
	"os"
	"path/filepath"
	"testing"

	"davit/task"
)

func open(t *testing.T, path string) *Journal {
	t.Helper()
	j, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func publish(t *testing.T, j *Journal, id string) {
	t.Helper()
	if err := j.Publish(task.Event{Type: task.EventExit, State: task.State{ID: id}}); err != nil {
		t.Fatal(err)
	}
}

// What is not acknowledged is there in the next life, with its number; new numbers are higher.
func TestNextLife(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := open(t, path)
	for _, id := range []string{"a", "b", "c"} {
		publish(t, j, id)
	}
	events, _ := j.After(0)
	if err := j.Acknowledge(events[0].Sequence); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	file.WriteString(`{"event":{"seq`) // killed in the middle of a write
	file.Close()

	next := open(t, path)
	publish(t, next, "d")
	got, _ := next.After(0)
	if len(got) != 3 || got[0].Sequence != events[1].Sequence || got[1].State.ID != "c" || got[2].State.ID != "d" {
		t.Fatalf("got %+v", got)
	}
	if got[2].Sequence <= got[1].Sequence {
		t.Errorf("sequence fell from %d to %d", got[1].Sequence, got[2].Sequence)
	}
	if later, _ := next.After(got[1].Sequence); len(later) != 1 {
		t.Errorf("after c: %+v", later)
	}
	if err := next.Acknowledge(got[2].Sequence); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 0 {
		t.Errorf("acknowledged, yet the file has %d bytes, %v", info.Size(), err)
	}
}

func TestWaiting(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "journal"))
	_, changed := j.After(0)
	select {
	case <-changed:
		t.Fatal("changed before anything happened")
	default:
	}
	publish(t, j, "a")
	<-changed
	for range rewriteAfter + 10 { // one always waits, so that the file is never cut
		publish(t, j, "b")
		events, _ := j.After(0)
		if err := j.Acknowledge(events[0].Sequence); err != nil {
			t.Fatal(err)
		}
	}
	if j.lines > rewriteAfter+2 {
		t.Errorf("the file grows: %d lines", j.lines)
	}
}
