package server

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/registry/storage/dir"
)

// hasty is a registry that waits a second for its clients.
func hasty(t *testing.T) *fixture {
	t.Helper()
	f := start(t, nil)
	f.registry.patience = time.Second
	return f
}

// raw opens a connection and writes the lines of a request's head.
func (f *fixture) raw(lines ...string) net.Conn {
	f.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprint(conn, strings.Join(append(lines, "Host: registry", "", ""), "\r\n"))
	return conn
}

// answer reads a response and all that follows, to the connection's end when that comes.
func answer(t *testing.T, conn net.Conn) (status int, body string) {
	t.Helper()
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(content)
}

func (f *fixture) upload() (path string) {
	f.t.Helper()
	header, _ := f.want(202, "POST", "/v2/app/blobs/uploads/", nil)
	return header.Get("Location")
}

// A body that stands still ends the request, and what came of it counts.
func TestStalledBody(t *testing.T) {
	f := hasty(t)
	path := f.upload()
	conn := f.raw("PATCH "+path+" HTTP/1.1", "Content-Length: 100")
	io.WriteString(conn, "0123456789")
	if status, body := answer(t, conn); status != 408 || !strings.Contains(body, "after 10 bytes of the request's body no more came for 1s") {
		t.Errorf("status %d: %s", status, body)
	}
	if header, _ := f.want(204, "GET", path, nil); header.Get("Range") != "0-9" {
		t.Errorf("the upload has %s", header.Get("Range"))
	}
	conn = f.raw("PUT /v2/app/manifests/v1 HTTP/1.1", "Content-Length: 100")
	if status, body := answer(t, conn); status != 408 {
		t.Errorf("status %d: %s", status, body)
	}
}

// A body that nobody wants holds up nobody either.
func TestStalledUnwantedBody(t *testing.T) {
	f := hasty(t)
	conn := f.raw("POST /v2/_catalog HTTP/1.1", "Content-Length: 100")
	if status, body := answer(t, conn); status != 405 {
		t.Errorf("status %d: %s", status, body)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection is still there: %v", err)
	}
}

// Slow is not still: who sends and takes some all the time may take longer than anybody's patience.
func TestSlowClients(t *testing.T) {
	f := hasty(t)
	path := f.upload()
	conn := f.raw("PATCH "+path+" HTTP/1.1", "Content-Length: 100")
	for range 10 {
		time.Sleep(150 * time.Millisecond)
		io.WriteString(conn, "0123456789")
	}
	if status, body := answer(t, conn); status != 202 {
		t.Errorf("status %d: %s", status, body)
	}
	content := strings.Repeat("davit", 12<<20)
	blob := f.pushBlob("app", content)
	conn = f.raw("GET /v2/app/blobs/"+string(blob.Digest)+" HTTP/1.1", "Connection: close")
	conn.(*net.TCPConn).SetReadBuffer(64 << 10)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	h := blob.Digest.Hash()
	for {
		time.Sleep(25 * time.Millisecond)
		if _, err := io.CopyN(h, response.Body, 1<<20); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if oci.SumDigest(blob.Digest.Algorithm(), h) != blob.Digest {
		t.Error("the blob arrived damaged")
	}
}

// A client that does not take what it asked for is let go.
func TestStalledReader(t *testing.T) {
	f := hasty(t)
	blob := f.pushBlob("app", strings.Repeat("davit", 12<<20))
	conn := f.raw("GET /v2/app/blobs/"+string(blob.Digest)+" HTTP/1.1", "Connection: close")
	conn.(*net.TCPConn).SetReadBuffer(64 << 10)
	for deadline := time.Now().Add(30 * time.Second); f.registry.metrics.inFlight.Load() > 0 || f.registry.metrics.requestsOf("blob") == 0; {
		if time.Now().After(deadline) {
			t.Fatal("the request goes on")
		}
		time.Sleep(20 * time.Millisecond)
	}
	if n, err := io.Copy(io.Discard, conn); err == nil && n >= blob.Size {
		t.Errorf("%d bytes arrived", n)
	}
}

// requestsOf counts the finished requests of a route.
func (m *metrics) requestsOf(route string) (n int64) {
	m.requests.Range(func(key, value any) bool {
		if key.(requestKind).route == route {
			n += value.(*requestCount).count.Load()
		}
		return true
	})
	return n
}

// A manifest of 10 GB is refused before it came, one without end when it is too large.
func TestHugeManifest(t *testing.T) {
	f := hasty(t)
	conn := f.raw("PUT /v2/app/manifests/v1 HTTP/1.1", "Content-Length: 10000000000")
	if status, body := answer(t, conn); status != 413 || !strings.Contains(body, "SIZE_INVALID") {
		t.Errorf("status %d: %s", status, body)
	}
	conn = f.raw("PUT /v2/app/manifests/v1 HTTP/1.1", "Transfer-Encoding: chunked")
	sent, chunk := 0, []byte(fmt.Sprintf("%x\r\n%s\r\n", 1<<20, make([]byte, 1<<20)))
	var err error
	for ; err == nil && sent < 1<<10; sent++ {
		_, err = conn.Write(chunk)
	}
	if err == nil {
		t.Errorf("the registry has taken %d MiB", sent)
	}
}

// A full disk is said to be full, what is there is served, and there is a way back.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	root := t.TempDir()
	if err := syscall.Mount("tmpfs", root, "tmpfs", 0, "size=8m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(root, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	store, err := dir.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	registry := New(store, slog.New(slog.DiscardHandler), Options{})
	server := httptest.NewServer(registry)
	t.Cleanup(server.Close)
	f := &fixture{t, registry, store, root, server.URL}
	f.pushImage("app", "v1", "layer")
	path := f.upload()
	if _, body := f.want(507, "PATCH", path, bytes.NewReader(make([]byte, 16<<20))); !strings.Contains(body, "disk is full") {
		t.Errorf("answer %s", body)
	}
	if status, _, body := f.do("PUT", "/v2/app/manifests/v2", strings.NewReader(strings.Repeat(" ", 1<<20)+`{}`)); status >= 500 && status != 507 {
		t.Errorf("status %d: %s", status, body)
	}
	_, manifest := f.want(200, "GET", "/v2/app/manifests/v1", nil)
	layer := oci.DigestOf([]byte("layer"))
	if _, body := f.want(200, "GET", "/v2/app/blobs/"+string(layer), nil); body != "layer" || !strings.Contains(manifest, string(layer)) {
		t.Errorf("layer %q of %s", body, manifest)
	}
	f.want(204, "DELETE", path, nil)
	f.pushImage("app", "v2", strings.Repeat("more", 1<<18))
	f.want(200, "GET", "/v2/app/manifests/v2", nil)
}

func TestNoPlaceAtAll(t *testing.T) {
	l, err := listen("127.0.0.1:0", -1, slog.New(slog.DiscardHandler))
	if !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("listener %v, %v", l, err)
	}
}

// More clients than there are places wait for one, and a registry that is full can be stopped.
func TestCrowd(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := newCrowd(listener, 2, slog.New(slog.DiscardHandler))
	server := &http.Server{ConnState: c.leave, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "yes") })}
	served := make(chan error, 1)
	go func() { served <- server.Serve(c) }()
	f := &fixture{t: t, url: "http://" + listener.Addr().String()}
	ask := func() net.Conn { return f.raw("GET / HTTP/1.1") }
	first, second := ask(), ask()
	for _, conn := range []net.Conn{first, second} {
		if status, _ := answer(t, conn); status != 200 {
			t.Errorf("status %d", status)
		}
	}
	third := ask()
	third.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := third.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the third is answered: %v", err)
	}
	third.SetReadDeadline(time.Now().Add(time.Minute))
	first.Close()
	if status, body := answer(t, third); status != 200 || body != "yes" {
		t.Errorf("status %d: %s", status, body)
	}
	ask()
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}
