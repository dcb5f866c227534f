package main

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"davit/internal/acmetest"
	"davit/oci"
)

// everywhere is a proxy for CONNECT that takes every name for this machine's, as /etc/hosts would.
func everywhere(t *testing.T) string {
	t.Helper()
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, port, err := net.SplitHostPort(r.Host)
		if err != nil || r.Method != http.MethodConnect {
			http.Error(w, "CONNECT only", http.StatusBadRequest)
			return
		}
		there, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", port))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer there.Close()
		here, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer here.Close()
		io.WriteString(here, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { io.Copy(there, here); there.Close() }()
		io.Copy(here, there)
	}))
	t.Cleanup(proxy.Close)
	return proxy.URL
}

// A registry that nobody gave a certificate is pushed to and pulled from by its name, over TLS.
func TestCertificateFromACME(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	address := l.Addr().String()
	l.Close()
	pebble := acmetest.Start(t, acmetest.Options{TLSPort: port})
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SSL_CERT_FILE="+pebble.CAFile, registryArgs+"="+strings.Join([]string{
		"serve", "--addr", address, "--root", t.TempDir(), "--acme-host", "registry.test", "--acme-email", "ada@example.com", "--acme-directory", pebble.Directory,
	}, " "))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var output bytes.Buffer
	cmd.Stderr = &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop := func() error {
		stopped = true
		cmd.Process.Signal(syscall.SIGTERM)
		return cmd.Wait()
	}
	t.Cleanup(func() {
		if !stopped {
			stop()
		}
		if t.Failed() {
			t.Log(output.String())
		}
	})
	waitCertificate(t, address, &tls.Config{ServerName: "registry.test", RootCAs: pebble.Issued})

	trusted := filepath.Join(t.TempDir(), "root.pem")
	if err := os.WriteFile(trusted, pebble.Root, 0o600); err != nil {
		t.Fatal(err)
	}
	proxy := everywhere(t)
	name := "registry.test:" + address[strings.LastIndexByte(address, ':')+1:] + "/team/app"
	client := func(program string, env []string, args ...string) string {
		t.Helper()
		cmd := exec.Command(program, args...)
		cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+t.TempDir(), "SSL_CERT_FILE="+trusted, "HTTPS_PROXY="+proxy)
		cmd.Env = append(cmd.Env, env...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", program, args, err, out)
		}
		return string(out)
	}
	image, digest := layout(t, 100, 3<<20)
	client("skopeo", nil, "copy", "--preserve-digests", "oci:"+image, "docker://"+name+":v1")
	if out := client("skopeo", nil, "inspect", "--raw", "docker://"+name+":v1"); oci.DigestOf([]byte(out)) != digest {
		t.Errorf("pulled %s", out)
	}
	if out := client(os.Args[0], []string{registryArgs + "=tags " + name}); out != "v1\n" {
		t.Errorf("davit sees tags %q", out)
	}
	if err := stop(); err != nil {
		t.Errorf("the registry ends with %v", err)
	}
}

func waitCertificate(t *testing.T, address string, config *tls.Config) {
	t.Helper()
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); <-time.After(50 * time.Millisecond) {
		var conn *tls.Conn
		if conn, err = tls.Dial("tcp", address, config); err == nil {
			conn.Close()
			return
		}
	}
	t.Fatalf("no certificate after 30 s: %v", err)
}

// Two places for certificates, or half of one, are a mistake that is told.
func TestCertificateFlags(t *testing.T) {
	for want, args := range map[string][]string{
		"say one of them":        {"--acme-host", "registry.test", "--tls-cert", "c", "--tls-key", "k"},
		"--acme-host is missing": {"--acme-email", "ada@example.com"},
		"want a full name":       {"--acme-host", "registry"},
	} {
		err := serveRegistry(t.Context(), append([]string{"serve", "--addr", "127.0.0.1:0", "--root", t.TempDir()}, args...), io.Discard, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
}
