package acme

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"davit/internal/acmetest"
	"davit/internal/proctest"
	"davit/internal/s3test"
	"davit/oci/errdefs"
	"davit/registry/storage"
	"davit/registry/storage/bucket"
	"davit/registry/storage/dir"
)

const host = "registry.test"

// place listens, and serves certificates for the host by TLS.
type place struct {
	t        *testing.T
	listener net.Listener
	certs    *Certificates
	log      *proctest.Output
}

func openListener(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

func port(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

func serve(t *testing.T, listener net.Listener, store storage.Records, o Options) *place {
	t.Helper()
	p := &place{t: t, listener: listener, log: &proctest.Output{}}
	var err error
	p.certs, err = New(t.Context(), store, o, slog.New(slog.NewTextHandler(io.MultiWriter(p.log, t.Output()), nil)))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		Handler:  http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "served") }),
		ErrorLog: slog.NewLogLogger(slog.NewTextHandler(t.Output(), nil), slog.LevelWarn),
	}
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(tls.NewListener(listener, p.certs.TLSConfig())) }()
	t.Cleanup(func() { server.Close(); <-done })
	return p
}

// leaf returns the certificate that a client sees, checked against the roots.
func (p *place) leaf(roots *x509.CertPool) (*x509.Certificate, error) {
	conn, err := tls.Dial("tcp", p.listener.Addr().String(), &tls.Config{ServerName: host, RootCAs: roots})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0], nil
}

func openStore(t *testing.T, path string) storage.Store {
	t.Helper()
	store, err := dir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// Of four processes over one store one asks, whichever the challenge comes to answers it, and all serve the
// certificate; so does one that starts later, without asking anybody.
func TestProcessesShareACertificate(t *testing.T) {
	t.Run("directory", func(t *testing.T) {
		path := t.TempDir()
		share(t, func() storage.Records { return openStore(t, path) })
	})
	t.Run("bucket", func(t *testing.T) {
		root := s3test.Start(t, "versitygw").Root
		share(t, func() storage.Records {
			store, err := bucket.Open(t.Context(), root)
			if err != nil {
				t.Fatal(err)
			}
			return store
		})
	})
}

func share(t *testing.T, open func() storage.Records) {
	first := openListener(t)
	pebble := acmetest.Start(t, acmetest.Options{TLSPort: port(first)})
	o := Options{Hosts: []string{"Registry.Test"}, Email: "ada@example.com", Directory: pebble.Directory, Client: pebble.Client}
	// What is left of long ago is as good as nothing.
	if err := open().PutRecord(t.Context(), keptKey(host), expired(t)); err != nil {
		t.Fatal(err)
	}
	var all []*place
	for i := range 4 {
		listener := first
		if i > 0 {
			listener = openListener(t)
		}
		all = append(all, serve(t, listener, open(), o))
	}
	seen := make(chan string, len(all))
	for _, p := range all {
		go func() {
			leaf, err := p.leaf(pebble.Issued)
			if err != nil {
				seen <- err.Error()
				return
			}
			seen <- leaf.SerialNumber.String()
		}()
	}
	serial := <-seen
	for range len(all) - 1 {
		if other := <-seen; other != serial {
			t.Errorf("one process has %s, another %s", serial, other)
		}
	}
	if orders, accounts := pebble.Orders(), pebble.Accounts(); orders != 1 || accounts != 1 {
		t.Errorf("%d orders by %d accounts, want one", orders, accounts)
	}
	o.Directory = "https://127.0.0.1:1/dir"
	late := serve(t, openListener(t), open(), o)
	if leaf, err := late.leaf(pebble.Issued); err != nil || leaf.SerialNumber.String() != serial {
		t.Errorf("a later process: %v, %v", leaf, err)
	}
	if _, err := tls.Dial("tcp", late.listener.Addr().String(), &tls.Config{ServerName: "other.test", RootCAs: pebble.Issued}); err == nil {
		t.Error("a host that is not the registry's has a certificate")
	}
}

// Keep has the certificate made before a client comes; it is renewed while the process runs.
func TestRenewal(t *testing.T) {
	t.Parallel()
	listener := openListener(t)
	pebble := acmetest.Start(t, acmetest.Options{TLSPort: port(listener), Life: 9 * time.Second})
	p := serve(t, listener, openStore(t, t.TempDir()), Options{Hosts: []string{host}, Directory: pebble.Directory, Client: pebble.Client})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); p.certs.Keep(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	first, err := p.leaf(pebble.Issued)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); ; <-time.After(100 * time.Millisecond) {
		leaf, err := p.leaf(pebble.Issued)
		if err == nil && leaf.SerialNumber.Cmp(first.SerialNumber) != 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("still the same certificate, which ended at %s: %v", first.NotAfter, err)
		}
	}
}

// The challenge may come to port 80 instead.
func TestHTTPChallenge(t *testing.T) {
	t.Parallel()
	web := openListener(t)
	pebble := acmetest.Start(t, acmetest.Options{TLSPort: 1, HTTPPort: port(web)})
	p := serve(t, openListener(t), openStore(t, t.TempDir()), Options{Hosts: []string{host}, Directory: pebble.Directory, Client: pebble.Client})
	server := &http.Server{Handler: p.certs.ChallengeHandler()}
	go server.Serve(web)
	t.Cleanup(func() { server.Close() })
	if _, err := p.leaf(pebble.Issued); err != nil {
		t.Fatal(err)
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Get("http://" + web.Addr().String() + "/v2/")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if to := response.Header.Get("Location"); to != "https://127.0.0.1/v2/" {
		t.Errorf("plain HTTP is sent to %q", to)
	}
}

// A host that the ACME server cannot reach: the log says why, and the ACME server is left in peace for a
// while, whatever clients ask for.
func TestRefusal(t *testing.T) {
	t.Parallel()
	pebble := acmetest.Start(t, acmetest.Options{TLSPort: 1})
	path := t.TempDir()
	p := serve(t, openListener(t), openStore(t, path), Options{Hosts: []string{host}, Directory: pebble.Directory, Client: pebble.Client})
	for range 3 {
		if _, err := p.leaf(pebble.Issued); err == nil {
			t.Fatal("there is a certificate")
		}
	}
	for _, want := range []string{"the ACME server gave no certificate", "host=" + host, "next="} {
		if !strings.Contains(p.log.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, p.log)
		}
	}
	orders := pebble.Orders()
	if _, err := p.leaf(pebble.Issued); err == nil || pebble.Orders() != orders {
		t.Errorf("asked again: %d orders, then %d", orders, pebble.Orders())
	}
	if left, err := openStore(t, path).ListRecords(t.Context(), "secret/acme/asking"); err != nil || len(left) > 0 {
		t.Errorf("still asking: %v, %v", left, err)
	}
}

// A client that knows RSA alone gets no certificate of its own, and spoils nothing for the others.
func TestOldClient(t *testing.T) {
	t.Parallel()
	listener := openListener(t)
	pebble := acmetest.Start(t, acmetest.Options{TLSPort: port(listener)})
	p := serve(t, listener, openStore(t, t.TempDir()), Options{Hosts: []string{host}, Directory: pebble.Directory, Client: pebble.Client})
	for range 2 {
		old := &tls.Config{ServerName: host, RootCAs: pebble.Issued, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}}
		if _, err := tls.Dial("tcp", p.listener.Addr().String(), old); err == nil {
			t.Error("it has a certificate")
		}
		if _, err := p.leaf(pebble.Issued); err != nil {
			t.Error(err)
		}
	}
	if n := pebble.Orders(); n != 1 {
		t.Errorf("%d orders, want 1", n)
	}
}

// A process that died while it asked holds nobody up for long.
func TestAskingEnds(t *testing.T) {
	t.Parallel()
	store := openStore(t, t.TempDir())
	c, err := New(t.Context(), store, Options{Hosts: []string{host}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if asking, err := c.await(t.Context(), host); err != nil || asking == storage.Absent {
		t.Fatalf("the first does not ask: %q, %v", asking, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*lookAgain)
	defer cancel()
	if _, err := c.await(ctx, host); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the second does not wait: %v", err)
	}
}

func TestHostsAreChecked(t *testing.T) {
	for _, bad := range []string{"registry", "*.example.com", "registry.test:5000", "", "https://a.b", "127.0.0.1"} {
		_, err := New(t.Context(), openStore(t, t.TempDir()), Options{Hosts: []string{bad}}, slog.New(slog.DiscardHandler))
		if !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// expired is a certificate as it is kept, that ended a day ago.
func expired(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(7), DNSNames: []string{host}, NotAfter: time.Now().Add(-24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
}
