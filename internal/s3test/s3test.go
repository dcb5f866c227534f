// Package s3test runs real S3 servers on loopback for tests: MinIO and versitygw, as test/prepare-s3 builds
// them.
package s3test

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"davit/internal/proctest"
)

const user, password = "davit-test", "davit-test-secret"

// program is one server.
type program struct {
	args func(address, data string) []string
	env  []string
}

var programs = map[string]program{
	"minio": {
		func(address, data string) []string {
			return []string{"server", "--quiet", "--address", address, "--console-address", "127.0.0.1:0", data}
		},
		[]string{"MINIO_ROOT_USER=" + user, "MINIO_ROOT_PASSWORD=" + password, "MINIO_UPDATE=off", "MINIO_CI_CD=1"},
	},
	"versitygw": {
		func(address, data string) []string {
			return []string{"--port", address, "--quiet", "posix", data}
		},
		[]string{"ROOT_ACCESS_KEY_ID=" + user, "ROOT_SECRET_ACCESS_KEY=" + password},
	},
}

// Server is a server with one bucket.
type Server struct {
	Root string   // of the bucket, as a registry takes it
	Env  []string // the credentials, for other processes; this one has them too
}

// Start runs "minio" or "versitygw" until the test ends. The bucket is empty.
func Start(t *testing.T, name string) Server {
	t.Helper()
	binary := proctest.Prepare(t, "prepare-s3", name)
	data := t.TempDir()
	if err := os.Mkdir(filepath.Join(data, "registry"), 0o755); err != nil { // a directory is a bucket
		t.Fatal(err)
	}
	address := ""
	for attempt := 1; address == ""; attempt++ { // its port may be somebody's by the time it listens
		if address = launch(t, name, binary, data); address == "" && attempt == 3 {
			t.Fatalf("%s does not start", name)
		}
	}
	env := []string{"AWS_ACCESS_KEY_ID=" + user, "AWS_SECRET_ACCESS_KEY=" + password}
	for _, variable := range env {
		key, value, _ := strings.Cut(variable, "=")
		t.Setenv(key, value)
	}
	return Server{"s3://registry?region=us-east-1&endpoint=http://" + address, env}
}

// launch starts a server at a port that is free, and returns its address; none when it ended at once.
func launch(t *testing.T, name, binary, data string) (address string) {
	t.Helper()
	p, address := programs[name], proctest.FreeAddress(t)
	cmd := exec.Command(binary, p.args(address, data)...)
	cmd.Env = append(os.Environ(), p.env...)
	cmd.Env = append(cmd.Env, "HOME="+data)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var output strings.Builder
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("%s says:\n%s", name, output.String())
		}
	})
	if !ready(t, name, address, ended) {
		return ""
	}
	return address
}

// ready waits for an answer, or the server's end; that one without credentials is refused shows that
// requests are served.
func ready(t *testing.T, name, address string, ended <-chan struct{}) bool {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		response, err := http.Get("http://" + address + "/registry")
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusForbidden {
				return true
			}
		}
		select {
		case <-ended:
			return false
		case <-time.After(20 * time.Millisecond):
		}
	}
	t.Fatalf("%s does not answer after 30 s", name)
	return false
}
