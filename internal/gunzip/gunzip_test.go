package gunzip

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	fast "github.com/klauspost/compress/gzip"
)

// texts are inputs of different nature, from nothing to more than the window and the buffers.
func texts(t testing.TB) map[string][]byte {
	own, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	random := make([]byte, 700<<10)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	few := make([]byte, 300<<10) // matches at every small distance
	for i := range few {
		few[i] = "aab"[r.IntN(3)]
	}
	skewed := make([]byte, 500<<10) // codes of very different lengths
	for i := range skewed {
		skewed[i] = byte(r.ExpFloat64() * 9)
	}
	far := append(bytes.Clone(random[:windowSize]), random[:windowSize]...) // the longest distance
	return map[string][]byte{
		"empty": {}, "one": {'x'}, "zeros": make([]byte, 1<<20), "program": own[:2<<20], "random": random, "few": few, "skewed": skewed,
		"far": far, "text": []byte(strings.Repeat("the quick brown fox ", 20000)),
	}
}

func zipped(t testing.TB, text []byte, level int) []byte {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, level)
	if err == nil {
		_, err = w.Write(text)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestReader(t *testing.T) {
	for name, text := range texts(t) {
		for _, level := range []int{gzip.NoCompression, gzip.BestSpeed, gzip.DefaultCompression, gzip.BestCompression, gzip.HuffmanOnly} {
			t.Run(fmt.Sprint(name, level), func(t *testing.T) {
				zip := zipped(t, text, level)
				for kind, src := range map[string]io.Reader{
					"whole": bytes.NewReader(zip), "bytes": iotest.OneByteReader(bytes.NewReader(zip)), "late end": iotest.DataErrReader(bytes.NewReader(zip)),
				} {
					r, err := NewReader(src)
					if err != nil {
						t.Fatal(kind, err)
					}
					got, err := io.ReadAll(r)
					if err != nil || !bytes.Equal(got, text) {
						t.Fatalf("%s: %d bytes, error %v; want %d bytes", kind, len(got), err, len(text))
					}
				}
			})
		}
	}
}

func TestMembersAndHeaders(t *testing.T) {
	var b bytes.Buffer
	for i, text := range []string{"first ", "", "second"} {
		w := gzip.NewWriter(&b)
		w.Name, w.Comment, w.Extra = strings.Repeat("n", i), "comment", make([]byte, i*100)
		fmt.Fprint(w, text)
		w.Close()
	}
	r, err := NewReader(&b)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || string(got) != "first second" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestDamage cuts and changes files everywhere: no damage goes unnoticed, and nothing breaks.
func TestDamage(t *testing.T) {
	text := []byte(strings.Repeat("some text with a few repetitions, ", 40) + "and an end")
	zip := zipped(t, text, gzip.BestCompression)
	for n := range zip {
		if got, err := readAll(zip[:n]); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("cut after %d bytes: %d bytes, error %v", n, len(got), err)
		}
		for bit := range 8 {
			damaged := bytes.Clone(zip)
			damaged[n] ^= 1 << bit
			got, err := readAll(damaged)
			if err == nil && !bytes.Equal(got, text) {
				t.Errorf("bit %d of byte %d changed: wrong text without an error", bit, n)
			}
		}
	}
	want := errors.New("broken")
	r, err := NewReader(io.MultiReader(bytes.NewReader(zip[:40]), iotest.ErrReader(want)))
	if err == nil {
		_, err = io.ReadAll(r)
	}
	if !errors.Is(err, want) {
		t.Errorf("the source's error is lost: %v", err)
	}
}

func readAll(zip []byte) ([]byte, error) {
	r, err := NewReader(bytes.NewReader(zip))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// FuzzReader compares with the standard library: both accept the same files, and read the same.
func FuzzReader(f *testing.F) {
	for _, text := range []string{"", "a", strings.Repeat("abc", 100), "\x00\xff\x10"} {
		for _, level := range []int{gzip.NoCompression, gzip.BestSpeed, gzip.BestCompression, gzip.HuffmanOnly} {
			f.Add(zipped(f, []byte(text), level)[10:])
		}
	}
	head := zipped(f, nil, 1)[:10]
	f.Fuzz(func(t *testing.T, body []byte) {
		zip := append(bytes.Clone(head), body...)
		got, err := readAll(zip)
		want, wantErr := standard(zip)
		if !bytes.Equal(got, want) && err == nil || (err == nil) != (wantErr == nil) {
			t.Errorf("%d bytes, %v; the standard library: %d bytes, %v", len(got), err, len(want), wantErr)
		}
	})
}

func standard(zip []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(zip))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func BenchmarkReader(b *testing.B) {
	text := texts(b)["program"]
	zip := zipped(b, text, gzip.DefaultCompression)
	for name, open := range map[string]func(io.Reader) (io.Reader, error){
		"own":       func(r io.Reader) (io.Reader, error) { return NewReader(r) },
		"klauspost": func(r io.Reader) (io.Reader, error) { return fast.NewReader(r) },
		"standard":  func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				r, err := open(bytes.NewReader(zip))
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, r); err != nil || n != int64(len(text)) {
					b.Fatal(n, err)
				}
			}
		})
	}
}
