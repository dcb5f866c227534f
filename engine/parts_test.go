package engine

import (
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	wire "github.com/moby/moby/api/types/container"

	"davit/engine/container"
	"davit/oci/errdefs"
	"davit/store/metadata"
)

func record(id, name string, autoRemove bool) *container.Record {
	return &container.Record{
		ID: id, Name: name, Config: &wire.Config{}, HostConfig: &wire.HostConfig{AutoRemove: autoRemove},
		State: container.State{Status: container.Created},
	}
}

func TestRosterFinds(t *testing.T) {
	r := newRoster()
	for _, c := range []*container.Record{record("aaa111", "web", false), record("aaa222", "db", false), record("bbb333", "aaa111x", false)} {
		r.add(newActor(c))
	}
	for name, want := range map[string]string{"aaa111": "aaa111", "web": "aaa111", "/db": "aaa222", "b": "bbb333", "aaa111x": "bbb333"} {
		a, err := r.find(name)
		if err != nil || a.id != want {
			t.Errorf("%s: got %v, %v", name, a, err)
		}
	}
	if _, err := r.find("aaa"); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("ambiguous: got %v", err)
	}
	if _, err := r.find("zzz"); err == nil || err.Error() != "No such container: zzz" {
		t.Errorf("missing: got %v", err)
	}
	want := `Conflict. The container name "/web" is already in use by container "aaa111". You have to remove (or rename) that container to be able to reuse that name.`
	if err := r.reserve("web", "ccc"); err == nil || err.Error() != want {
		t.Errorf("taken: got %v", err)
	}
}

func TestIDRangesNeverOverlap(t *testing.T) {
	r := newIDRanges("/var/lib/davit")
	seen := map[uint32]bool{}
	for range 1000 {
		base, err := r.allocate()
		if err != nil {
			t.Fatal(err)
		}
		if seen[base] || base < idBase || base%idSize != 0 || base > 1<<32-1-idSize {
			t.Fatalf("range at %d", base)
		}
		seen[base] = true
	}
	other := newIDRanges("/var/lib/davit")
	first, err := newIDRanges("/var/lib/davit").allocate()
	if err != nil {
		t.Fatal(err)
	}
	other.claim(first)
	if again, err := other.allocate(); err != nil || again == first {
		t.Errorf("the range of a loaded container was given away: %d, %v", again, err)
	}
}

func TestJournalKeepsRecordsOverRestarts(t *testing.T) {
	root, run := t.TempDir(), t.TempDir()
	open := func() (*journal, *metadata.DB) {
		t.Helper()
		db, err := metadata.Open(filepath.Join(root, "davit.db"))
		if err != nil {
			t.Fatal(err)
		}
		j, err := openJournal(db, run, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return j, db
	}
	j, db := open()
	for _, r := range []*container.Record{record("a", "durable", false), record("b", "fleeting", true), record("c", "gone", false), record("d", "gone too", true)} {
		if err := j.save(r); err != nil {
			t.Fatal(err)
		}
	}
	later := record("a", "renamed", false)
	j.saveLater(later)
	for _, r := range []*container.Record{record("c", "", false), record("d", "", true)} {
		if err := j.forget(r); err != nil {
			t.Fatal(err)
		}
	}
	j.close()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	j, db = open()
	defer db.Close()
	defer j.close()
	all, err := j.load()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, r := range all {
		got[r.ID] = r.Name
	}
	if d := cmp.Diff(map[string]string{"a": "renamed", "b": "fleeting"}, got); d != "" {
		t.Error(d)
	}
}

func TestAwaitSeesEveryPublication(t *testing.T) {
	a := newActor(record("a", "a", false))
	done := make(chan error, 1)
	began := make(chan struct{})
	go func() {
		close(began)
		_, err := a.await(t.Context(), func(v *view) bool { return v.exits == 3 })
		done <- err
	}()
	<-began
	for range 3 {
		a.publishExit(a.record().Clone())
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A record that nobody waits for is not lost when its transaction fails; one that somebody waits for is
// theirs to undo.
func TestJournalWritesAgainWhatFailed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db, err := metadata.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	j, err := openJournal(db, t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer j.close()
	if err := db.Close(); err != nil { // every transaction fails
		t.Fatal(err)
	}
	j.saveLater(record("aaa", "later", false))
	if err := j.save(record("bbb", "now", false)); err == nil {
		t.Fatal("a record was saved in a closed database")
	}
	if j.db, err = metadata.Open(path); err != nil {
		t.Fatal(err)
	}
	defer j.db.Close()
	if err := j.save(record("ccc", "next", false)); err != nil {
		t.Fatal(err)
	}
	all, err := j.load()
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, r := range all {
		ids = append(ids, r.ID)
	}
	if diff := cmp.Diff([]string{"aaa", "ccc"}, ids); diff != "" {
		t.Error(diff)
	}
}

func TestFilters(t *testing.T) {
	f := Filters{"label": {"a", "b=2"}, "label!": {"c"}, "name": {"^/web"}, "dangling": {"1"}}
	for name, c := range map[string]struct {
		labels map[string]string
		want   bool
	}{
		"all":       {map[string]string{"a": "", "b": "2"}, true},
		"missing":   {map[string]string{"a": ""}, false},
		"forbidden": {map[string]string{"a": "", "b": "2", "c": "x"}, false},
	} {
		if got := f.Labels(c.labels); got != c.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
	if !f.Match("name", "web-1") || f.Match("name", "my-web") {
		t.Error("an anchored name does not match as it should")
	}
	if err := f.Only("label"); err == nil || err.Error() != "invalid filter 'dangling'" {
		t.Errorf("got %v", err)
	}
	if v, given, err := f.Flag("dangling"); !v || !given || err != nil {
		t.Errorf("flag: %v, %v, %v", v, given, err)
	}
}

func TestParseTime(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	for text, want := range map[string]time.Time{
		"": {}, "1h": now.Add(-time.Hour), "999.5": time.Unix(999, 500_000_000), "0": time.Unix(0, 0), "1700000000": time.Unix(1_700_000_000, 0),
		"2026-01-02T03:04:05Z": time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	} {
		if got, err := ParseTime(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: got %v, %v; want %v", text, got, err, want)
		}
	}
	if _, err := ParseTime("yesterday", now); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("got %v", err)
	}
}

func TestAssess(t *testing.T) {
	h := &wire.HealthConfig{Retries: 2}
	bad, good := &wire.HealthcheckResult{ExitCode: 1}, &wire.HealthcheckResult{}
	state := &wire.Health{Status: wire.Starting}
	for i, step := range []struct {
		result *wire.HealthcheckResult
		grace  bool
		want   wire.HealthStatus
	}{{bad, true, wire.Starting}, {bad, true, wire.Starting}, {bad, false, wire.Starting}, {bad, false, wire.Unhealthy}, {good, false, wire.Healthy}, {bad, true, wire.Healthy}} {
		if state = assess(state, h, step.result, step.grace); state.Status != step.want {
			t.Errorf("step %d: got %s, want %s", i, state.Status, step.want)
		}
	}
	if len(state.Log) != healthResults {
		t.Errorf("%d results are kept", len(state.Log))
	}
}

func TestAcknowledgementsWaitForTheOldest(t *testing.T) {
	a := &acknowledgements{done: map[uint64]bool{}}
	for sequence := uint64(1); sequence <= 3; sequence++ {
		a.expect(sequence)
	}
	for _, step := range []struct{ finished, want uint64 }{{2, 0}, {1, 2}, {3, 3}} {
		if got := a.advance(step.finished); got != step.want {
			t.Errorf("after %d: got %d, want %d", step.finished, got, step.want)
		}
	}
}
