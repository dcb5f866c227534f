// Package registrytest runs Debian's docker-registry (distribution 2.8) on loopback for tests, and puts
// a proxy before it that breaks things on purpose.
package registrytest

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"davit/internal/proctest"
)

// Options configures a registry. The zero value is one without authentication.
type Options struct {
	Auth string // the YAML of the section "auth", each line indented; empty: none
}

// Start runs a registry until the test ends, and returns its host:port.
func Start(t testing.TB, o Options) string {
	t.Helper()
	dir := t.TempDir()
	address := proctest.FreeAddress(t)
	config := fmt.Sprintf("version: 0.1\nlog: {level: info, accesslog: {disabled: true}}\nstorage:\n  filesystem: {rootdirectory: %s}\n  delete: {enabled: true}\nhttp: {addr: %q}\n%s",
		filepath.Join(dir, "data"), address, o.Auth)
	path := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("docker-registry", "serve", path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	output, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start docker-registry: %v", err)
	}
	drained := make(chan struct{})
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-drained
		cmd.Wait()
	})
	listening := make(chan bool, 1)
	go func() {
		defer close(drained)
		lines := bufio.NewScanner(output)
		for lines.Scan() {
			if strings.Contains(lines.Text(), "listening on") {
				listening <- true
			}
		}
		close(listening)
	}()
	select {
	case ok := <-listening:
		if !ok {
			t.Fatal("docker-registry ended before it listened")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("docker-registry does not listen after 20 s")
	}
	return address
}

// Proxy forwards to a registry, unless a fault applies.
type Proxy struct {
	Host string // of the proxy itself

	mu     sync.Mutex
	faults []*Fault
	sent   int64 // bytes of blob bodies that went to clients
	log    []string
}

// Fault is one thing that goes wrong, Times times.
type Fault struct {
	Method string // empty: any
	Path   string // a part of the path
	Times  int

	Status   int         // answer with this status
	Header   http.Header // and these headers
	Truncate int64       // close the connection after so many bytes of the body
	Corrupt  bool        // change a byte of the body
	Stall    bool        // send half of the headers' promise and then nothing, until the client leaves
	NoRange  bool        // ignore the Range header

	HoldAt int64           // after so many bytes of the body
	Hold   <-chan struct{} // wait until this is closed, or the client leaves
}

// StartProxy runs a proxy before the registry at host:port until the test ends.
func StartProxy(t testing.TB, registry string) *Proxy {
	t.Helper()
	p := &Proxy{}
	forward := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: registry})
	// A stall ends when the client gives up: the server's own patience is no part of the test.
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.serve(w, r, forward) }))
	t.Cleanup(server.Close)
	p.Host = strings.TrimPrefix(server.URL, "http://")
	return p
}

// Add makes a fault happen from now on.
func (p *Proxy) Add(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = append(p.faults, &f)
}

// Sent returns how many bytes of blobs went to clients, and starts the count anew.
func (p *Proxy) Sent() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.sent
	p.sent = 0
	return n
}

// Requests returns "METHOD path" of all requests so far, and starts the list anew.
func (p *Proxy) Requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	log := p.log
	p.log = nil
	return log
}

func (p *Proxy) take(r *http.Request) *Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = append(p.log, r.Method+" "+r.URL.Path)
	for _, f := range p.faults {
		if f.Times > 0 && strings.Contains(r.URL.Path, f.Path) && (f.Method == "" || f.Method == r.Method) {
			f.Times--
			return f
		}
	}
	return &Fault{Truncate: 0}
}

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request, forward http.Handler) {
	f := p.take(r)
	if f.NoRange {
		r.Header.Del("Range")
	}
	if f.Status != 0 {
		for key, values := range f.Header {
			w.Header()[key] = values
		}
		w.WriteHeader(f.Status)
		return
	}
	if f.Stall && r.Method == http.MethodHead {
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	}
	out := &body{ResponseWriter: w, proxy: p, fault: f, request: r}
	if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") {
		out.uncounted = true
	}
	forward.ServeHTTP(out, r)
}

// body applies a fault to a response's body.
type body struct {
	http.ResponseWriter
	proxy     *Proxy
	fault     *Fault
	request   *http.Request
	written   int64
	uncounted bool
}

// Write implements io.Writer. A truncation ends the connection by panic, as net/http wants it.
func (b *body) Write(p []byte) (int, error) {
	if b.fault.Corrupt && b.written == 0 && len(p) > 0 {
		p = append([]byte{p[0] ^ 0xff}, p[1:]...)
	}
	limit := b.fault.Truncate
	if b.fault.Stall {
		limit = 1
	}
	if f := b.fault; f.Hold != nil && b.written+int64(len(p)) > f.HoldAt {
		return b.hold(p)
	}
	if limit > 0 && b.written+int64(len(p)) > limit {
		b.send(p[:limit-b.written])
		b.ResponseWriter.(http.Flusher).Flush()
		if b.fault.Stall {
			<-b.request.Context().Done()
		}
		panic(http.ErrAbortHandler)
	}
	return b.send(p)
}

// hold sends a part, waits, and sends the rest.
func (b *body) hold(p []byte) (int, error) {
	first, err := b.send(p[:b.fault.HoldAt-b.written])
	if err != nil {
		return first, err
	}
	b.ResponseWriter.(http.Flusher).Flush()
	select {
	case <-b.fault.Hold:
		b.fault.Hold = nil
	case <-b.request.Context().Done():
		panic(http.ErrAbortHandler)
	}
	rest, err := b.Write(p[first:])
	return first + rest, err
}

func (b *body) send(p []byte) (int, error) {
	n, err := b.ResponseWriter.Write(p)
	b.written += int64(n)
	if !b.uncounted {
		b.proxy.mu.Lock()
		b.proxy.sent += int64(n)
		b.proxy.mu.Unlock()
	}
	return n, err
}

var _ io.Writer = (*body)(nil)
