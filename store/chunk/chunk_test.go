package chunk

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/iotest"

	"davit/oci/errdefs"
)

func random(seed uint64, n int) []byte {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(b)
	return b
}

func mustList(t testing.TB, b []byte) List {
	t.Helper()
	l, err := ListOf(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// The chunks put together are the stream, each within the bounds, however the reader hands it out.
func TestCutYieldsTheStream(t *testing.T) {
	for _, n := range []int{0, 1, Min, Min + 1, Average, Max, Max + 1, bufferSize, bufferSize + 1, 3*bufferSize + 77} {
		b := random(uint64(n), n)
		for _, r := range []io.Reader{bytes.NewReader(b), iotest.HalfReader(bytes.NewReader(b)), iotest.DataErrReader(bytes.NewReader(b))} {
			var got []byte
			var sizes []int
			if err := Cut(r, func(c []byte) error { got = append(got, c...); sizes = append(sizes, len(c)); return nil }); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, b) {
				t.Fatalf("%d bytes came out as %d others", n, len(got))
			}
			for i, size := range sizes {
				if size > Max || size <= Min && i < len(sizes)-1 {
					t.Errorf("chunk %d of %d has %d bytes", i, len(sizes), size)
				}
			}
		}
	}
}

// The parameters are part of the format: lists of different versions of davit must agree.
func TestBoundariesStayTheSame(t *testing.T) {
	l := mustList(t, random(1, 1<<20))
	want := []int{20922, 14049, 23391}
	var got []int
	for _, c := range l[:3] {
		got = append(got, c.Size)
	}
	if !slices.Equal(got, want) || l[0].Sum != SumOf(random(1, 1<<20)[:want[0]]) {
		t.Errorf("first chunks have %v bytes, want %v", got, want)
	}
	if average := 1 << 20 / len(l); average < Average/2 || average > 2*Average {
		t.Errorf("chunks have %d bytes on average, want about %d", average, Average)
	}
}

// Whatever is inserted, removed or overwritten at whatever place, few chunks around it change.
func TestAChangeTouchesFewChunks(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	old := random(2, 4<<20)
	known := map[Sum]bool{}
	for _, c := range mustList(t, old) {
		known[c.Sum] = true
	}
	for range 100 {
		at, n := r.IntN(len(old)-64<<10), r.IntN(32<<10)
		var changed []byte
		switch r.IntN(3) {
		case 0:
			changed = slices.Insert(slices.Clone(old), at, random(r.Uint64(), n)...)
		case 1:
			changed = slices.Delete(slices.Clone(old), at, at+n)
		default:
			changed = slices.Clone(old)
			copy(changed[at:], random(r.Uint64(), n))
		}
		var fresh int
		for _, c := range mustList(t, changed) {
			if !known[c.Sum] {
				fresh += c.Size
			}
		}
		if fresh > n+4*Max {
			t.Errorf("a change of %d bytes at %d made %d bytes of new chunks", n, at, fresh)
		}
	}
}

func TestListIsEncodedAndDecoded(t *testing.T) {
	for _, n := range []int{0, 1, 300 << 10} {
		l := mustList(t, random(3, n))
		b := l.Encode()
		got, err := Decode(b)
		if err != nil || !slices.Equal(got, l) || got.Bytes() != int64(n) {
			t.Errorf("list of %d bytes came back as %d chunks of %d bytes: %v", n, len(got), got.Bytes(), err)
		}
		if n > 0 {
			if _, err := Decode(b[:len(b)-1]); !errors.Is(err, errdefs.ErrInvalid) {
				t.Errorf("a list that was cut off: %v", err)
			}
		}
	}
	if _, err := Decode([]byte("something else")); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("something else: %v", err)
	}
}

func TestCutEndsWithTheReadersError(t *testing.T) {
	broken := errors.New("broken")
	_, err := ListOf(io.MultiReader(bytes.NewReader(random(4, 100<<10)), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

// FuzzDecode: no list may make trouble, and what is accepted is encoded to the same bytes' meaning.
func FuzzDecode(f *testing.F) {
	f.Add(mustList(f, random(5, 100<<10)).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Decode(l.Encode())
		if err != nil || !slices.Equal(l, again) {
			t.Errorf("came back differently: %v", err)
		}
	})
}

func BenchmarkListOf(b *testing.B) {
	stream := random(6, 16<<20)
	b.SetBytes(int64(len(stream)))
	for b.Loop() {
		mustList(b, stream)
	}
}
