package files

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"davit/oci"
	"davit/oci/errdefs"
)

// entry is one header of a layer made for a test: "name" or "name/" with content, or link to.
type entry struct {
	name, content, link string
	kind                byte
}

func archive(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: 0o644, Size: int64(len(e.content)), Typeflag: e.kind, Linkname: e.link}
		switch {
		case e.kind != 0:
		case strings.HasSuffix(e.name, "/"):
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		case e.link != "":
			h.Typeflag = tar.TypeSymlink
		default:
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

var wide = Limits{Entries: 1000, Memory: 1 << 20}

func index(t *testing.T, entries ...entry) *Index {
	t.Helper()
	i, err := Read(t.Context(), bytes.NewReader(archive(t, entries...)), wide)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// tree writes a View as "path size" lines, directories with a slash.
func tree(t *testing.T, v View) string {
	t.Helper()
	var lines []string
	var walk func(string)
	walk = func(dir string) {
		entries, err := v.Dir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			name := join(dir, e.Name)
			if e.Kind != Dir {
				lines = append(lines, fmt.Sprintf("%s@%d", name, e.Layer))
				continue
			}
			lines = append(lines, name+"/")
			walk(name)
		}
	}
	walk("")
	return strings.Join(lines, " ")
}

func TestView(t *testing.T) {
	base := []entry{{name: "bin/"}, {name: "bin/sh", content: "sh"}, {name: "etc/a", content: "1"}, {name: "etc/b", content: "2"}, {name: "var/log/x", content: "3"}}
	for _, c := range []struct {
		name  string
		upper []entry
		want  string
	}{
		{"nothing", nil, "bin/ bin/sh@0 etc/ etc/a@0 etc/b@0 var/ var/log/ var/log/x@0"},
		{"replaced", []entry{{name: "etc/a", content: "new"}}, "bin/ bin/sh@0 etc/ etc/a@1 etc/b@0 var/ var/log/ var/log/x@0"},
		{"whiteout of a file", []entry{{name: "etc/.wh.a"}}, "bin/ bin/sh@0 etc/ etc/b@0 var/ var/log/ var/log/x@0"},
		{"whiteout of a directory", []entry{{name: ".wh.var"}}, "bin/ bin/sh@0 etc/ etc/a@0 etc/b@0"},
		{"whiteout and again", []entry{{name: ".wh.var"}, {name: "var/"}, {name: "var/new", content: "n"}}, "bin/ bin/sh@0 etc/ etc/a@0 etc/b@0 var/ var/new@1"},
		{"opaque", []entry{{name: "etc/"}, {name: "etc/.wh..wh..opq"}, {name: "etc/c", content: "c"}}, "bin/ bin/sh@0 etc/ etc/c@1 var/ var/log/ var/log/x@0"},
		{"opaque root", []entry{{name: ".wh..wh..opq"}, {name: "only", content: "o"}}, "only@1"},
		{"overlayfs' whiteout", []entry{{name: "etc/b", kind: tar.TypeChar}}, "bin/ bin/sh@0 etc/ etc/a@0 var/ var/log/ var/log/x@0"},
		{"file over directory", []entry{{name: "var", content: "file"}}, "bin/ bin/sh@0 etc/ etc/a@0 etc/b@0 var@1"},
		{"directory over file", []entry{{name: "bin/sh/"}, {name: "bin/sh/x", content: "x"}}, "bin/ bin/sh/ bin/sh/x@1 etc/ etc/a@0 etc/b@0 var/ var/log/ var/log/x@0"},
		{"paths that climb", []entry{{name: "../../etc/../bin/./sh", content: "evil"}, {name: "/abs", content: "a"}}, "abs@1 bin/ bin/sh@1 etc/ etc/a@0 etc/b@0 var/ var/log/ var/log/x@0"},
		{"last of two", []entry{{name: "etc/a", content: "x"}, {name: "etc/a", content: "xyz"}}, "bin/ bin/sh@0 etc/ etc/a@1 etc/b@0 var/ var/log/ var/log/x@0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := tree(t, View{index(t, base...), index(t, c.upper...)}); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestTotalsCountWhatIsVisible(t *testing.T) {
	v := View{
		index(t, entry{name: "usr/lib/a", content: "12345"}, entry{name: "usr/lib/b", content: "123"}),
		index(t, entry{name: "usr/lib/.wh.a"}, entry{name: "usr/bin/c", content: "1"}),
	}
	totals, err := v.Totals(t.Context(), "/")
	if err != nil || totals["usr"] != (Total{2, 4}) {
		t.Fatalf("%v %v", totals, err)
	}
	if _, err := v.Dir("usr/lib/b"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Fatalf("a file as directory: %v", err)
	}
}

func TestHardLinksLookLikeTheirTarget(t *testing.T) {
	v := View{index(t, entry{name: "a", content: "hello"}, entry{name: "b", kind: tar.TypeLink, link: "a"}, entry{name: "c", kind: tar.TypeLink, link: "gone"})}
	entries, err := v.Dir("")
	if err != nil {
		t.Fatal(err)
	}
	if b := entries[1]; b.Kind != Regular || b.Size != 5 || b.Target != "/a" || b.Sum != entries[0].Sum {
		t.Errorf("b is %+v", b)
	}
	if c := entries[2]; c.Kind != Hardlink || c.Target != "/gone" {
		t.Errorf("c is %+v", c)
	}
}

func TestCompare(t *testing.T) {
	base := index(t, entry{name: "same", content: "s"}, entry{name: "lib/old", content: "1"}, entry{name: "lib/edit", content: "ab"})
	a := View{base, index(t, entry{name: "only-a", content: "a"})}
	b := View{base, index(t, entry{name: "lib/.wh.old"}, entry{name: "lib/edit", content: "ba"}, entry{name: "new/deep/file", content: "n"})}
	var got []string
	err := Compare(t.Context(), a, b, func(c Change) {
		switch {
		case c.Before == nil:
			got = append(got, "+"+c.Path)
		case c.After == nil:
			got = append(got, "-"+c.Path)
		default:
			got = append(got, "~"+c.Path)
		}
	})
	if want := "~lib/edit -lib/old +new +new/deep +new/deep/file -only-a"; err != nil || strings.Join(got, " ") != want {
		t.Fatalf("got %v (%v), want %s", got, err, want)
	}
	if err := Compare(t.Context(), b, b, func(c Change) { t.Errorf("a view differs from itself in %s", c.Path) }); err != nil {
		t.Fatal(err)
	}
}

func TestLimits(t *testing.T) {
	var many []entry
	for i := range 40 {
		many = append(many, entry{name: fmt.Sprintf("d%d/f", i), content: "x"})
	}
	layer := archive(t, many...)
	for _, limits := range []Limits{{Entries: 60, Memory: 1 << 20}, {Entries: 1000, Memory: 4000}} {
		if _, err := Read(t.Context(), bytes.NewReader(layer), limits); !errors.Is(err, errdefs.ErrExhausted) {
			t.Errorf("%+v: %v", limits, err)
		}
	}
	if _, err := Read(t.Context(), strings.NewReader("no archive, certainly not one of tar's"), wide); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("garbage: %v", err)
	}
	deep := archive(t, entry{name: strings.Repeat("d/", 30_000) + "f", content: "x"}, entry{name: "kept", content: "x"})
	index, err := Read(t.Context(), bytes.NewReader(deep), wide)
	if err != nil || tree(t, View{index}) != "kept@0" {
		t.Errorf("a path that no system can open: %v", err)
	}
}

// bomb is a layer of one file whose zeros never end.
func bomb() io.ReadCloser {
	r, w := io.Pipe()
	go func() {
		z := gzip.NewWriter(w)
		t := tar.NewWriter(z)
		err := t.WriteHeader(&tar.Header{Name: "zeros", Typeflag: tar.TypeReg, Size: 1 << 50})
		for zeros := make([]byte, 1<<20); err == nil; {
			_, err = t.Write(zeros)
		}
		w.CloseWithError(err)
	}()
	return r
}

func cache(t *testing.T, b Bounds) *Cache {
	c := NewCache(b)
	t.Cleanup(c.Close)
	return c
}

func TestBombEndsByTime(t *testing.T) {
	c := cache(t, Bounds{Limits: wide, Total: 1 << 20, Time: 50 * time.Millisecond, AtOnce: 1, Queue: 4})
	opened := 0
	open := func(context.Context) (io.ReadCloser, error) { opened++; return bomb(), nil }
	for range 2 {
		if _, err := c.Get(t.Context(), "sha256:bomb", open); !errors.Is(err, errdefs.ErrExhausted) || !strings.Contains(err.Error(), "takes longer") {
			t.Fatal(err)
		}
	}
	if opened != 1 {
		t.Fatalf("the refusal was not kept: opened %d times", opened)
	}
}

func TestCacheMakesOnceAndForgetsTheOldest(t *testing.T) {
	layer := archive(t, entry{name: "a", content: "x"})
	one, err := Read(t.Context(), bytes.NewReader(layer), wide)
	if err != nil {
		t.Fatal(err)
	}
	c := cache(t, Bounds{Limits: wide, Total: 2 * one.cost, Time: time.Minute, AtOnce: 1, Queue: 4})
	opened := map[oci.Digest]int{}
	get := func(d oci.Digest) *Index {
		index, err := c.Get(t.Context(), d, func(context.Context) (io.ReadCloser, error) {
			opened[d]++
			return io.NopCloser(bytes.NewReader(layer)), nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return index
	}
	if first, again := get("sha256:1"), get("sha256:1"); first != again {
		t.Fatal("two indexes of one layer")
	}
	get("sha256:2")
	get("sha256:1")
	get("sha256:3") // 2 goes
	get("sha256:1")
	get("sha256:2")
	if opened["sha256:1"] != 1 || opened["sha256:2"] != 2 || c.memory > 2*one.cost {
		t.Fatalf("opened %v, memory %d", opened, c.memory)
	}
}

func TestCacheQueueAndPatience(t *testing.T) {
	c := cache(t, Bounds{Limits: wide, Total: 1 << 20, Time: time.Minute, AtOnce: 1, Queue: 1})
	goOn := make(chan struct{})
	open := func(context.Context) (io.ReadCloser, error) {
		<-goOn
		return nil, errors.New("the disk is gone")
	}
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := c.Get(short, "sha256:1", open); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Fatalf("while it is read: %v", err)
	}
	if _, err := c.Get(t.Context(), "sha256:2", open); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Fatalf("past the queue: %v", err)
	}
	close(goOn)
	if _, err := c.Get(t.Context(), "sha256:1", open); err == nil || errors.Is(err, errdefs.ErrUnavailable) {
		t.Fatalf("a failure to open: %v", err)
	}
}
