package quota

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"davit/oci"
	"davit/oci/errdefs"
)

// shelf is content in memory. A count that has read it waits at hold, when there is one.
type shelf struct {
	mu    sync.Mutex
	blobs map[string]map[oci.Digest]int64
	hold  chan struct{}
	read  chan struct{}
}

func (s *shelf) Repositories(context.Context) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.blobs)), nil
}

func (s *shelf) Holding(_ context.Context, name string) (Holding, error) {
	s.mu.Lock()
	h := Holding{Blobs: maps.Clone(s.blobs[name])}
	hold := s.hold
	s.mu.Unlock()
	if hold != nil {
		s.read <- struct{}{}
		<-hold
	}
	return h, nil
}

func (s *shelf) put(name string, d oci.Digest, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blobs[name] == nil {
		s.blobs[name] = map[oci.Digest]int64{}
	}
	s.blobs[name][d] = size
}

func blob(name string) oci.Digest { return oci.DigestOf([]byte(name)) }

func open(rules ...Rule) (*shelf, *Ledger) {
	s := &shelf{blobs: map[string]map[oci.Digest]int64{}, read: make(chan struct{})}
	return s, NewLedger(s, func() []Rule { return rules }, Rule{})
}

func admit(t *testing.T, l *Ledger, name, digest string, size int64) func(bool) {
	t.Helper()
	done, err := l.Admit(t.Context(), name, map[oci.Digest]int64{blob(digest): size}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func refused(t *testing.T, l *Ledger, name, digest string, size int64) {
	t.Helper()
	_, err := l.Admit(t.Context(), name, map[oci.Digest]int64{blob(digest): size}, nil)
	var exceeded *Exceeded
	if !errors.As(err, &exceeded) || !errors.Is(err, errdefs.ErrForbidden) {
		t.Errorf("%s of %d bytes: %v", digest, size, err)
	}
}

// What was let in counts before it is stored, once for all who push it, and no longer when it failed.
func TestReservations(t *testing.T) {
	_, l := open(Rule{Name: "q", Repositories: []string{"*"}, Bytes: 100})
	first, second := admit(t, l, "a", "x", 60), admit(t, l, "a", "x", 60)
	refused(t, l, "a", "y", 60)
	admit(t, l, "b", "y", 60)(true)
	first(false)
	refused(t, l, "a", "y", 60)
	second(false)
	admit(t, l, "a", "y", 60)(true)
}

// What is stored while a count is under way is neither lost nor counted twice.
func TestStoredWhileCounting(t *testing.T) {
	s, l := open(Rule{Name: "q", Repositories: []string{"*"}, Bytes: 100})
	done := admit(t, l, "a", "x", 60)
	s.hold = make(chan struct{})
	counted := make(chan []State)
	go func() {
		states, err := l.States(context.Background(), "a")
		if err != nil {
			t.Error(err)
		}
		counted <- states
	}()
	<-s.read
	s.put("a", blob("x"), 60)
	done(true)
	close(s.hold)
	if states := <-counted; len(states) != 1 || states[0].UsedBytes != 60 {
		t.Errorf("counted: %+v", states)
	}
	s.mu.Lock()
	s.hold = nil
	s.mu.Unlock()
	refused(t, l, "a", "y", 60)
	done = admit(t, l, "a", "z", 40)
	s.put("a", blob("z"), 40)
	done(true)
	if states, err := l.States(t.Context(), "a"); err != nil || states[0].UsedBytes != 100 {
		t.Errorf("with what is stored lately: %+v, %v", states, err)
	}
}

// Before anything is refused others' pushes are counted, and so is what is gone; what is shared counts once.
func TestTogether(t *testing.T) {
	s, l := open(Rule{Name: "q", Repositories: []string{"t/*"}, Together: true, Bytes: 100})
	admit(t, l, "t/a", "x", 40)(true)
	s.put("t/a", blob("x"), 40)
	s.put("t/b", blob("x"), 40)
	s.put("t/b", blob("other"), 50) // another process did
	refused(t, l, "t/c", "y", 70)
	refused(t, l, "t/c", "y", 20)
	admit(t, l, "t/c", "x", 40)(true)
	admit(t, l, "u/c", "y", 2000)(true)
	if left, full, err := l.Room(t.Context(), "t/c", 20); err != nil || left != 10 || full == nil || !strings.Contains(full.Error(), `quota "q" of 100B for t/* together: 90B are used`) {
		t.Errorf("room: %d, %v, %v", left, full, err)
	}
	if _, full, err := l.Room(t.Context(), "u/c", 1<<40); full != nil || err != nil {
		t.Errorf("room without a quota: %v, %v", full, err)
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]Size{"1": 1, "20K": 20 << 10, "10MiB": 10 << 20, "500g": 500 << 30, "2TB": 2 << 40, "": 0, "x": 0, "-1": 0, "9999999T": 0, "0": 0} {
		if got, err := ParseSize(text); got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
}
