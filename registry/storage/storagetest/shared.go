package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/registry/storage"
)

// RunShared checks what holds between processes: open returns stores of one new and empty place that
// share nothing else.
func RunShared(t *testing.T, open func(t *testing.T, n int) []storage.Store) {
	for name, check := range map[string]func(*suite, []storage.Store){
		"Visible": (*suite).visible, "UploadMoves": (*suite).uploadMoves, "Count": (*suite).count,
		"CondemnRace": (*suite).condemnRace,
	} {
		t.Run(name, func(t *testing.T) {
			stores := open(t, 3)
			check(&suite{t, t.Context(), stores[0]}, stores)
		})
	}
}

// swap: a write that rests on an older one than the present is refused.
func (s *suite) swap() {
	first, err := s.store.SwapRecord(s.ctx, "s/r", storage.Absent, []byte("1"))
	s.must(err)
	_, err = s.store.SwapRecord(s.ctx, "s/r", storage.Absent, []byte("x"))
	s.wantClass(err, errdefs.ErrConflict, "create of what is there")
	second, err := s.store.SwapRecord(s.ctx, "s/r", first, []byte("1"))
	s.must(err)
	if first == second || second == storage.Absent {
		s.Errorf("two writes of the same value have the versions %q and %q", first, second)
	}
	_, err = s.store.SwapRecord(s.ctx, "s/r", first, []byte("x"))
	s.wantClass(err, errdefs.ErrConflict, "swap of an older version")
	s.wantClass(s.store.RemoveRecord(s.ctx, "s/r", first), errdefs.ErrConflict, "removal of an older version")
	record, err := s.store.ReadRecord(s.ctx, "s/r")
	s.must(err)
	if string(record.Value) != "1" || record.Version != second || time.Since(record.Put) > time.Minute {
		s.Errorf("the record is %+v, want 1 at %s", record, second)
	}
	s.must(s.store.TouchRecord(s.ctx, "s/r"))
	s.wantClass(s.store.RemoveRecord(s.ctx, "s/r", second), errdefs.ErrConflict, "removal of what was touched")
	record, err = s.store.ReadRecord(s.ctx, "s/r")
	s.must(err)
	s.must(s.store.RemoveRecord(s.ctx, "s/r", record.Version))
	_, err = s.store.ReadRecord(s.ctx, "s/r")
	s.wantClass(err, errdefs.ErrNotFound, "read of what was removed")
	_, err = s.store.SwapRecord(s.ctx, "s/r", record.Version, nil)
	s.wantClass(err, errdefs.ErrConflict, "swap of what was removed")
	if keys, err := s.store.ListRecords(s.ctx, "s"); err != nil || len(keys) != 0 {
		s.Errorf("after the removal the list is %v, %v", keys, err)
	}
	_, err = s.store.SwapRecord(s.ctx, "s/r", storage.Absent, []byte("again"))
	s.must(err)
}

// condemn: removal needs an announcement that nothing has revoked.
func (s *suite) condemn() {
	content := []byte("condemned")
	d := oci.DigestOf(content)
	s.must(s.store.PutBlob(s.ctx, d, content))
	revoke := map[string]func() error{
		"kept":      func() error { return s.store.KeepBlob(s.ctx, d) },
		"put again": func() error { return s.store.PutBlob(s.ctx, d, content) },
		"committed again": func() error {
			_, err := s.store.CommitUpload(s.ctx, s.upload("sha256", string(content)), d)
			return err
		},
	}
	for how, call := range revoke {
		condemned, err := s.store.CondemnBlob(s.ctx, d)
		s.must(err)
		stands, err := s.store.CondemnBlob(s.ctx, d)
		s.must(err)
		if stands != condemned {
			s.Errorf("condemned as %q and again as %q", condemned, stands)
		}
		s.wantBlob(d, content)
		s.must(call())
		s.wantClass(s.store.RemoveBlob(s.ctx, d, condemned), errdefs.ErrConflict, "removal of a blob "+how)
		s.wantBlob(d, content)
	}
	condemned, err := s.store.CondemnBlob(s.ctx, d)
	s.must(err)
	s.must(s.store.RemoveBlob(s.ctx, d, condemned))
	s.wantClass(s.store.KeepBlob(s.ctx, d), errdefs.ErrNotFound, "keeping what was removed")
	s.must(s.store.PutBlob(s.ctx, d, content))
	s.wantClass(s.store.RemoveBlob(s.ctx, d, condemned), errdefs.ErrConflict, "removal by an old announcement")
	s.wantBlob(d, content)
}

func (s *suite) visible(stores []storage.Store) {
	d := oci.DigestOf([]byte("shared"))
	s.must(stores[0].PutBlob(s.ctx, d, []byte("shared")))
	s.must(stores[1].PutRecord(s.ctx, "k/r", []byte("1")))
	for _, store := range stores {
		other := &suite{s.T, s.ctx, store}
		other.wantBlob(d, []byte("shared"))
		value, err := store.GetRecord(s.ctx, "k/r")
		if err != nil || string(value) != "1" {
			s.Errorf("another process's record is %q, %v", value, err)
		}
	}
	s.must(stores[1].DeleteBlob(s.ctx, d))
	for _, store := range stores {
		_, err := store.OpenBlob(s.ctx, d)
		s.wantClass(err, errdefs.ErrNotFound, "open of what another process deleted")
	}
}

// uploadMoves: each chunk of an upload comes to another process, small and large ones.
func (s *suite) uploadMoves(stores []storage.Store) {
	chunks := []string{"start", strings.Repeat("a", 9<<20), "middle", strings.Repeat("b", 20<<20), "", strings.Repeat("c", 1<<20), "end"}
	id, err := stores[0].CreateUpload(s.ctx, "sha256")
	s.must(err)
	at := int64(0)
	for i, chunk := range chunks {
		end, err := stores[i%3].AppendUpload(s.ctx, id, at, strings.NewReader(chunk))
		s.must(err)
		at += int64(len(chunk))
		offset, err := stores[(i+1)%3].UploadOffset(s.ctx, id)
		s.must(err)
		if end != at || offset != at {
			s.Fatalf("after chunk %d append says %d and another process %d, want %d", i, end, offset, at)
		}
	}
	content := []byte(strings.Join(chunks, ""))
	size, err := stores[1].CommitUpload(s.ctx, id, oci.DigestOf(content))
	s.must(err)
	if size != at {
		s.Errorf("committed %d bytes, want %d", size, at)
	}
	for _, store := range stores {
		(&suite{s.T, s.ctx, store}).wantBlob(oci.DigestOf(content), content)
	}
}

// count: no process's step is lost.
func (s *suite) count(stores []storage.Store) {
	const each = 15
	var group sync.WaitGroup
	for i := range 6 {
		group.Go(func() {
			for range each {
				if err := increment(s, stores[i%3]); err != nil {
					s.Error(err)
				}
			}
		})
	}
	group.Wait()
	value, err := s.store.GetRecord(s.ctx, "count/r")
	s.must(err)
	if string(value) != strconv.Itoa(6*each) {
		s.Errorf("the count is %s, want %d", value, 6*each)
	}
}

func increment(s *suite, store storage.Store) error {
	for {
		record, err := store.ReadRecord(s.ctx, "count/r")
		if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			return err
		}
		n, _ := strconv.Atoi(string(record.Value))
		_, err = store.SwapRecord(s.ctx, "count/r", record.Version, []byte(strconv.Itoa(n+1)))
		if !errors.Is(err, errdefs.ErrConflict) {
			return err
		}
	}
}

// condemnRace: of a removal and a keeping at the same time one wins, and both processes know which.
func (s *suite) condemnRace(stores []storage.Store) {
	for i := range 20 {
		content := fmt.Append(nil, "raced ", i)
		d := oci.DigestOf(content)
		s.must(stores[0].PutBlob(s.ctx, d, content))
		condemned, err := stores[0].CondemnBlob(s.ctx, d)
		s.must(err)
		var group sync.WaitGroup
		var removed, kept error
		group.Go(func() { removed = stores[1].RemoveBlob(s.ctx, d, condemned) })
		group.Go(func() { kept = stores[2].KeepBlob(s.ctx, d) })
		group.Wait()
		got, err := readBlob(s.ctx, stores[0], d)
		switch {
		case removed == nil && errors.Is(kept, errdefs.ErrNotFound) && errors.Is(err, errdefs.ErrNotFound):
		case kept == nil && errors.Is(removed, errdefs.ErrConflict) && err == nil && bytes.Equal(got, content):
		default:
			s.Fatalf("removal: %v; keeping: %v; a reader: %q, %v", removed, kept, got, err)
		}
	}
}
