// Package journal keeps the events that no engine has acknowledged yet, in memory and in one file, so
// that a monitor's death loses none:
//
//	{"event":{"sequence":17,"type":"exit",...}}
//	{"acknowledged":17}
//
// one JSON object a line, appended; the file is cut when nothing is left.
package journal

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"davit/task"
)

// rewriteAfter is how many lines too many the file may hold before it is written anew.
const rewriteAfter = 4096

// line is one line of the file.
type line struct {
	Event        *task.Event `json:"event,omitempty"`
	Acknowledged uint64      `json:"acknowledged,omitempty"`
}

// Journal is the list of unacknowledged events. Its methods may be called concurrently.
type Journal struct {
	path string

	mu      sync.Mutex
	file    *os.File
	lines   int
	last    uint64 // sequence number given last
	events  []task.Event
	changed chan struct{} // closed and replaced at every new event
}

// Open reads the journal in path, or begins one. Sequence numbers begin with the time in microseconds,
// so that they rise over the lives of monitors without being written down.
func Open(path string) (*Journal, error) {
	j := &Journal{path: path, last: uint64(time.Now().UnixMicro()), changed: make(chan struct{})}
	if err := j.load(); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	return j, j.rewrite()
}

func (j *Journal) load() error {
	file, err := os.Open(j.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	scanner := bufio.NewScanner(file)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		var l line
		if json.Unmarshal(scanner.Bytes(), &l) != nil {
			continue // the last line of a monitor that was killed
		}
		if l.Event != nil {
			j.events = append(j.events, *l.Event)
			j.last = max(j.last, l.Event.Sequence)
		}
		j.forget(l.Acknowledged)
	}
	return scanner.Err()
}

// forget drops the events up to sequence.
func (j *Journal) forget(sequence uint64) {
	n := 0
	for n < len(j.events) && j.events[n].Sequence <= sequence {
		n++
	}
	if j.events = j.events[n:]; len(j.events) == 0 {
		j.events = nil
	}
}

// rewrite replaces the file by one with what is left.
func (j *Journal) rewrite() error {
	var text []byte
	for i := range j.events {
		text = appendLine(text, line{Event: &j.events[i]})
	}
	temporary := j.path + ".new"
	if err := os.WriteFile(temporary, text, 0o600); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	if err := os.Rename(temporary, j.path); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	file, err := os.OpenFile(j.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	if j.file != nil {
		j.file.Close()
	}
	j.file, j.lines = file, len(j.events)
	return nil
}

func appendLine(to []byte, l line) []byte {
	text, _ := json.Marshal(l) // plain values: cannot fail
	return append(append(to, text...), '\n')
}

// Publish gives an event its number, keeps it and wakes who waits. An error means that it is not on
// disk; it is published all the same.
func (j *Journal) Publish(e task.Event) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last++
	e.Sequence = j.last
	j.events = append(j.events, e)
	close(j.changed)
	j.changed = make(chan struct{})
	return j.append(line{Event: &e})
}

func (j *Journal) append(l line) error {
	j.lines++
	if _, err := j.file.Write(appendLine(nil, l)); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	return nil
}

// Acknowledge forgets the events up to and including sequence.
func (j *Journal) Acknowledge(sequence uint64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	before := len(j.events)
	if j.forget(sequence); len(j.events) == before {
		return nil
	}
	switch {
	case len(j.events) == 0:
		j.lines = 0
		if err := j.file.Truncate(0); err != nil {
			return fmt.Errorf("cut journal: %w", err)
		}
		return nil
	case j.lines > len(j.events)+rewriteAfter:
		return j.rewrite()
	default:
		return j.append(line{Acknowledged: sequence})
	}
}

// After returns the unacknowledged events after sequence, and a channel that is closed when there are
// more.
func (j *Journal) After(sequence uint64) ([]task.Event, <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := 0
	for n < len(j.events) && j.events[n].Sequence <= sequence {
		n++
	}
	return append([]task.Event(nil), j.events[n:]...), j.changed
}

// Close closes the file; the events stay in it.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.file.Close()
}
