package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand"
	"os"
	"path/filepath"
	"testing"
	"time"

	"davit/oci"
)

// randomTar writes a tar of entries that get in each other's way: few names, every type, any order.
func randomTar(t testing.TB, seed int64) []byte {
	r := rand.New(rand.NewSource(seed))
	names := []string{"a", "b", "a/a", "a/b", "b/a", "a/b/c", "./a", "/b", "a/../b", "c/d/e", ".wh.a", "a/.wh.b", "b/.wh..wh..opq", "a/.wh..wh.x", "d/e/../f"}
	b := newTar(t)
	for range 2 + r.Intn(9) {
		name := names[r.Intn(len(names))]
		h := entry{
			Name: name, Mode: int64(r.Intn(0o10000)), Uid: r.Intn(1 << 31), Gid: r.Intn(1 << 31),
			ModTime: time.Unix(r.Int63n(1<<33), r.Int63n(1e9)), Format: tar.FormatPAX,
		}
		data := ""
		switch r.Intn(8) {
		case 0, 1:
			h.Typeflag = tar.TypeDir
		case 2:
			h.Typeflag, h.Linkname = tar.TypeSymlink, names[r.Intn(len(names))]
		case 3:
			h.Typeflag, h.Linkname = tar.TypeLink, names[r.Intn(len(names))]
		case 4:
			h.Typeflag = tar.TypeFifo
		default:
			h.Typeflag, data = tar.TypeReg, repeat(string(rune('a'+r.Intn(26))), r.Intn(3000))
			h.Size = int64(len(data))
		}
		b.add(h, data)
	}
	return b.bytes()
}

// Whatever a tar holds, it is refused and leaves nothing, or it is unpacked and comes back byte by byte.
func TestRandomTarsComeBackUnchanged(t *testing.T) {
	s := newStore(t)
	base := mustUnpack(t, s, newTar(t).dir("a").file("a/b", "lower").symlink("c", "a").dir("d").bytes())
	accepted := 0
	for seed := range int64(600) {
		b := randomTar(t, seed)
		for _, parents := range [][]oci.DiffID{nil, {base}} {
			if err := s.Unpack(t.Context(), diffID(b), parents, bytes.NewReader(b)); err != nil {
				if len(leftovers(t, s)) != 0 {
					t.Fatalf("seed %d: refused (%v), and something was left", seed, err)
				}
				continue
			}
			accepted++
			var again bytes.Buffer
			if err := s.Tar(t.Context(), &again, append(parents, diffID(b))...); err != nil || !bytes.Equal(again.Bytes(), b) {
				t.Fatalf("seed %d: came back differently: %v", seed, err)
			}
		}
	}
	if accepted < 300 {
		t.Errorf("only %d of 1200 were accepted: the test shows little", accepted)
	}
}

// FuzzUnpack feeds arbitrary bytes to Unpack, over a hostile parent, and looks after a canary outside.
func FuzzUnpack(f *testing.F) {
	canary := f.TempDir()
	if err := os.WriteFile(filepath.Join(canary, "secret"), []byte("untouched"), 0o600); err != nil {
		f.Fatal(err)
	}
	s := newStore(f)
	up := repeat("../", 30) + canary[1:]
	base := mustUnpack(f, s, newTar(f).symlink("out", canary).symlink("up", up).dir("d").file("d/f", "x").bytes())
	for seed := range int64(10) {
		f.Add(randomTar(f, seed))
	}
	f.Add(newTar(f).file("out/secret", "x").link("l", "out/secret").file("up/new", "y").bytes())
	f.Add(newTar(f).symlink("s", canary).file("s/new", "x").file("s/.wh.secret", "").bytes())
	f.Add(newTar(f).add(entry{Name: "sparse", Mode: 0o600, PAXRecords: map[string]string{"VENDOR.x": "y"}}, "").bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		b = mendChecksums(b)
		id := diffID(b)
		err := s.Unpack(t.Context(), id, []oci.DiffID{base}, bytes.NewReader(b))
		checkCanary(t, canary)
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := s.Tar(t.Context(), &again, base, id); err != nil || !bytes.Equal(again.Bytes(), b) {
			t.Errorf("came back differently: %v", err)
		}
		if _, err := s.Sweep(t.Context(), [][]oci.DiffID{{base}}); err != nil {
			t.Error(err)
		}
	})
}

// mendChecksums gives every block that looks like a header its right checksum, so that a fuzzer's
// changes get past it.
func mendChecksums(b []byte) []byte {
	b = bytes.Clone(b)
	for at := 0; at+512 <= len(b); at += 512 {
		header := b[at : at+512]
		if string(header[257:262]) != "ustar" {
			continue
		}
		copy(header[148:156], "        ") // counts as spaces in its own sum
		sum := 0
		for _, c := range header {
			sum += int(c)
		}
		copy(header[148:156], fmt.Sprintf("%06o\x00 ", sum))
	}
	return b
}

// BenchmarkUnpack unpacks a layer of many small and a few big files, as an image of a distribution is.
func BenchmarkUnpack(b *testing.B) {
	w := newTar(b)
	blob := make([]byte, 4<<20)
	rand.New(rand.NewSource(1)).Read(blob)
	for i := range 200 {
		w.dir(fmt.Sprintf("d%d", i))
		for j := range 30 {
			w.file(fmt.Sprintf("d%d/file-%d", i, j), string(blob[j*997:j*997+j*400]))
		}
	}
	for i := range 10 {
		w.file(fmt.Sprintf("big%d", i), string(blob))
	}
	data := w.bytes()
	b.SetBytes(int64(len(data)))
	s := newStore(b)
	for b.Loop() {
		if err := s.Unpack(b.Context(), diffID(data), nil, bytes.NewReader(data)); err != nil {
			b.Fatal(err)
		}
		if _, err := s.Sweep(b.Context(), nil); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(s.root, "tmp")); errors.Is(err, fs.ErrNotExist) {
		b.Fatal(err)
	}
}

// BenchmarkUnpackTiny is the cost of a layer by itself.
func BenchmarkUnpackTiny(b *testing.B) {
	data := newTar(b).file("f", "x").bytes()
	s := newStore(b)
	for b.Loop() {
		if err := s.Unpack(b.Context(), diffID(data), nil, bytes.NewReader(data)); err != nil {
			b.Fatal(err)
		}
		if _, err := s.Sweep(b.Context(), nil); err != nil {
			b.Fatal(err)
		}
	}
}
