package cache

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"davit/oci"
	"davit/store/metadata"
)

func TestRecordsSurviveAndPrune(t *testing.T) {
	db, err := metadata.Open(filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	now := time.Unix(1000000, 0)
	c, err := Open(db, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	for i, key := range []string{"old", "used", "big", "empty"} {
		now = now.Add(time.Hour)
		layer := oci.DiffID("sha256:" + key)
		if key == "empty" {
			layer = ""
		}
		c.Put(Record{Key: key, Layer: layer, Size: int64(i) * 100, Text: "RUN " + key})
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	c, err = Open(db, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Layers(); !slices.Equal(got, []oci.DiffID{"sha256:big", "sha256:old", "sha256:used"}) {
		t.Errorf("layers %q", got)
	}
	now = now.Add(24 * time.Hour)
	if r, ok := c.Get("old"); !ok || r.Uses != 1 || !r.LastUsed.Equal(now) {
		t.Errorf("record %+v, %v", r, ok)
	}
	inUse := func(d oci.DiffID) bool { return d == "sha256:used" }
	gone, err := c.Prune(PruneOptions{InUse: inUse, UnusedFor: time.Hour})
	if err != nil || len(gone) != 2 || gone[0].Key != "big" || gone[1].Key != "empty" {
		t.Errorf("pruned %v, %v", gone, err)
	}
	if gone, err = c.Prune(PruneOptions{All: true, InUse: inUse}); err != nil || len(gone) != 2 {
		t.Errorf("pruned %v, %v", gone, err)
	}
	c, err = Open(db, time.Now)
	if err != nil || len(c.List()) != 0 {
		t.Errorf("left %v, %v", c.List(), err)
	}
}

func TestPruneStopsAtTheWantedSize(t *testing.T) {
	now := time.Unix(1000000, 0)
	c, err := Open(nil, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"a", "b", "c"} {
		now = now.Add(time.Second)
		c.Put(Record{Key: key, Layer: oci.DiffID(key), Size: 10})
	}
	gone, err := c.Prune(PruneOptions{KeepBytes: 20})
	if err != nil || len(gone) != 1 || gone[0].Key != "a" {
		t.Errorf("pruned %v, %v", gone, err)
	}
}

func TestUnchangedCacheIsNotWritten(t *testing.T) {
	now := time.Unix(1000000, 0)
	c, err := Open(nil, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	c.Put(Record{Key: "k"})
	clear(c.dirty)
	c.Get("k")
	if len(c.dirty) != 0 {
		t.Error("a use within the hour makes a write")
	}
	now = now.Add(2 * touchEvery)
	c.Get("k")
	if len(c.dirty) != 1 {
		t.Error("a use hours later is not kept")
	}
}
