package client

import (
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"davit/oci/errdefs"
	"davit/registry/auth"
)

// TestCertificates asks a registry whose certificate no system knows, as one that is not on loopback
// would be: without its authority, with it, and with the check off.
func TestCertificates(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "{}") }))
	defer server.Close()
	address, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	dirs := t.TempDir()
	c, err := New(Options{CertDirs: []string{filepath.Join(dirs, "absent"), dirs}})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(insecure bool) error {
		e, err := c.endpoint(address.Host, insecure, auth.Credentials{}, address)
		if err != nil {
			return err
		}
		defer e.http.CloseIdleConnections()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/v2/", nil)
		if err != nil {
			return err
		}
		resp, err := e.send(t.Context(), req, nil)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	}
	if err := ask(false); !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(err.Error(), "is not trusted") || retryable(err) {
		t.Errorf("unknown authority: %v", err)
	}
	if err := ask(true); err != nil {
		t.Errorf("insecure: %v", err)
	}
	dir := filepath.Join(dirs, address.Host)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), authority, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ask(false); err != nil {
		t.Errorf("known authority: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bad.crt"), []byte("no PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ask(false); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("broken certificate file: %v", err)
	}
}

func TestInsecure(t *testing.T) {
	c, err := New(Options{Insecure: []string{"plain.example", "port.example:5000", "10.1.0.0/16"}})
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]bool{
		"localhost": true, "localhost:5000": true, "127.3.2.1:80": true, "[::1]:5000": true,
		"plain.example": true, "plain.example:5000": true, "port.example:5000": true, "10.1.2.3:5000": true,
		"192.0.2.1:5000": false, "10.2.0.1": false,
	} {
		if got := c.insecure(host); got != want {
			t.Errorf("insecure(%s) = %v", host, got)
		}
	}
	if _, err := New(Options{Insecure: []string{"http://x"}}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("New with a URL as insecure registry: %v", err)
	}
}
