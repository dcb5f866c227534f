package clients

import (
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/exec"
	"github.com/testcontainers/testcontainers-go/network"
	"github.com/testcontainers/testcontainers-go/wait"
)

const server = `echo preparing; sleep 0.1; mkdir -p /www; echo page >/www/index.html; cp /etc/extra /www/extra; echo ready; exec httpd -f -p 8080 -h /www`

// start runs a container that goes with the test.
func start(t *testing.T, o ...testcontainers.ContainerCustomizer) testcontainers.Container {
	t.Helper()
	c, err := testcontainers.Run(t.Context(), "busybox", o...)
	testcontainers.CleanupContainer(t, c, testcontainers.StopTimeout(0))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func read(t *testing.T, r io.Reader, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestWaitStrategiesFilesAndExec(t *testing.T) {
	c := start(t,
		testcontainers.WithCmd("sh", "-c", server), testcontainers.WithExposedPorts("8080/tcp"),
		testcontainers.WithFiles(testcontainers.ContainerFile{Reader: strings.NewReader("extra"), ContainerFilePath: "/etc/extra", FileMode: 0o644}),
		testcontainers.WithEnv(map[string]string{"A": "b"}),
		testcontainers.WithWaitStrategy(wait.ForAll(
			wait.ForLog("ready"), wait.ForListeningPort("8080/tcp"), wait.ForHTTP("/index.html").WithPort("8080/tcp"),
			wait.ForExec([]string{"test", "-e", "/www/extra"}), wait.ForFile("/www/index.html"),
		).WithDeadline(15*time.Second)))
	endpoint, err := c.PortEndpoint(t.Context(), "8080/tcp", "http")
	if err != nil || !strings.HasPrefix(endpoint, "http://") {
		t.Fatal(endpoint, err)
	}
	code, out, err := c.Exec(t.Context(), []string{"sh", "-c", "echo $A; exit 4"}, exec.Multiplexed())
	if text := read(t, out, err); code != 4 || text != "b\n" {
		t.Errorf("exec: %d %q", code, text)
	}
	f, err := c.CopyFileFromContainer(t.Context(), "/www/extra")
	if text := read(t, f, err); text != "extra" {
		t.Errorf("copied %q", text)
	}
	if err := c.CopyToContainer(t.Context(), []byte("x"), "/tmp/y", 0o600); err != nil {
		t.Error(err)
	}
	dir := t.TempDir()
	write(t, dir+"/one", "1")
	if err := c.CopyDirToContainer(t.Context(), dir, "/tmp", 0o755); err != nil {
		t.Error(err)
	}
	logs, err := c.Logs(t.Context())
	if text := read(t, logs, err); !strings.Contains(text, "ready") {
		t.Errorf("logs %q", text)
	}
	state, err := c.State(t.Context())
	if err != nil || !state.Running {
		t.Error(state, err)
	}
	d := time.Duration(0)
	if err := c.Stop(t.Context(), &d); err != nil {
		t.Error(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestWaitForExit(t *testing.T) {
	c := start(t, testcontainers.WithCmd("sh", "-c", "sleep 0.2; exit 3"), testcontainers.WithWaitStrategy(wait.ForExit()))
	state, err := c.State(t.Context())
	if err != nil || state.ExitCode != 3 {
		t.Error(state, err)
	}
}

func TestNetworkAndReuse(t *testing.T) {
	ctx := t.Context()
	n, err := network.New(ctx)
	testcontainers.CleanupNetwork(t, n)
	if err != nil {
		t.Fatal(err)
	}
	start(t, testcontainers.WithCmd("sh", "-c", "mkdir /w; echo hi > /w/i; httpd -f -p 80 -h /w"), network.WithNetwork([]string{"web"}, n))
	c := start(t, testcontainers.WithCmd("sh", "-c", "until wget -qO- http://web/i; do sleep 0.1; done"), network.WithNetwork(nil, n),
		testcontainers.WithWaitStrategy(wait.ForLog("hi")))
	if state, err := c.State(ctx); err != nil || state.OOMKilled {
		t.Error(state, err)
	}
	var ids []string
	for range 2 {
		c, err := testcontainers.GenericContainer(ctx, testcontainers.GenericContainerRequest{
			ContainerRequest: testcontainers.ContainerRequest{Image: "busybox", Name: "reused", Cmd: []string{"sleep", "100"}},
			Started:          true, Reuse: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		testcontainers.CleanupContainer(t, c, testcontainers.StopTimeout(0))
		ids = append(ids, c.GetContainerID())
	}
	if ids[0] != ids[1] {
		t.Error(ids)
	}
}

func TestBuild(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/Dockerfile", "FROM busybox\nARG X\nRUN echo $X >/x\nCMD cat /x\n")
	x := "built"
	req := testcontainers.ContainerRequest{
		FromDockerfile: testcontainers.FromDockerfile{Context: dir, BuildArgs: map[string]*string{"X": &x}, Repo: "tcimage", Tag: "1"},
		WaitingFor:     wait.ForLog("built"),
	}
	c, err := testcontainers.GenericContainer(t.Context(), testcontainers.GenericContainerRequest{ContainerRequest: req, Started: true})
	testcontainers.CleanupContainer(t, c, testcontainers.StopTimeout(0))
	if err != nil {
		t.Fatal(err)
	}
	logs, err := c.Logs(t.Context())
	if text := read(t, logs, err); !strings.Contains(text, "built") {
		t.Error(text)
	}
}
