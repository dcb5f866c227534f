package delta

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/store/chunk"
)

// memory is an Archive.
type memory struct {
	*bytes.Reader
	closed *int
}

func (m memory) Close() error { *m.closed++; return nil }

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

func list(t testing.TB, b []byte) chunk.List {
	t.Helper()
	l, err := chunk.ListOf(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// make writes the delta from old archives to a new one.
func write(t testing.TB, fresh []byte, old ...[]byte) []byte {
	t.Helper()
	var bases []Base
	for _, b := range old {
		bases = append(bases, Base{oci.DiffID(oci.DigestOf(b)), list(t, b)})
	}
	want := list(t, fresh)
	ops, used := Used(Plan(want, bases), bases)
	var out bytes.Buffer
	if err := Write(&out, want, ops, used, FromArchive(bytes.NewReader(fresh), want)); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// read makes the archive of a delta.
func read(delta []byte, limit int64, old ...[]byte) ([]byte, error) {
	r, err := NewReader(bytes.NewReader(delta), limit)
	if err != nil {
		return nil, err
	}
	closed := 0
	err = r.Use(func(id oci.DiffID) (Archive, error) {
		i := slices.IndexFunc(old, func(b []byte) bool { return oci.DiffID(oci.DigestOf(b)) == id })
		if i < 0 {
			return nil, errdefs.NotFound("no layer %s", id)
		}
		return memory{bytes.NewReader(old[i]), &closed}, nil
	})
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	b, err := io.ReadAll(r)
	used := len(r.open)
	if err := r.Close(); err != nil || closed != used {
		return nil, errors.New("a base stays open")
	}
	return b, err
}

// Whatever stretches of old archives a new one is made of, it comes out, and about as many bytes travel as
// are new.
func TestArchivesComeOut(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for seed := range uint64(40) {
		old := [][]byte{random(2*seed, 1<<20), random(2*seed+1, 512<<10), make([]byte, 300<<10)}
		var fresh []byte
		sent := 0
		for range 1 + r.IntN(6) {
			if r.IntN(3) == 0 {
				n := r.IntN(100 << 10)
				fresh = append(fresh, random(r.Uint64(), n)...)
				sent += n
			}
			from := old[r.IntN(len(old))]
			at := r.IntN(len(from))
			fresh = append(fresh, from[at:at+r.IntN(len(from)-at)]...)
			sent += 2 * chunk.Max
		}
		d := write(t, fresh, old...)
		got, err := read(d, int64(len(fresh)), old...)
		if err != nil || !bytes.Equal(got, fresh) {
			t.Fatalf("seed %d: %d bytes came out as %d others: %v", seed, len(fresh), len(got), err)
		}
		if len(d) > sent+4<<10 {
			t.Errorf("seed %d: the delta has %d bytes, want at most %d", seed, len(d), sent)
		}
	}
}

func TestNothingInCommonIsSentWhole(t *testing.T) {
	fresh := random(1, 200<<10)
	if got, err := read(write(t, fresh, random(2, 200<<10)), 1<<20); err != nil || !bytes.Equal(got, fresh) {
		t.Errorf("%d bytes came out: %v", len(got), err)
	}
	if got, err := read(write(t, nil), 0); err != nil || len(got) != 0 {
		t.Errorf("an empty archive: %d bytes, %v", len(got), err)
	}
}

// raw is a delta whose records are made by hand.
func raw(t *testing.T, size int64, bases []oci.DiffID, records ...[]byte) []byte {
	t.Helper()
	var out bytes.Buffer
	d, err := NewWriter(&out, size, bases)
	for _, record := range records {
		err = errors.Join(err, d.write(record))
	}
	if err = errors.Join(err, d.zstd.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestDamageIsFound(t *testing.T) {
	old := random(1, 1<<20)
	bases := []oci.DiffID{oci.DiffID(oci.DigestOf(old))}
	good := write(t, append(slices.Clone(old), "more"...), old)
	for name, c := range map[string]struct {
		delta []byte
		limit int64
	}{
		"nothing":                       {nil, 1},
		"no zstd":                       {[]byte("hello, this is text"), 1},
		"another magic":                 {compressed(t, "davit delta 9\n"), 1},
		"cut off":                       {good[:len(good)-1], 2 << 20},
		"larger than allowed":           {good, 1 << 20},
		"no end":                        {raw(t, 1, nil, []byte("L\x01a")), 9},
		"ends early":                    {raw(t, 2, nil, []byte("L\x01aE")), 9},
		"literal longer than archive":   {raw(t, 1, nil, []byte("L\x02abE")), 9},
		"copy longer than archive":      {raw(t, 1, bases, []byte("C\x00\x00\x02E")), 9},
		"copy beyond the base":          {raw(t, 9, bases, []byte("C\x00\xff\xff\x3f\x08E")), 9},
		"offset beyond the base":        {raw(t, 9, bases, []byte("C\x00\xff\xff\xff\x7f\x01E")), 9},
		"base that is not named":        {raw(t, 1, bases, []byte("C\x01\x00\x01E")), 9},
		"copy without bases":            {raw(t, 1, nil, []byte("C\x00\x00\x01E")), 9},
		"record of nothing":             {raw(t, 1, nil, []byte("L\x00L\x01aE")), 9},
		"record of unknown kind":        {raw(t, 1, nil, []byte("X")), 9},
		"number without end":            {raw(t, 1, nil, bytes.Repeat([]byte{0xff}, 20)), 9},
		"base that is no digest":        {compressed(t, magic+"\x01\x01\x04evil"), 9},
		"more bases than anybody needs": {compressed(t, magic+"\x01\x41"), 9},
	} {
		t.Run(name, func(t *testing.T) {
			if b, err := read(c.delta, c.limit, old); !errors.Is(err, errdefs.ErrDataLoss) {
				t.Errorf("got %d bytes and %v, want data loss", len(b), err)
			}
		})
	}
	if _, err := read(good, 2<<20); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("without the base: %v", err)
	}
}

func compressed(t *testing.T, s string) []byte {
	t.Helper()
	var out bytes.Buffer
	d, err := NewWriter(io.Discard, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	d.zstd.Reset(&out)
	if err := errors.Join(d.write([]byte(s)), d.zstd.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Chunks that occur many times do not break a stretch into pieces.
func TestStretchesStayTogether(t *testing.T) {
	old := slices.Concat(random(1, 100<<10), make([]byte, 400<<10), random(2, 100<<10), make([]byte, 400<<10), random(3, 100<<10))
	ops := Plan(list(t, old), []Base{{"sha256:zeros", list(t, make([]byte, 1<<20))}, {"sha256:old", list(t, old)}})
	if len(ops) > 5 || Sent(ops) != 0 {
		t.Errorf("%d stretches, %d bytes sent: %v", len(ops), Sent(ops), ops)
	}
}

func FuzzReader(f *testing.F) {
	old := random(1, 128<<10)
	f.Add(write(f, append(slices.Clone(old), "more"...), old))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, delta []byte) {
		const limit = 1 << 20
		if b, err := read(delta, limit, old); err == nil && len(b) > limit {
			t.Errorf("%d bytes came out", len(b))
		}
	})
}
