package script

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// slack is how much two counts of a tree may differ: the engine's database and directories change between
// them by a block or two each.
const slack = 64 << 10

// diskUsage is the engine's answer, in the words of all clients and its own.
type diskUsage struct {
	LayersSize int64
	Containers []struct{ SizeRw int64 }
	Volumes    []struct{ UsageData struct{ Size int64 } }
	BuildCache []struct {
		Size   int64
		Shared bool
	}
	DataRoot struct{ Used, Other int64 }
}

func (u diskUsage) cache() (sum int64) {
	for _, r := range u.BuildCache {
		if !r.Shared {
			sum += r.Size
		}
	}
	return sum
}

func (u diskUsage) sum() int64 {
	sum := u.LayersSize + u.cache() + u.DataRoot.Other
	for _, c := range u.Containers {
		sum += c.SizeRw
	}
	for _, v := range u.Volumes {
		sum += v.UsageData.Size
	}
	return sum
}

func (e *engine) usage(t *testing.T) (u diskUsage) {
	t.Helper()
	out := e.must(t, "curl", "-s", "--unix-socket", e.socket(), "http://davit/v1.51/system/df")
	if err := json.Unmarshal([]byte(out), &u); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return u
}

// du is what the data root takes by du(1).
func (e *engine) du(t *testing.T) (bytes int64) {
	t.Helper()
	if out, err := exec.Command("sync", "-f", e.data).CombinedOutput(); err != nil {
		t.Fatalf("sync: %v: %s", err, out)
	}
	if _, err := fmt.Sscan(e.must(t, "du", "-sx", "-B1", e.data), &bytes); err != nil {
		t.Fatal(err)
	}
	return bytes
}

// TestDiskUsage compares what the engine says with du: as a whole, and what each prune says it gave back.
func TestDiskUsage(t *testing.T) {
	e := newEngine(t)
	davit := func(args ...string) string {
		t.Helper()
		return e.must(t, filepath.Join(e.bin, "davit"), args...)
	}
	agree := func(when string) diskUsage {
		t.Helper()
		u, du := e.usage(t), e.du(t)
		if sum := u.sum(); sum < du-slack || sum > du+slack || sum != u.DataRoot.Used {
			t.Errorf("%s: the sum is %d, the engine's own is %d, du says %d", when, sum, u.DataRoot.Used, du)
		}
		return u
	}
	agree("at first")
	e.furnish(t)
	full := agree("with something of everything")
	if full.cache() < 3<<20 {
		t.Errorf("the build cache takes %d bytes, and has layers of 2 MiB and files of 1 MiB", full.cache())
	}
	var info struct {
		Images       int
		DriverStatus [][2]string
	}
	if err := json.Unmarshal([]byte(davit("info", "-f", "json")), &info); err != nil {
		t.Fatal(err)
	}
	if want := len(strings.Fields(davit("images", "-aq", "--no-trunc"))); info.Images != want-1 { // one has two names
		t.Errorf("info counts %d images, images lists %d names", info.Images, want)
	}
	if kind := strings.TrimSpace(e.must(t, "stat", "-f", "-c", "%T", e.data)); backingName(kind) != info.DriverStatus[0][1] {
		t.Errorf("info says %v, stat %s", info.DriverStatus[0], kind)
	}
	for _, prune := range [][]string{
		{"docker", "builder", "prune", "-f"},
		{"davit", "container", "prune", "-f"},
		{"docker", "builder", "prune", "-af"},
		{"davit", "volume", "prune", "-af"},
		{"docker", "image", "prune", "-af"},
		{"davit", "system", "prune", "-af", "--volumes"},
	} {
		before := e.du(t)
		out := e.must(t, prune[0], prune[1:]...)
		freed, after := reclaimed(t, out), e.du(t)
		if got := before - after; got < freed-slack || got > freed+slack {
			t.Errorf("%s says %d bytes, du says %d:\n%s", strings.Join(prune, " "), freed, got, out)
		}
		agree("after " + strings.Join(prune, " "))
	}
	if u := agree("at last"); u.cache() != 0 || len(u.Volumes) != 1 || len(u.Containers) != 1 {
		t.Errorf("left: %+v", u)
	}
	davit("rm", "-f", "running")
}

// backingName is Docker's word for a file system of stat -f.
func backingName(kind string) string {
	if kind == "ext2/ext3" {
		return "extfs"
	}
	return kind
}

// reclaimed reads the last line of a prune, which has three or four digits.
func reclaimed(t *testing.T, out string) int64 {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(out), "\n")
	last := lines[len(lines)-1]
	_, text, ok := strings.Cut(strings.Replace(last, "Total:\t", "Total reclaimed space: ", 1), "Total reclaimed space: ")
	var number float64
	var unit string
	if _, err := fmt.Sscanf(text, "%g%s", &number, &unit); !ok || err != nil {
		t.Fatalf("no sum in %q: %v", last, err)
	}
	scale, known := map[string]float64{"B": 1, "kB": 1e3, "MB": 1e6}[unit]
	if !known {
		t.Fatalf("unknown unit in %q", last)
	}
	return int64(number * scale)
}

// furnish makes images that share layers, layers that only the build cache has, containers with sparse files,
// hard links and logs, volumes, and a cache mount.
func (e *engine) furnish(t *testing.T) {
	t.Helper()
	script := `set -e
cd "$(mktemp -d)"; trap 'rm -rf "$PWD"' EXIT
step() { printf 'FROM busybox\nRUN dd if=/dev/urandom of=/a bs=1k count=1500 && ln /a /b && truncate -s 1G /hole\n'; }
{ step; printf 'RUN dd if=/dev/urandom of=/mine bs=1k count=300\n'; } | davit build -q -t one -
{ step; printf 'RUN dd if=/dev/urandom of=/other bs=1k count=400; mkdir /d && for i in $(seq 500); do echo $i > /d/$i; done\n'; } | davit build -q -t two -
printf 'FROM busybox\nRUN dd if=/dev/urandom of=/only bs=1k count=2048\n' | davit build -q -t gone -
printf 'FROM busybox\nRUN --mount=type=cache,target=/cache dd if=/dev/urandom of=/cache/x bs=1k count=1024\n' | davit build -q -t gone -
davit rmi gone; davit image prune -f
davit tag two three
davit run -d --name running -v kept:/v one sh -c 'seq 20000; ln /bin/busybox /bin/copy; truncate -s 500M /v/sparse; dd if=/dev/zero of=/v/data bs=1k count=700 2> /dev/null; sleep 1000'
davit run --name stopped -v loose:/v two sh -c 'dd if=/dev/zero of=/v/x bs=1k count=900; dd if=/dev/zero of=/y bs=1k count=600; ln /y /z; rm /a'
for i in $(seq 100); do davit exec running test -e /v/data && break; done
davit volume create unused
davit run --rm -v unused:/v busybox dd if=/dev/zero of=/v/x bs=1k count=256
davit save one two | davit load
`
	e.must(t, "bash", "-c", script)
}
