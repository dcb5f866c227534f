package bucket

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"davit/internal/s3test"
	"davit/registry/storage/storagetest"
)

// workRoot, when set, makes the test program the process that is killed: it works on that bucket.
const workRoot = "DAVIT_STORAGE_WORK_ROOT"

func TestMain(m *testing.M) {
	root := os.Getenv(workRoot)
	if root == "" {
		os.Exit(m.Run())
	}
	store, err := Open(context.Background(), root)
	if err == nil {
		err = storagetest.Work(context.Background(), store, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// killer forwards a process's requests to the store, and kills the process when the store has done one of
// them, before it hears of it.
type killer struct {
	forward *httputil.ReverseProxy
	at      int

	mu      sync.Mutex
	seen    int
	process *os.Process
}

// ServeHTTP implements http.Handler.
func (k *killer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.seen++
	k.forward.ServeHTTP(w, r)
	if k.seen == k.at {
		k.process.Kill()
	}
}

func TestKilledAtEachRequest(t *testing.T) {
	server := s3test.Start(t, "minio")
	p := &places{server: server}
	n := 1
	for killedAt(t, p, n) {
		n++
	}
	if t.Logf("killed at each of %d requests", n-1); n < 40 {
		t.Fatal("too few: the work makes more requests")
	}
}

// killedAt kills the work at its nth request, and says whether it got there.
func killedAt(t *testing.T, p *places, n int) bool {
	t.Helper()
	root := p.next()
	u, err := url.Parse(root)
	if err != nil {
		t.Fatal(err)
	}
	endpoint, err := url.Parse(u.Query().Get("endpoint"))
	if err != nil {
		t.Fatal(err)
	}
	k := &killer{at: n, forward: httputil.NewSingleHostReverseProxy(endpoint)} // keeps the Host, which is signed
	proxy := httptest.NewServer(k)
	defer proxy.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), workRoot+"="+strings.Replace(root, endpoint.String(), proxy.URL, 1))
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	k.mu.Lock()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	k.process = cmd.Process
	k.mu.Unlock()
	waitErr := cmd.Wait()
	if stderr.Len() > 0 {
		t.Fatalf("request %d: %s", n, stderr.String())
	}
	store := open(t, root)
	storagetest.Survived(t, store, []byte(stdout.String()))
	wantNothingHalfDone(t, store)
	if t.Failed() {
		t.Fatalf("killed at request %d after:\n%s", n, stdout.String())
	}
	return waitErr != nil
}

// wantNothingHalfDone looks past the interface: expiry has left no upload, no empty cell, and no data but
// what content has.
func wantNothingHalfDone(t *testing.T, store *Store) {
	t.Helper()
	content, data := 0, 0
	err := store.list(t.Context(), "", true, func(o listed) error {
		switch {
		case strings.HasPrefix(o.key, "content/"):
			content++
		case strings.HasPrefix(o.key, "data/"):
			data++
		case strings.HasPrefix(o.key, "uploads/"):
			t.Errorf("%s is left", o.key)
		}
		if o.size < cellHead && !strings.HasPrefix(o.key, "data/") {
			t.Errorf("%s is left, with %d bytes", o.key, o.size)
		}
		return nil
	})
	if err != nil || content != data {
		t.Errorf("%d contents, %d objects of data, %v", content, data, err)
	}
}
