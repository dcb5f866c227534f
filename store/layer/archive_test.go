package layer

import (
	"bytes"
	"errors"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"testing"

	"davit/oci"
	"davit/oci/errdefs"
)

// The archive of a layer can be read at any place, in any order, and is what was unpacked.
func TestArchiveReadsAnywhere(t *testing.T) {
	s := newStore(t)
	base := mustUnpack(t, s, newTar(t).dir("a").file("a/b", "lower").symlink("c", "a").dir("d").bytes())
	read := 0
	for seed := range int64(150) {
		b := randomTar(t, seed)
		if s.Unpack(t.Context(), diffID(b), []oci.DiffID{base}, bytes.NewReader(b)) != nil {
			continue // refused: what is accepted is the question here
		}
		read++
		a, err := s.Archive(t.Context(), base, diffID(b))
		if err != nil {
			t.Fatal(err)
		}
		all, err := io.ReadAll(io.NewSectionReader(a, 0, a.Size()))
		if err != nil || !bytes.Equal(all, b) {
			t.Fatalf("seed %d: came back differently: %v", seed, err)
		}
		r := rand.New(rand.NewSource(seed))
		for range 20 {
			p := make([]byte, r.Intn(2000))
			at := r.Intn(len(b) + 10)
			n, err := a.ReadAt(p, int64(at))
			want := b[min(at, len(b)):min(at+len(p), len(b))]
			if !bytes.Equal(p[:n], want) || (err == io.EOF) != (len(want) < len(p)) || err != nil && err != io.EOF {
				t.Fatalf("seed %d: %d bytes at %d of %d: got %d, %v", seed, len(p), at, len(b), n, err)
			}
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if read < 50 {
		t.Errorf("only %d of 150 were accepted: the test shows little", read)
	}
	if left := leftovers(t, s); len(left) != 0 {
		t.Errorf("something was left: %v", left)
	}
}

func TestArchiveOfADamagedLayer(t *testing.T) {
	s := newStore(t)
	id := mustUnpack(t, s, newTar(t).file("a", "content").bytes())
	dir, err := s.Dir(id)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "a"), 3); err != nil {
		t.Fatal(err)
	}
	a, err := s.Archive(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if _, err := io.ReadAll(io.NewSectionReader(a, 0, a.Size())); !errors.Is(err, errdefs.ErrDataLoss) {
		t.Errorf("read a file that shrank: %v", err)
	}
	if _, err := s.Archive(t.Context(), "sha256:0"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("open a layer that is not there: %v", err)
	}
}
