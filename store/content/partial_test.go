package content

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"testing"
	"testing/iotest"
	"time"

	"davit/oci"
)

// partial leaves the first half of a blob in the store, last written to so long ago.
func partial(t *testing.T, s *Store, size int, age time.Duration) oci.Descriptor {
	t.Helper()
	b, desc := randomBlob(size)
	w := mustWriter(t, s, desc)
	if _, err := w.Write(b[:size/2]); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	when := time.Now().Add(-age)
	if err := os.Chtimes(s.ingestPath(desc.Digest), when, when); err != nil {
		t.Fatal(err)
	}
	return desc
}

func (s *Store) hasPartial(desc oci.Descriptor) bool {
	_, err := os.Stat(s.ingestPath(desc.Digest))
	return !errors.Is(err, os.ErrNotExist)
}

func TestOldPartialsGo(t *testing.T) {
	root := t.TempDir()
	s := openStore(t, root)
	old, fresh, open := partial(t, s, 40<<10, 2*IngestAge), partial(t, s, 50<<10, time.Hour), partial(t, s, 60<<10, 2*IngestAge)
	w := mustWriter(t, s, open)
	freed, err := s.SweepIngests(t.Context(), IngestAge)
	if err != nil || freed < 20<<10 || freed > 28<<10 {
		t.Errorf("freed %d bytes, %v", freed, err)
	}
	if s.hasPartial(old) || !s.hasPartial(fresh) || !s.hasPartial(open) {
		t.Errorf("left: old %v, fresh %v, open %v", s.hasPartial(old), s.hasPartial(fresh), s.hasPartial(open))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if s = openStore(t, root); s.hasPartial(open) || !s.hasPartial(fresh) {
		t.Errorf("left by opening: the old one %v, the fresh one %v", s.hasPartial(open), s.hasPartial(fresh))
	}
	if _, err := s.SweepIngests(t.Context(), 0); err != nil || s.hasPartial(fresh) {
		t.Errorf("a sweep of all left something: %v", err)
	}
	// What was swept is fetched again from its beginning.
	if w := mustWriter(t, s, fresh); w.Offset() != 0 {
		t.Errorf("a new ingest begins at %d", w.Offset())
	} else if err := w.Close(); err != nil {
		t.Error(err)
	}
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.SweepIngests(stopped, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// What cannot be continued, or holds nothing, is not kept.
func TestUselessPartialsGo(t *testing.T) {
	s := openStore(t, t.TempDir())
	b, desc := randomBlob(1000)
	broken := errors.New("broken")
	if err := s.Put(t.Context(), desc, io.MultiReader(bytes.NewReader(b[:500]), iotest.ErrReader(broken))); !errors.Is(err, broken) || s.hasPartial(desc) {
		t.Errorf("put: %v, partial %v", err, s.hasPartial(desc))
	}
	if err := mustWriter(t, s, desc).Close(); err != nil || s.hasPartial(desc) {
		t.Errorf("an empty ingest: %v, partial %v", err, s.hasPartial(desc))
	}
	if err := s.Put(t.Context(), desc, bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	if got, err := s.ReadAll(t.Context(), desc, 1000); err != nil || !bytes.Equal(got, b) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
}
