package server

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"davit/internal/registrytest"
	"davit/registry/cache"
)

// cacheRoot, when set, makes the test program the registry that is killed: over that root, at cacheAddr, a
// cache of cacheUpstream.
const (
	cacheRoot     = "DAVIT_CACHE_ROOT"
	cacheAddr     = "DAVIT_CACHE_ADDR"
	cacheUpstream = "DAVIT_CACHE_UPSTREAM"
)

func TestMain(m *testing.M) {
	root := os.Getenv(cacheRoot)
	if root == "" {
		os.Exit(m.Run())
	}
	err := Serve(context.Background(), Config{
		Root: root, Addr: os.Getenv(cacheAddr), Upstreams: []cache.Upstream{{Name: "up.example", URL: os.Getenv(cacheUpstream)}},
	}, discarded())
	if err != nil {
		os.Exit(1)
	}
}

// startProcess runs a cache in a process of its own and waits until it answers.
func startProcess(t *testing.T, root, addr, upstream string) *os.Process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), cacheRoot+"="+root, cacheAddr+"="+addr, cacheUpstream+"="+upstream)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(10 * time.Millisecond) {
		if response, err := http.Get("http://" + addr + "/healthz"); err == nil {
			response.Body.Close()
			return cmd.Process
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// A cache that is killed in the middle of a fetch has lost nothing of what it gave its readers, and goes on
// from there; what it had was not believed by any of them to be all.
func TestKilledCacheGoesOn(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	listener.Close()
	root, layer := t.TempDir(), noise(2_000_000)
	u := cacheOf(t, upstreamKinds["docker-registry"](t), nil)
	u.push("app", "v1", layer)
	process := startProcess(t, root, addr, "http://"+u.proxy.Host)
	f := &fixture{t: t, url: "http://" + addr}
	f.want(200, "GET", "/v2/up.example/app/manifests/v1", nil)
	path := blobPath("up.example/app", layer)
	u.proxy.Add(registrytest.Fault{Method: "GET", Path: "/blobs/", Times: 1, HoldAt: 1_500_000, Hold: make(chan struct{})})
	response, err := http.Get(f.url + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if _, err := io.ReadFull(response.Body, make([]byte, 1_500_000)); err != nil {
		t.Fatal(err)
	}
	if err := process.Kill(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(response.Body); err == nil {
		t.Errorf("the reader was told that it has all after %d bytes more", len(rest))
	}
	u.proxy.Sent()
	startProcess(t, root, addr, "http://"+u.proxy.Host)
	if _, body := f.want(200, "GET", path, nil); body != layer {
		t.Error("other bytes came")
	}
	if sent := u.proxy.Sent(); sent != 500_000 {
		t.Errorf("the upstream sent %d bytes for the rest of 500000", sent)
	}
	if left, err := filepath.Glob(filepath.Join(root, "uploads", "*")); err != nil || len(left) > 0 {
		t.Errorf("uploads are left: %q", left)
	}
}
