package script

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// server is an example image and how its real client is used from the host.
type server struct {
	name    string
	pkg     string   // the Debian package that its layer installs
	ports   string   // for -p
	volume  string   // where its data is; "" for none
	write   []string // client command that stores something
	read    []string // client command that reads it back
	want    string
	options []string // of davit run
}

var servers = []server{
	{
		name: "nginx", pkg: "nginx-light", ports: "127.0.0.1:18180:80",
		read: []string{"curl", "-sf", "http://127.0.0.1:18180/"}, want: "Welcome to nginx",
	},
	{
		name: "redis", pkg: "redis-server", ports: "127.0.0.1:16379:6379", volume: "/data",
		write: []string{"redis-cli", "-e", "-p", "16379", "set", "key", "kept in a volume"},
		read:  []string{"redis-cli", "-e", "-p", "16379", "get", "key"}, want: "kept in a volume",
	},
	{
		name: "postgres", pkg: "postgresql", ports: "127.0.0.1:15432:5432", volume: "/data",
		write: []string{"psql", "-q", "-h", "127.0.0.1", "-p", "15432", "-U", "postgres", "-c", "create table kept (line text); insert into kept values ('kept in a volume')"},
		read:  []string{"psql", "-tA", "-h", "127.0.0.1", "-p", "15432", "-U", "postgres", "-c", "select line from kept"}, want: "kept in a volume",
	},
}

// Real servers from Debian's packages, in images of the project's examples, used by their real clients.
// What they stored is there again in a new container over the same volume.
func TestServers(t *testing.T) {
	e := newEngine(t)
	cache := filepath.Join(repository(t), ".cache", "demo")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(cache, "debian.tar")
	made(t, base, filepath.Join(repository(t), "examples/base/debian.sh"), base)
	e.must(t, filepath.Join(e.bin, "davit"), "import", base, "debian:base")
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) { e.serve(t, s, base, cache) })
	}
}

// made runs a script that makes a file, unless the file is there from an earlier run.
func made(t *testing.T, path, script string, args ...string) {
	t.Helper()
	if _, err := os.Stat(path); err == nil {
		return
	}
	args = slices.Clone(args)
	temp := filepath.Join(filepath.Dir(path), "new.tar")
	args[slices.Index(args, path)] = temp
	host := exec.Command("nsenter", append([]string{"--net=/proc/self/fd/3", script}, args...)...)
	host.ExtraFiles = []*os.File{outside(t)}
	if out, err := host.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	if err := os.Rename(temp, path); err != nil {
		t.Fatal(err)
	}
}

func (e *engine) serve(t *testing.T, s server, base, cache string) {
	layer := filepath.Join(cache, s.name+".tar")
	made(t, layer, filepath.Join(repository(t), "examples/base/debian-layer.sh"), base, layer, s.pkg)
	dir := t.TempDir()
	davit := filepath.Join(e.bin, "davit")
	e.must(t, "cp", "-a", filepath.Join(repository(t), "examples", s.name)+"/.", dir)
	e.must(t, "mkdir", filepath.Join(dir, "build"))
	e.must(t, "cp", layer, filepath.Join(dir, "build", s.name+".tar"))
	e.must(t, davit, "build", "-q", "-t", s.name, dir)
	args := append([]string{"run", "-d", "--name", s.name, "-p", s.ports}, s.options...)
	if s.volume != "" {
		args = append(args, "-v", s.name+"-data:"+s.volume)
	}
	args = append(args, s.name)
	e.must(t, davit, args...)
	if s.write != nil {
		e.client(t, s, s.write)
	}
	if got := e.client(t, s, s.read); !strings.Contains(got, s.want) {
		t.Fatalf("%s answers %q, want %q", s.name, got, s.want)
	}
	e.must(t, davit, "stop", s.name)
	if code := strings.TrimSpace(e.must(t, davit, "inspect", "-f", "{{.State.ExitCode}}", s.name)); code != "0" {
		t.Errorf("%s was stopped with exit code %s:\n%s", s.name, code, e.must(t, davit, "logs", s.name))
	}
	e.must(t, davit, "rm", s.name)
	if s.volume == "" {
		return
	}
	e.must(t, davit, args...)
	if got := e.client(t, s, s.read); !strings.Contains(got, s.want) {
		t.Fatalf("after rm and run, %s answers %q, want %q", s.name, got, s.want)
	}
	e.must(t, davit, "rm", "-f", s.name)
	e.must(t, davit, "volume", "rm", s.name+"-data")
}

// client runs a client until the server takes its request. A Redis that is
// still reading its file answers "LOADING": -e makes that an exit code.
func (e *engine) client(t *testing.T, s server, args []string) string {
	t.Helper()
	var out []byte
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "PGPASSWORD=postgres", "PGCONNECT_TIMEOUT=3")
		if out, err = cmd.CombinedOutput(); err == nil && !strings.Contains(string(out), "Connection refused") {
			return string(out)
		}
		<-time.After(50 * time.Millisecond)
	}
	t.Fatalf("%s: %v: %s\n%s", fmt.Sprint(args), err, out, e.must(t, filepath.Join(e.bin, "davit"), "logs", s.name))
	return ""
}
