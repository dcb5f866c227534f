// Package acmetest runs Pebble, Let's Encrypt's ACME server for tests, on loopback, as test/prepare-acme
// builds it. Every host name lies on 127.0.0.1 for it.
package acmetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
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

// Options says where Pebble looks for answers to challenges.
type Options struct {
	TLSPort  int           // of TLS-ALPN-01
	HTTPPort int           // of HTTP-01
	Life     time.Duration // of certificates, in whole seconds; 0: 90 days
}

// Server is a running Pebble.
type Server struct {
	Directory string         // URL
	CAFile    string         // PEM: who signed the certificate of Pebble's own address, for a process's SSL_CERT_FILE
	Client    *http.Client   // trusts that one
	Issued    *x509.CertPool // the root of the certificates that Pebble makes
	Root      []byte         // the same, PEM

	output *proctest.Output
}

// Orders returns how many certificates were ordered so far.
func (s *Server) Orders() int {
	return strings.Count(s.output.String(), "Added order ")
}

// Accounts returns how many accounts there are.
func (s *Server) Accounts() int {
	return strings.Count(s.output.String(), " accounts in memory")
}

// Start runs Pebble until the test ends.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	programs := proctest.Prepare(t, "prepare-acme")
	dir := t.TempDir()
	s := &Server{CAFile: filepath.Join(dir, "cert.pem"), output: &proctest.Output{}}
	pair(t, s.CAFile, filepath.Join(dir, "key.pem"))
	names, address, manage := proctest.FreeAddress(t), proctest.FreeAddress(t), proctest.FreeAddress(t)
	if o.HTTPPort == 0 {
		o.HTTPPort = 1
	}
	if o.Life == 0 {
		o.Life = 90 * 24 * time.Hour
	}
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": address, "managementListenAddress": manage,
		"certificate": s.CAFile, "privateKey": filepath.Join(dir, "key.pem"),
		"tlsPort": o.TLSPort, "httpPort": o.HTTPPort, "keyAlgorithm": "ecdsa",
		"retryAfter": map[string]int{"authz": 1, "order": 1},
		"profiles":   map[string]any{"default": map[string]any{"description": "the only one", "validityPeriod": int(o.Life.Seconds())}},
	}})
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "config.json"), config, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	run(t, &proctest.Output{}, filepath.Join(programs, "pebble-challtestsrv"), "-dnsserver", names, "-management", proctest.FreeAddress(t),
		"-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "", "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "")
	run(t, s.output, filepath.Join(programs, "pebble"), "-config", filepath.Join(dir, "config.json"), "-dnsserver", names)
	trusted, err := os.ReadFile(s.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(trusted)
	s.Directory = "https://" + address + "/dir"
	s.Client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}}
	waitFor(t, s.Client, s.Directory)
	s.Root = waitFor(t, s.Client, "https://"+manage+"/roots/0")
	s.Issued = x509.NewCertPool()
	s.Issued.AppendCertsFromPEM(s.Root)
	return s
}

func run(t testing.TB, out *proctest.Output, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s says:\n%s", filepath.Base(program), out.String())
		}
	})
}

// waitFor returns what is at an address once it answers.
func waitFor(t testing.TB, client *http.Client, url string) []byte {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); <-time.After(20 * time.Millisecond) {
		response, err := client.Get(url)
		if err != nil {
			continue
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err == nil && response.StatusCode == http.StatusOK {
			return body
		}
	}
	t.Fatalf("%s does not answer after 20 s", url)
	return nil
}

// pair makes the certificate of Pebble's own address.
func pair(t testing.TB, cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "pebble"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
