package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"davit/oci"
	"davit/oci/errdefs"
)

func TestUnpackKeepsAttributes(t *testing.T) {
	s := newStore(t)
	when := time.Unix(1_400_000_000, 123_456_789)
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	b := newTar(t).
		add(entry{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o2750, Uid: 7, Gid: 8, ModTime: when, Format: tar.FormatPAX}, "").
		add(entry{
			Name: "d/f", Mode: 0o4711, Uid: 3_000_000, Gid: 5, Size: 2, ModTime: when, Format: tar.FormatPAX,
			PAXRecords: map[string]string{
				xattrRecord + "security.capability": capability, xattrRecord + "user.k": "v",
				xattrRecord + "trusted.overlay.opaque": "y",
			},
		}, "hi").
		file("d/root-owned", "x").
		add(entry{Typeflag: tar.TypeSymlink, Name: "d/l", Linkname: "/nowhere", Uid: 9, Gid: 9, ModTime: when, Format: tar.FormatPAX}, "").
		add(entry{Typeflag: tar.TypeChar, Name: "d/null", Mode: 0o666, Devmajor: 1, Devminor: 3}, "").
		add(entry{Typeflag: tar.TypeBlock, Name: "d/disk", Mode: 0o660, Gid: 6, Devmajor: 259, Devminor: 70000}, "").
		add(entry{Typeflag: tar.TypeFifo, Name: "d/pipe", Mode: 0o600}, "").
		link("hard", "d/f").
		bytes()
	id := mustUnpack(t, s, b)
	at := func(name string) string { return inLayer(t, s, name, id) }

	st := stat(t, at("d"))
	if st.Mode != syscall.S_IFDIR|0o2750 || st.Uid != 7 || st.Gid != 8 || st.Mtim.Nano() != when.UnixNano() {
		t.Errorf("directory: %+v", st)
	}
	st = stat(t, at("d/f"))
	if st.Mode != syscall.S_IFREG|0o4711 || st.Uid != 3_000_000 || st.Nlink != 2 || st.Mtim.Nano() != when.UnixNano() {
		t.Errorf("file: %+v", st)
	}
	if got := xattr(t, at("d/f"), "security.capability"); got != capability {
		t.Errorf("capability %q", got)
	}
	if got := xattr(t, at("d/f"), "user.k"); got != "v" {
		t.Errorf("user xattr %q", got)
	}
	if got := xattr(t, at("d/f"), opaqueXattr); got != "" {
		t.Errorf("an image set %s", opaqueXattr)
	}
	if st := stat(t, at("d/root-owned")); st.Gid != 0 {
		t.Errorf("a set-gid directory passed its group on: %d", st.Gid)
	}
	if st := stat(t, at("d/l")); st.Uid != 9 || st.Mtim.Nano() != when.UnixNano() {
		t.Errorf("symlink: %+v", st)
	}
	if st := stat(t, at("d/null")); st.Mode != syscall.S_IFCHR|0o666 || st.Rdev != 0x103 {
		t.Errorf("character device: %+v", st)
	}
	if st := stat(t, at("d/disk")); st.Mode != syscall.S_IFBLK|0o660 || st.Gid != 6 {
		t.Errorf("block device: %+v", st)
	}
	if st := stat(t, at("d/pipe")); st.Mode != syscall.S_IFIFO|0o600 {
		t.Errorf("fifo: %+v", st)
	}
	if st := stat(t, s.root); st.Mode&0o777 != 0o700 {
		t.Errorf("the store's root has mode %o: users of the host reach set-uid files and devices", st.Mode&0o777)
	}
}

func TestWhiteouts(t *testing.T) {
	s := newStore(t)
	b := newTar(t).dir("a").file("a/.wh.gone", "").
		dir("o").file("o/.wh.dropped", "").file("o/new", "1").file("o/.wh..wh..opq", "").
		file(".wh.replaced", "").dir("replaced").file("replaced/f", "2").
		dir("later").file(".wh.later", "").
		file("stays", "3").file(".wh.stays", "").
		file(".wh..wh.plnk", "").
		bytes()
	id := mustUnpack(t, s, b)
	at := func(name string) string { return inLayer(t, s, name, id) }

	if !isOverlayWhiteout(t, at("a/gone")) {
		t.Error("a/gone is no whiteout")
	}
	for _, name := range []string{"o", "replaced", "later"} {
		if xattr(t, at(name), opaqueXattr) != "y" {
			t.Errorf("%s is not opaque", name)
		}
	}
	if xattr(t, at("a"), opaqueXattr) != "" {
		t.Error("a is opaque")
	}
	if exists(at("o/dropped")) {
		t.Error("a whiteout in an opaque directory was made: ls would show it")
	}
	if content(t, at("stays")) != "3" {
		t.Error("a whiteout hid a file of its own layer")
	}
	for _, name := range []string{".wh..wh.plnk", "o/.wh..wh..opq", "a/.wh.gone"} {
		if exists(at(name)) {
			t.Errorf("%s was made", name)
		}
	}
}

func TestDuplicatesLastWins(t *testing.T) {
	s := newStore(t)
	b := newTar(t).
		file("f", "first").file("f", "second, longer").file("f", "3").
		dir("d").file("d/in", "inside").dir("d/sub").file("d/sub/deep", "deep").
		file("d", "a file now").dir("d").file("d/again", "again").
		symlink("l", "f").file("l", "not a link").
		link("h", "f").file("h", "own").
		bytes()
	id := mustUnpack(t, s, b)
	at := func(name string) string { return inLayer(t, s, name, id) }
	for name, want := range map[string]string{"f": "3", "d/again": "again", "l": "not a link", "h": "own"} {
		if got := content(t, at(name)); got != want {
			t.Errorf("%s holds %q, want %q", name, got, want)
		}
	}
	if exists(at("d/in")) {
		t.Error("the replaced directory's file is still there")
	}
}

func TestHostileTars(t *testing.T) {
	canary := t.TempDir()
	secret := filepath.Join(canary, "secret")
	if err := os.WriteFile(secret, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	up := repeat("../", 40)
	for name, b := range map[string][]byte{
		"dot-dot":            newTar(t).file("../escaped", "x").bytes(),
		"dot-dot inside":     newTar(t).file("a/../../escaped", "x").bytes(),
		"deep dot-dot":       newTar(t).file(up+canary[1:]+"/escaped", "x").bytes(),
		"link dot-dot":       newTar(t).link("l", up+secret[1:]).bytes(),
		"whiteout of dot":    newTar(t).file(".wh..", "").bytes(),
		"whiteout dot-dot":   newTar(t).file("a/.wh...", "").bytes(),
		"whiteout of root":   newTar(t).file(".wh.", "").bytes(),
		"whiteout directory": newTar(t).dir(".wh.a").file(".wh.a/b", "").bytes(),
		"root is a file":     newTar(t).file(".", "x").bytes(),
		"link to directory":  newTar(t).dir("d").link("l", "d").bytes(),
		"link to root":       newTar(t).link("l", "/").bytes(),
		"link loop":          newTar(t).symlink("a", "b").symlink("b", "a").file("a/f", "x").bytes(),
		"file as parent":     newTar(t).file("f", "x").file("f/g", "x").bytes(),
		"long component":     newTar(t).file(repeat("n", 300), "x").bytes(),
		"endless path":       newTar(t).file(repeat("d/", 40_000)+"f", "x").bytes(),
		"owner -1":           newTar(t).add(entry{Name: "f", Uid: 1<<32 - 1, Mode: 0o644}, "").bytes(),
		"huge device":        newTar(t).add(entry{Typeflag: tar.TypeChar, Name: "c", Devmajor: 1 << 20}, "").bytes(),
		"cut off":            newTar(t).file("f", repeat("x", 5000)).bytes()[:3000],
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			err := s.Unpack(t.Context(), diffID(b), nil, bytes.NewReader(b))
			if err == nil {
				t.Error("it was accepted")
			}
			if len(s.List()) != 0 || len(leftovers(t, s)) != 0 {
				t.Error("something of it was left")
			}
		})
	}
	checkCanary(t, canary)
}

// A sparse entry of a few bytes may not keep the machine busy with zeros for ever.
func TestEndlessSparseFile(t *testing.T) {
	var b bytes.Buffer
	record := func(key, value string) string {
		n := len(key) + len(value) + 3
		for n != len(fmt.Sprintf("%d %s=%s\n", n, key, value)) {
			n = len(fmt.Sprintf("%d %s=%s\n", n, key, value))
		}
		return fmt.Sprintf("%d %s=%s\n", n, key, value)
	}
	size := "9000000000000000000"
	pax := record("GNU.sparse.major", "0") + record("GNU.sparse.minor", "1") + record("GNU.sparse.size", size) +
		record("GNU.sparse.numblocks", "1") + record("GNU.sparse.map", size+",0")
	for _, block := range []struct {
		flag byte
		data string
	}{{'x', pax}, {'0', ""}} {
		h := make([]byte, 512)
		copy(h, "f")
		copy(h[100:], "0000644\x000000000\x000000000\x00")
		copy(h[124:], fmt.Sprintf("%011o\x0000000000000\x00", len(block.data)))
		h[156] = block.flag
		copy(h[257:], "ustar\x0000")
		b.Write(mendChecksums(h))
		b.WriteString(block.data + strings.Repeat("\x00", (512-len(block.data)%512)%512))
	}
	b.Write(make([]byte, 1024))
	s := newStore(t)
	if err := s.Unpack(t.Context(), diffID(b.Bytes()), nil, &b); !errors.Is(err, syscall.EFBIG) {
		t.Errorf("error %v", err)
	}
}

func checkCanary(t testing.TB, dir string) {
	t.Helper()
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 1 || content(t, filepath.Join(dir, "secret")) != "untouched" {
		t.Fatalf("the outside was touched: %v, %v", names, err)
	}
}

func TestLinksStayInside(t *testing.T) {
	s := newStore(t)
	canary := t.TempDir()
	if err := os.WriteFile(filepath.Join(canary, "secret"), []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := newTar(t).
		symlink("abs", canary).file("abs/secret", "inside 1").
		symlink("rel", repeat("../", 30)+canary[1:]).file("rel/other", "inside 2").
		symlink("chain", "abs").add(entry{Typeflag: tar.TypeDir, Name: "chain/sub/", Mode: 0o700}, "").
		file("/absolute", "inside 3").
		file("a/b/../c", "inside 4").
		link("hard", canary+"/secret").
		bytes()
	id := mustUnpack(t, s, b)
	at := func(name string) string { return inLayer(t, s, name, id) }
	for name, want := range map[string]string{
		canary + "/secret": "inside 1", canary + "/other": "inside 2", "absolute": "inside 3", "a/c": "inside 4", "hard": "inside 1",
	} {
		if got := content(t, at(name)); got != want {
			t.Errorf("%s holds %q, want %q", name, got, want)
		}
	}
	if st := stat(t, at(canary+"/sub")); st.Mode != syscall.S_IFDIR|0o700 {
		t.Errorf("chain/sub: %o", st.Mode)
	}
	checkCanary(t, canary)
}

func TestMismatchLeavesNothing(t *testing.T) {
	s := newStore(t)
	b := newTar(t).file("f", "content").bytes()
	err := s.Unpack(t.Context(), diffID([]byte("other")), nil, bytes.NewReader(b))
	if !errors.Is(err, errdefs.ErrDataLoss) {
		t.Fatalf("error %v", err)
	}
	if len(s.List()) != 0 || len(leftovers(t, s)) != 0 {
		t.Error("something was left")
	}
}

func TestTrailingBytesBelongToTheLayer(t *testing.T) {
	s := newStore(t)
	b := newTar(t).file("f", "content").bytes()
	mustUnpack(t, s, append(b[:len(b):len(b)], bytes.Repeat([]byte{0}, 9000)...))
	mustUnpack(t, s, append(b[:len(b):len(b)], "junk after the end"...))
	mustUnpack(t, s, b[:len(b)-1024]) // no end mark
	mustUnpack(t, s, make([]byte, 1024))
}

// A layer that names a directory only as the parent of something takes the directory's attributes from
// below, follows a link from below, and is kept for that stack alone.
func TestLeaningLayer(t *testing.T) {
	base := newTar(t).
		add(entry{Typeflag: tar.TypeDir, Name: "var/", Mode: 0o711, Uid: 12, Gid: 13, PAXRecords: map[string]string{xattrRecord + "user.k": "v"}}, "").
		dir("usr").dir("usr/bin").file("usr/bin/tool", "tool").symlink("bin", "usr/bin").
		file("gone", "x").
		bytes()
	middle := newTar(t).file(".wh.gone", "").bytes()
	top := newTar(t).
		file("var/new", "1").
		file("bin/added", "2").
		link("tool2", "bin/tool").
		file("gone/f", "3").
		bytes()
	check := func(t *testing.T, s *Store, stack ...oci.DiffID) {
		t.Helper()
		at := func(name string) string { return inLayer(t, s, name, stack...) }
		st := stat(t, at("var"))
		if st.Mode != syscall.S_IFDIR|0o711 || st.Uid != 12 || st.Gid != 13 || st.Mtim.Sec != epoch.Unix() || xattr(t, at("var"), "user.k") != "v" {
			t.Errorf("var hides the attributes below: %+v", st)
		}
		if content(t, at("usr/bin/added")) != "2" || exists(at("bin")) {
			t.Error("bin/added did not follow the link of the layer below")
		}
		if content(t, at("tool2")) != "tool" || stat(t, at("tool2")).Ino != stat(t, at("usr/bin/tool")).Ino {
			t.Error("tool2 is not a link to the file below")
		}
		if st := stat(t, at("gone")); st.Mode != syscall.S_IFDIR|0o755 {
			t.Errorf("gone: %+v", st)
		}
	}
	ids := []oci.DiffID{diffID(base), diffID(middle), diffID(top)}

	t.Run("in order", func(t *testing.T) {
		s := newStore(t)
		mustUnpack(t, s, base)
		mustUnpack(t, s, middle, ids[0])
		mustUnpack(t, s, top, ids[:2]...)
		check(t, s, ids...)
		if s.Has(ids[0], ids[2]) || s.Has(ids[2]) {
			t.Error("it counts as unpacked over other parents")
		}
		mustUnpack(t, s, top, ids[0])
		if !s.Has(ids[0], ids[2]) || !s.Has(ids...) {
			t.Error("it is not there over both stacks")
		}
	})
	t.Run("top first", func(t *testing.T) {
		s := newStore(t)
		var wg sync.WaitGroup
		read := &notifyingReader{r: bytes.NewReader(top), end: make(chan struct{})}
		wg.Go(func() {
			if err := s.Unpack(t.Context(), ids[2], ids[:2], read); err != nil {
				t.Error(err)
			}
		})
		<-read.end // it has the whole tar and can only be waiting
		mustUnpack(t, s, middle, ids[0])
		if s.Has(ids...) {
			t.Error("unpacked without the base")
		}
		mustUnpack(t, s, base)
		wg.Wait()
		check(t, s, ids...)
		var again bytes.Buffer
		if err := s.Tar(t.Context(), &again, ids...); err != nil || !bytes.Equal(again.Bytes(), top) {
			t.Errorf("Tar: %v, same bytes: %v", err, bytes.Equal(again.Bytes(), top))
		}
		if len(leftovers(t, s)) != 0 {
			t.Error("a draft was left")
		}
	})
	t.Run("parents never come", func(t *testing.T) {
		s := newStore(t)
		ctx, cancel := context.WithCancel(t.Context())
		read := &notifyingReader{r: bytes.NewReader(top), end: make(chan struct{})}
		go func() { <-read.end; cancel() }()
		if err := s.Unpack(ctx, ids[2], ids[:2], read); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		if len(leftovers(t, s)) != 0 || len(s.List()) != 0 {
			t.Error("something was left")
		}
	})
	t.Run("link to nothing", func(t *testing.T) {
		s := newStore(t)
		bad := newTar(t).link("l", "nowhere").bytes()
		if err := s.Unpack(t.Context(), diffID(bad), nil, bytes.NewReader(bad)); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("error %v", err)
		}
	})
}

// notifyingReader closes end when the tar has been read to its end.
type notifyingReader struct {
	r    io.Reader
	end  chan struct{}
	once sync.Once
}

func (n *notifyingReader) Read(p []byte) (int, error) {
	c, err := n.r.Read(p)
	if err == io.EOF {
		n.once.Do(func() { close(n.end) })
	}
	return c, err
}

func TestConcurrentUnpackReadsOnce(t *testing.T) {
	s := newStore(t)
	b := newTar(t).file("f", repeat("content ", 10_000)).bytes()
	var wg sync.WaitGroup
	readers := make([]*countingReader, 8)
	for i := range readers {
		readers[i] = &countingReader{r: bytes.NewReader(b)}
		wg.Go(func() {
			if err := s.Unpack(t.Context(), diffID(b), nil, readers[i]); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	read := 0
	for _, r := range readers {
		if r.n > 0 {
			read++
		}
	}
	if read != 1 || len(s.List()) != 1 {
		t.Errorf("%d goroutines read, %d layers", read, len(s.List()))
	}
}

type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func TestReopen(t *testing.T) {
	root := filepath.Join(t.TempDir(), "layers")
	s := openStore(t, root)
	b := newTar(t).file("f", "1").bytes()
	c := newTar(t).file("g", "2").bytes()
	mustUnpack(t, s, b)
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustUnpack(t, s, c)
	if err := os.MkdirAll(filepath.Join(root, "tmp", "layer-crashed", "fs"), 0o700); err != nil {
		t.Fatal(err)
	}

	same := openStore(t, root) // the process was killed
	if !same.Has(diffID(b)) || !same.Has(diffID(c)) {
		t.Error("a layer was lost with the process")
	}
	if len(leftovers(t, same)) != 0 {
		t.Error("the draft of a crash was left")
	}
	for _, id := range []oci.DiffID{diffID(b), diffID(c)} { // the machine went down
		name := filepath.Join(root, "sha256", oci.Digest(id).Hex(), "layer.json")
		edited := strings.Replace(content(t, name), same.boot, "an-earlier-boot", 1)
		if err := os.WriteFile(name, []byte(edited), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	after := openStore(t, root)
	if !after.Has(diffID(b)) {
		t.Error("a synced layer was discarded")
	}
	if after.Has(diffID(c)) {
		t.Error("a layer that may be incomplete was kept")
	}
	mustUnpack(t, after, c)
}

func TestTarNoticesDamage(t *testing.T) {
	s := newStore(t)
	b := newTar(t).file("f", "content").file("g", "other").bytes()
	id := mustUnpack(t, s, b)
	if err := os.WriteFile(inLayer(t, s, "f", id), []byte("CONTENT"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.Tar(t.Context(), io.Discard, id); !errors.Is(err, errdefs.ErrDataLoss) {
		t.Errorf("changed content: %v", err)
	}
	if err := os.Remove(inLayer(t, s, "g", id)); err != nil {
		t.Fatal(err)
	}
	if err := s.Tar(t.Context(), io.Discard, id); !errors.Is(err, errdefs.ErrDataLoss) {
		t.Errorf("missing file: %v", err)
	}
}

func TestSweep(t *testing.T) {
	s := newStore(t)
	var ids []oci.DiffID
	for i := range 4 {
		ids = append(ids, mustUnpack(t, s, newTar(t).file(fmt.Sprint("f", i), "x").bytes()))
	}
	leaning := newTar(t).file("d/f", "x").bytes()
	mustUnpack(t, s, leaning, ids[0])
	release := s.Lease()
	if _, err := s.Dir(ids[1]); err != nil { // asked for under a lease
		t.Fatal(err)
	}
	swept, err := s.Sweep(t.Context(), [][]oci.DiffID{{ids[0], diffID(leaning)}, {ids[3]}})
	if err != nil || len(swept) != 1 || swept[0].DiffID != ids[2] {
		t.Fatalf("swept %v, %v", swept, err)
	}
	release()
	if swept, err = s.Sweep(t.Context(), [][]oci.DiffID{{ids[0]}, {ids[3]}}); err != nil || len(swept) != 2 {
		t.Fatalf("swept %v, %v", swept, err)
	}
	if !s.Has(ids[0]) || s.Has(ids[0], diffID(leaning)) || s.Has(ids[1]) || !s.Has(ids[3]) {
		t.Error("the wrong layers are left")
	}
}

func TestOpaqueRootHidesLowerLayers(t *testing.T) {
	s := newStore(t)
	base := mustUnpack(t, s, newTar(t).dir("d").bytes())
	top := mustUnpack(t, s, newTar(t).file(".wh..wh..opq", "").file("f", "x").bytes(), base)
	dirs, err := s.Dirs(base, top)
	if err != nil || len(dirs) != 1 || dirs[0] != inLayer(t, s, "", base, top) {
		t.Errorf("dirs %v, %v", dirs, err)
	}
}
