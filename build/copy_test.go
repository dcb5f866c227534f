package build_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"davit/build"
	"davit/oci"
)

// list shows what lies below /out of an image, one line each: path, mode, owner, content or target.
func (h *host) list(image oci.Image) string {
	return h.sh(image, `cd /out 2>/dev/null || exit 0; find . | sort | while read f; do
if [ -L "$f" ]; then echo "$f -> $(readlink "$f")"
elif [ -d "$f" ]; then echo "$f/ $(stat -c '%a %u:%g' "$f")"
else echo "$f $(stat -c '%a %u:%g' "$f") $(cat "$f")"; fi; done`)
}

func TestCopy(t *testing.T) {
	h := newHost(t)
	files := map[string]string{
		"a.txt": "A", "b.txt": "B", "c.md": "C",
		"dir/": "", "dir/x": "X", "dir/sub/": "", "dir/sub/y": "Y", "dir/link": "-> x", "dir/out": "-> /etc/passwd",
		"to-dir": "-> dir", "to-file": "-> a.txt", "up": "-> ../../../../etc/passwd",
		"p/one/f.c": "1", "p/two/f.c": "2", "p/two/f.h": "3",
		"lib/": "", "lib/new": "N",
	}
	for _, test := range []struct{ name, steps, want string }{
		{"file to file", "COPY a.txt /out/n", "./ 755 0:0\n./n 644 0:0 A"},
		{"file to directory", "COPY a.txt /out/", "./ 755 0:0\n./a.txt 644 0:0 A"},
		{"file to existing directory", "RUN mkdir /out\nCOPY a.txt /out", "./ 755 0:0\n./a.txt 644 0:0 A"},
		{"file over file", "COPY a.txt /out/n\nCOPY b.txt /out/n", "./ 755 0:0\n./n 644 0:0 B"},
		{"wildcard", "COPY *.txt /out/", "./ 755 0:0\n./a.txt 644 0:0 A\n./b.txt 644 0:0 B"},
		{"question mark and class", "COPY ?.txt [c].md /out/", "./ 755 0:0\n./a.txt 644 0:0 A\n./b.txt 644 0:0 B\n./c.md 644 0:0 C"},
		{"directory's contents", "COPY dir /out", "./ 755 0:0\n./link -> x\n./out -> /etc/passwd\n./sub/ 755 0:0\n./sub/y 644 0:0 Y\n./x 644 0:0 X"},
		{"directories merge", "COPY dir /out\nCOPY dir/sub /out", "./ 755 0:0\n./link -> x\n./out -> /etc/passwd\n./sub/ 755 0:0\n./sub/y 644 0:0 Y\n./x 644 0:0 X\n./y 644 0:0 Y"},
		{"through a link to a directory", "COPY to-dir/sub /out", "./ 755 0:0\n./y 644 0:0 Y"},
		{"link to a file", "COPY to-file /out/", "./ 755 0:0\n./to-file 644 0:0 A"},
		{"relative to the working directory", "WORKDIR /out/w\nCOPY a.txt .\nCOPY b.txt ./d/", "./ 755 0:0\n./w/ 755 0:0\n./w/a.txt 644 0:0 A\n./w/d/ 755 0:0\n./w/d/b.txt 644 0:0 B"},
		{"JSON form", `COPY ["a.txt", "/out/with space"]`, "./ 755 0:0\n./with space 644 0:0 A"},
		{"chown by number", "COPY --chown=7:8 dir/sub /out", "./ 755 7:8\n./y 644 7:8 Y"},
		{"chown by one number", "COPY --chown=7 a.txt /out/", "./ 755 7:7\n./a.txt 644 7:7 A"},
		{"chown by name", "COPY --chown=app:extra a.txt /out/", "./ 755 1001:1500\n./a.txt 644 1001:1500 A"},
		{"chmod octal", "COPY --chmod=0640 a.txt /out/", "./ 755 0:0\n./a.txt 640 0:0 A"},
		{"chmod symbolic", "COPY --chmod=u+x,go-r a.txt /out/", "./ 755 0:0\n./a.txt 700 0:0 A"},
		{"here-document", "ENV V=v\nCOPY <<one <<\"two\" /out/\n$V\none\n$V\ntwo\n", "./ 755 0:0\n./one 644 0:0 v\n./two 644 0:0 $V"},
		{"exclude", "COPY --exclude=sub --exclude=l* dir /out", "./ 755 0:0\n./out -> /etc/passwd\n./x 644 0:0 X"},
		{"exclude with exception", "COPY --exclude=* --exclude=!sub/y dir /out", "./ 755 0:0\n./sub/ 755 0:0\n./sub/y 644 0:0 Y"},
		{"parents", "COPY --parents p/*/f.c /out/", "./ 755 0:0\n./p/ 755 0:0\n./p/one/ 755 0:0\n./p/one/f.c 644 0:0 1\n./p/two/ 755 0:0\n./p/two/f.c 644 0:0 2"},
		{"parents with pivot", "COPY --parents p/./two/f.h /out/", "./ 755 0:0\n./two/ 755 0:0\n./two/f.h 644 0:0 3"},
		{"parents with any depth", "COPY --parents **/f.h /out/", "./ 755 0:0\n./p/ 755 0:0\n./p/two/ 755 0:0\n./p/two/f.h 644 0:0 3"},
		{"link", "RUN mkdir -m 700 /out\nCOPY --link a.txt /out/", "./ 755 0:0\n./a.txt 644 0:0 A"},
		{"keeps the parent's mode", "RUN mkdir -m 700 /out\nCOPY a.txt /out/", "./ 700 0:0\n./a.txt 644 0:0 A"},
		{"from a stage keeps owners", "RUN mkdir /o2 && echo -n 1 > /o2/f && chmod 4711 /o2/f && " + chown("/o2/f", 5, 6) + "\nCOPY --from=base /etc/passwd /x\nFROM base\nCOPY --from=0 /o2 /out", "./ 755 0:0\n./f 4711 5:6 1"},
		{"destination through a link of the image", "RUN mkdir /out && ln -s /out /via\nCOPY a.txt /via/", "./ 755 0:0\n./a.txt 644 0:0 A"},
		{"destination through a link that would leave", "RUN mkdir /out && ln -s ../../../../out /via\nCOPY a.txt /via/n", "./ 755 0:0\n./n 644 0:0 A"},
		{"after a deletion", "COPY dir /out\nRUN rm -r /out\nCOPY a.txt /out/", "./ 755 0:0\n./a.txt 644 0:0 A"},
		{"sees no deleted file", "COPY a.txt /out\nRUN rm /out\nCOPY dir/sub /out", "./ 755 0:0\n./y 644 0:0 Y"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h.t = t
			r := h.mustBuild("FROM base\n"+test.steps+"\n", files)
			if got := h.list(r.Image); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
}

// chown is a command that changes an owner and keeps the set-uid bit that this takes away.
func chown(name string, uid, gid int) string {
	return fmt.Sprintf("/bin/busybox chown %d:%d %s && chmod 4711 %s", uid, gid, name, name)
}

func TestCopyStaysInTheContext(t *testing.T) {
	h := newHost(t)
	files := map[string]string{"up": "-> ../../../../etc/shadow", "abs": "-> /etc/shadow", "d": "-> /etc", "loop": "-> loop"}
	for _, source := range []string{"up", "abs", "d/shadow", "../../../etc/shadow"} {
		if _, err := h.build("FROM base\nCOPY "+source+" /x\n", files); err == nil || !strings.Contains(err.Error(), "COPY failed: file not found in build context") {
			t.Errorf("COPY %s: error %v", source, err)
		}
	}
	if _, err := h.build("FROM base\nCOPY loop /x\n", files); err == nil || !strings.Contains(err.Error(), "too many levels of symbolic links") {
		t.Errorf("error %v", err)
	}
}

func TestCopyOntoMergedDirectoryKeepsTheLink(t *testing.T) {
	h := newHost(t)
	r := h.mustBuild("FROM base\nCOPY . /\n", map[string]string{"lib/": "", "lib/new": "N"})
	if got := h.sh(r.Image, "readlink /lib; cat /usr/lib/new"); got != "usr/lib\nN" {
		t.Errorf("got %q", got)
	}
}

func TestCopyKeepsTimes(t *testing.T) {
	h := newHost(t)
	r := h.mustBuild("FROM base\nCOPY f /tmp/\n", map[string]string{"f": "1"})
	if got := h.sh(r.Image, "stat -c '%Y' /tmp/f /tmp; stat -c %a /tmp"); got != "1700000000\n1600000000\n1777" {
		t.Errorf("got %q", got)
	}
}

// compressed pipes an archive through a program.
func compressed(t *testing.T, b []byte, program ...string) string {
	t.Helper()
	cmd := exec.Command(program[0], program[1:]...)
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", program, err)
	}
	return string(out)
}

func TestAddUnpacksArchives(t *testing.T) {
	h := newHost(t)
	at := time.Unix(1500000000, 0)
	plain := archive(t, []*tar.Header{
		{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o750, Uid: 3, Gid: 4, ModTime: at},
		{Name: "d/f", Mode: 0o4755, Uid: 5, Gid: 6, Size: 1, ModTime: at},
		{Typeflag: tar.TypeLink, Name: "d/hard", Linkname: "d/f", ModTime: at},
		{Typeflag: tar.TypeSymlink, Name: "s", Linkname: "d", Mode: 0o777, ModTime: at},
		{Name: "s/through", Mode: 0o600, Size: 1, ModTime: at},
		{Name: "implied/g", Mode: 0o600, Size: 1, ModTime: at},
	}, map[string]string{"d/f": "F", "s/through": "T", "implied/g": "G"})
	want := "./ 755 0:0\n./d/ 750 3:4\n./d/f 4755 5:6 F\n./d/hard 4755 5:6 F\n./d/through 600 0:0 T\n./implied/ 755 0:0\n./implied/g 600 0:0 G\n./s -> d"
	files := map[string]string{
		"plain": string(plain), "gz": compressed(t, plain, "gzip"), "bz2": compressed(t, plain, "bzip2"),
		"xz": compressed(t, plain, "xz"), "zst": compressed(t, plain, "zstd"), "text.tar": "no archive",
		"only.gz": compressed(t, []byte("text"), "gzip"),
	}
	for _, name := range []string{"plain", "gz", "bz2", "xz", "zst"} {
		t.Run(name, func(t *testing.T) {
			h.t = t
			r := h.mustBuild("FROM base\nADD "+name+" /out/\n", files)
			if got := h.list(r.Image); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
	h.t = t
	r := h.mustBuild("FROM base\nADD text.tar only.gz /out/\nADD --unpack=false plain /out/kept\nCOPY gz /out/copied\nRUN wc -c < /out/copied > /out/n && rm /out/copied /out/kept /out/only.gz\n", files)
	if got := h.list(r.Image); got != fmt.Sprintf("./ 755 0:0\n./n 644 0:0 %d\n./text.tar 644 0:0 no archive", len(files["gz"])) {
		t.Errorf("got\n%s", got)
	}
	r = h.mustBuild("FROM base\nADD --chown=9:9 plain /out/\n", files)
	if got := h.list(r.Image); !strings.Contains(got, "./d/f 4755 9:9 F") {
		t.Errorf("got\n%s", got)
	}
}

func TestAddKeepsHostileArchivesInside(t *testing.T) {
	h := newHost(t)
	probe := "/tmp/davit-build-escape"
	for name, headers := range map[string][]*tar.Header{
		"parent":            {{Name: "../../../../../../../.." + probe, Mode: 0o644, Size: 1}},
		"absolute":          {{Name: probe, Mode: 0o644, Size: 1}},
		"link then file":    {{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "/tmp"}, {Name: "l/davit-build-escape", Mode: 0o644, Size: 1}},
		"relative link":     {{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "../../../../../../../../../tmp"}, {Name: "l/davit-build-escape", Mode: 0o644, Size: 1}},
		"file is a link":    {{Typeflag: tar.TypeSymlink, Name: "f", Linkname: probe}, {Name: "f", Mode: 0o644, Size: 1}},
		"hard link outside": {{Typeflag: tar.TypeLink, Name: "h", Linkname: "../../../../../../../../../etc/passwd"}},
		"hard link to host": {{Typeflag: tar.TypeLink, Name: "h", Linkname: "/etc/hostname"}},
	} {
		t.Run(name, func(t *testing.T) {
			content := map[string]string{}
			for _, header := range headers {
				content[header.Name] = "!"
			}
			// Whether it is refused or kept inside, nothing may appear outside.
			h.build("FROM base\nADD evil /\n", map[string]string{"evil": string(archive(t, headers, content))})
			if _, err := os.Lstat(probe); err == nil {
				os.Remove(probe)
				t.Error("the archive wrote to the host")
			}
		})
	}
}

func TestContextRefusesHostileArchives(t *testing.T) {
	h := newHost(t)
	dockerfile := &tar.Header{Name: "Dockerfile", Mode: 0o644, Size: 10}
	content := map[string]string{"Dockerfile": "FROM base\n", "l/x": "!", "../x": "!"}
	for name, headers := range map[string][]*tar.Header{
		"parent":       {dockerfile, {Name: "../x", Size: 1}},
		"through link": {dockerfile, {Typeflag: tar.TypeSymlink, Name: "l", Linkname: "/tmp"}, {Name: "l/x", Size: 1}},
		"hard link":    {dockerfile, {Typeflag: tar.TypeLink, Name: "h", Linkname: "../../etc/passwd"}},
		"missing link": {dockerfile, {Typeflag: tar.TypeLink, Name: "h", Linkname: "etc/passwd"}},
	} {
		if _, err := h.buildTar(archive(t, headers, content)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	whole := archive(t, []*tar.Header{dockerfile, {Name: "l/x", Size: 1}}, content)
	if _, err := h.buildTar(whole[:515]); err == nil {
		t.Error("half an archive is accepted")
	}
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	w.Write(whole)
	w.Close()
	if _, err := h.buildTar(zipped.Bytes()); err != nil {
		t.Errorf("compressed context: %v", err)
	}
}

func TestAddRemote(t *testing.T) {
	requests := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests++
		if r.URL.Path != "/f.txt" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Last-Modified", "Tue, 14 Nov 2023 22:13:20 GMT")
		io.WriteString(w, "remote")
	}))
	defer server.Close()
	h := newHost(t)
	sum := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("remote")))
	r := h.mustBuild("FROM base\nADD "+server.URL+"/f.txt /out/\nRUN stat -c %Y /out/f.txt > /out/time\n", nil)
	if got := h.list(r.Image); got != "./ 755 0:0\n./f.txt 600 0:0 remote\n./time 644 0:0 1700000000" {
		t.Errorf("got\n%s", got)
	}
	checked := "FROM base\nADD --checksum=" + sum + " " + server.URL + "/f.txt /out/g\n"
	h.mustBuild(checked, nil)
	requests = 0
	h.mustBuild(checked, nil)
	if requests != 0 || len(h.cached()) != 1 {
		t.Errorf("%d requests, cached %q", requests, h.cached())
	}
	_, err := h.build("FROM base\nADD --checksum=sha256:"+strings.Repeat("0", 64)+" "+server.URL+"/f.txt /out/g\n", nil)
	if err == nil || !strings.Contains(err.Error(), sum) {
		t.Errorf("error %v", err)
	}
	if _, err = h.build("FROM base\nADD "+server.URL+"/no /out/\n", nil); err == nil || !strings.Contains(err.Error(), "404 Not Found") {
		t.Errorf("error %v", err)
	}
	if _, err = h.build("FROM base\nADD "+server.URL+" /out/\n", nil); err == nil || !strings.Contains(err.Error(), "cannot determine filename") {
		t.Errorf("error %v", err)
	}
}

func TestRemoteContext(t *testing.T) {
	h := newHost(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/context.tar.gz":
			io.WriteString(w, compressed(t, tarOf(t, map[string]string{"Dockerfile": "FROM base\nCOPY f /f\n", "f": "1"}), "gzip"))
		case "/Dockerfile":
			io.WriteString(w, "FROM base\nLABEL a=1\n")
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	for path, want := range map[string]string{"/context.tar.gz": "", "/Dockerfile": "", "/no": "unexpected status 404 Not Found", "/repo.git#main": "git repositories are not supported"} {
		files, err := h.OpenContext(t.Context(), nil, server.URL+path)
		if err == nil {
			_, err = h.buildContext(files)
		}
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: error %v, want %q", path, err, want)
		}
	}
}

func TestIgnoreFileOfTheDockerfileWins(t *testing.T) {
	h := newHost(t)
	files := map[string]string{
		".dockerignore": "a\n", "x/D": "FROM base\nCOPY . /out\n", "x/D.dockerignore": "*\n!b\n", "a": "A", "b": "B",
	}
	r := h.mustBuild("FROM base\nCOPY . /out\n", files)
	if got := h.list(r.Image); strings.Contains(got, "./a ") || !strings.Contains(got, "./b ") {
		t.Errorf("got\n%s", got)
	}
	r = h.mustBuild("", files, func(r *build.Request) { r.Dockerfile = "x/D" })
	if got := h.list(r.Image); got != "./ 755 0:0\n./b 644 0:0 B" {
		t.Errorf("got\n%s", got)
	}
}
