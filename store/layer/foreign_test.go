package layer

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"davit/oci"
)

const makeNasty = `
mkdir -p a/b "with space" "$(printf 'ümlaut-\377')" d/e/f
printf x > a/b/one; ln a/b/one a/two; ln a/b/one three
printf long > "a/$(printf 'n%.0s' $(seq 240))"
mkdir -p "$(printf 'deep-directory-name/%.0s' $(seq 12))"
printf y > "$(printf 'deep-directory-name/%.0s' $(seq 12))file"
ln -s "$(printf 't%.0s' $(seq 300))" a/longlink
printf z > "with space/q\"'"; : > empty
truncate -s 3M holes; printf data | dd of=holes bs=1 seek=1000000 conv=notrunc status=none
truncate -s 8M allhole
head -c 2000000 /dev/urandom > big
chmod 6755 big; chmod 0 empty; chmod 1777 d
chown 4000000000:2097152 three
setfattr -n user.empty a/two; setfattr -n user.bin -v 0x00ff0a3d a/two
touch -d @1.999999999 d/e; touch -d @-5 d/e/f
mkfifo fifo; mknod null c 1 3
`

// GNU tar, in each of its formats, is unpacked to what GNU tar unpacks, and given back byte by byte.
func TestGNUTar(t *testing.T) {
	src := t.TempDir()
	runIn(t, src, "bash", "-eu", "-c", makeNasty)
	for name, flags := range map[string]string{
		"gnu":         "--format=gnu",
		"gnu sparse":  "--format=gnu --sparse",
		"pax":         "--format=pax --xattrs --xattrs-include=*",
		"pax sparse":  "--format=pax --sparse --xattrs --xattrs-include=*",
		"pax 0.0":     "--format=pax --sparse --sparse-version=0.0",
		"pax 0.1":     "--format=pax --sparse --sparse-version=0.1",
		"oldgnu":      "--format=oldgnu --sparse",
		"big blocks":  "--format=gnu -b 100",
		"pax globals": "--format=pax --pax-option=globexthdr.name=x,comment=hello",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			args := append(strings.Fields(flags), "-C", src, "-cf", filepath.Join(dir, "t.tar"), ".")
			runIn(t, dir, "tar", args...)
			want := filepath.Join(dir, "want")
			if err := os.Mkdir(want, 0o755); err != nil {
				t.Fatal(err)
			}
			runIn(t, want, "tar", "--xattrs", "--xattrs-include=*", "-xpf", "../t.tar")
			b, err := os.ReadFile(filepath.Join(dir, "t.tar"))
			if err != nil {
				t.Fatal(err)
			}
			s := newStore(t)
			id := mustUnpack(t, s, b)
			sameTrees(t, describe(t, inLayer(t, s, "", id)), describe(t, want))
			if strings.Contains(name, "sparse") {
				if st := stat(t, inLayer(t, s, "allhole", id)); st.Blocks != 0 || st.Size != 8<<20 {
					t.Errorf("a hole of 8 MB takes %d blocks", st.Blocks)
				}
			}
		})
	}
}

// A stack of layers looks the same through an overlay of davit's directories as unpacked by umoci.
func TestUmociUnpacksTheSame(t *testing.T) {
	base := newTar(t).
		add(entry{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755}, "").
		dir("etc").file("etc/a", "a").file("etc/b", "b").link("etc/a2", "etc/a").
		add(entry{Typeflag: tar.TypeDir, Name: "opaque/", Mode: 0o2711, Uid: 5, Gid: 6}, "").file("opaque/x", "x").
		dir("usr").dir("usr/bin").symlink("bin", "usr/bin").file("usr/bin/tool", "tool").
		dir("swap").file("swap/in", "in").file("swapped", "s").
		add(entry{Typeflag: tar.TypeFifo, Name: "pipe", Mode: 0o640}, "").
		bytes()
	middle := newTar(t).
		dir("etc").file("etc/.wh.b", "").
		dir("opaque").file("opaque/.wh..wh..opq", "").file("opaque/y", "y").
		file("swap", "a file").dir("swapped").file("swapped/f", "f").
		bytes()
	top := newTar(t).
		dir("etc").file("etc/b", "again").
		dir("usr").dir("usr/bin").file("usr/bin/.wh.tool", "").
		file(".wh.pipe", "").
		add(entry{Name: "etc/c", Size: 1, Mode: 0o4755, Uid: 70000, PAXRecords: map[string]string{xattrRecord + "user.k": "v"}}, "c").
		bytes()
	s := newStore(t)
	dir := t.TempDir()
	runIn(t, dir, "umoci", "init", "--layout", "img")
	runIn(t, dir, "umoci", "new", "--image", "img:t")
	var stack []oci.DiffID
	for i, b := range [][]byte{base, middle, top} {
		stack = append(stack, mustUnpack(t, s, b, stack[:i]...))
		name := filepath.Join(dir, "layer.tar")
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		runIn(t, dir, "umoci", "raw", "add-layer", "--image", "img:t", "layer.tar")
	}
	runIn(t, dir, "umoci", "unpack", "--image", "img:t", "bundle")
	dirs, err := s.Dirs(stack...)
	if err != nil {
		t.Fatal(err)
	}
	sameTrees(t, describe(t, mountOverlay(t, dirs, "", "")), describe(t, filepath.Join(dir, "bundle", "rootfs")), ".")
}

// The layers of an image that umoci made of a changed directory unpack as umoci unpacks them, and come
// back unchanged.
func TestImageMadeByUmoci(t *testing.T) {
	dir := t.TempDir()
	runIn(t, dir, "umoci", "init", "--layout", "img")
	runIn(t, dir, "umoci", "new", "--image", "img:t")
	runIn(t, dir, "umoci", "unpack", "--image", "img:t", "bundle")
	runIn(t, filepath.Join(dir, "bundle", "rootfs"), "bash", "-eu", "-c", makeBase)
	runIn(t, dir, "umoci", "repack", "--refresh-bundle", "--image", "img:t", "bundle")
	runIn(t, filepath.Join(dir, "bundle", "rootfs"), "bash", "-eu", "-c", changeIt)
	runIn(t, dir, "umoci", "repack", "--refresh-bundle", "--image", "img:t", "bundle")
	runIn(t, dir, "umoci", "unpack", "--image", "img:t", "fresh")
	runIn(t, dir, "skopeo", "copy", "--insecure-policy", "oci:img:t", "dir:flat")

	var manifest oci.Manifest
	if err := json.Unmarshal([]byte(content(t, filepath.Join(dir, "flat", "manifest.json"))), &manifest); err != nil {
		t.Fatal(err)
	}
	s := newStore(t)
	var stack []oci.DiffID
	for _, layer := range manifest.Layers {
		f, err := os.Open(filepath.Join(dir, "flat", layer.Digest.Hex()))
		if err != nil {
			t.Fatal(err)
		}
		r, kind, err := Decompress(f)
		if err != nil || kind != Gzip {
			t.Fatalf("%s, %v", kind, err)
		}
		var plain bytes.Buffer
		if _, err := plain.ReadFrom(r); err != nil {
			t.Fatal(err)
		}
		stack = append(stack, mustUnpack(t, s, plain.Bytes(), stack...))
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	dirs, err := s.Dirs(stack...)
	if err != nil {
		t.Fatal(err)
	}
	sameTrees(t, describe(t, mountOverlay(t, dirs, "", "")), describe(t, filepath.Join(dir, "fresh", "rootfs")), ".")
}
