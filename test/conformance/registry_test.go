package conformance

import (
	"bufio"
	"encoding/xml"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// suite is the distribution specification's own conformance program.
const suite = "github.com/opencontainers/distribution-spec/conformance@v0.0.0-20260831232431-97274622c111"

// The registry passes every test of the released specification and of the coming one, whether its content
// lies in a directory or in a bucket.
func TestRegistry(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	programs := filepath.Join(root, ".cache", "bin")
	install := exec.Command("go", "install", suite)
	install.Env = append(os.Environ(), "GOBIN="+programs, "CGO_ENABLED=0", "GOFLAGS=-mod=mod")
	install.Dir = t.TempDir()
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("install %s: %v\n%s", suite, err, out)
	}
	davit, judge := filepath.Join(root, "bin", "davit"), filepath.Join(programs, "conformance")
	t.Run("directory", func(t *testing.T) { conform(t, judge, serveRegistry(t, davit, t.TempDir())) })
	t.Run("bucket", func(t *testing.T) {
		server, err := exec.Command(filepath.Join(root, "test", "prepare-s3"), "versitygw").Output()
		if err != nil {
			t.Fatalf("prepare an S3 server: %v", err)
		}
		conform(t, judge, serveRegistry(t, davit, serveBucket(t, strings.TrimSpace(string(server)))))
	})
}

// serveBucket runs an S3 server until the test ends, and returns its bucket as a registry takes it.
func serveBucket(t *testing.T, server string) string {
	t.Helper()
	data, address := t.TempDir(), freeAddress(t)
	if err := os.Mkdir(filepath.Join(data, "registry"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "davit-test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "davit-test-secret")
	cmd := exec.Command(server, "--port", address, "--quiet", "posix", data)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY_ID=davit-test", "ROOT_SECRET_ACCESS_KEY=davit-test-secret")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	waitListening(t, address)
	return "s3://registry/davit?endpoint=http://" + address
}

func conform(t *testing.T, judge, address string) {
	for _, version := range []string{"stable", "dev"} {
		t.Run(version, func(t *testing.T) {
			results := t.TempDir()
			cmd := exec.Command(judge)
			cmd.Dir = results
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + results, "OCI_VERSION=" + version, "OCI_REGISTRY=" + address, "OCI_TLS=disabled", "OCI_RESULTS_DIR=" + results}
			out, err := cmd.CombinedOutput()
			passed, failed := count(t, filepath.Join(results, "junit.xml"))
			t.Logf("%d passed, %d failed", passed, len(failed))
			if err != nil || len(failed) > 0 || passed < 600 {
				t.Fatalf("failed: %s\n%v\n%s", strings.Join(failed, "\n"), err, out[max(0, len(out)-4000):])
			}
		})
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

func waitListening(t *testing.T, address string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if conn, err := net.Dial("tcp", address); err == nil {
			_ = conn.Close()
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	t.Fatalf("nothing listens at %s", address)
}

func serveRegistry(t *testing.T, davit, root string) string {
	t.Helper()
	address := freeAddress(t)
	cmd := exec.Command(davit, "registry", "serve", "--addr", address, "--root", root)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("registry: %v", err)
		}
	})
	go func() {
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			t.Log(lines.Text())
		}
	}()
	waitListening(t, address)
	return address
}

// count reads the leaves of the suite's report.
func count(t *testing.T, path string) (passed int, failed []string) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for decoder := xml.NewDecoder(file); ; {
		token, err := decoder.Token()
		if err != nil {
			return passed, failed
		}
		start, ok := token.(xml.StartElement)
		if !ok || start.Name.Local != "testcase" {
			continue
		}
		attributes := map[string]string{}
		for _, a := range start.Attr {
			attributes[a.Name.Local] = a.Value
		}
		switch attributes["status"] {
		case "passed":
			passed++
		case "skipped":
		default:
			failed = append(failed, attributes["classname"]+" "+attributes["name"])
		}
	}
}
