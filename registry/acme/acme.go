// Package acme has a registry's certificates made and renewed by an ACME server (RFC 8555) such as Let's
// Encrypt. The protocol is golang.org/x/crypto/acme/autocert's. What is kept lies in the registry's own
// store, so that any number of processes over one store have one account and one certificate for a host,
// and each answers the challenges of all:
//
//	secret/acme/account           the account's key (PEM)
//	secret/acme/kept/HOST         key (ECDSA) and chain (PEM)
//	secret/acme/kept/HOST+token   the certificate that answers a TLS-ALPN-01 challenge; also TOKEN+http-01
//	secret/acme/asking/HOST       one process is asking for the first certificate; the others wait
package acme

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"

	"davit/oci/errdefs"
	"davit/registry/storage"
)

// DefaultDirectory is Let's Encrypt.
const DefaultDirectory = acme.LetsEncryptURL

// Options says for whom certificates are, and by whom.
type Options struct {
	Hosts     []string      // names of this registry, as clients spell them; at least one
	Email     string        // where the ACME server writes to; may be empty
	Directory string        // URL of the ACME server's directory; empty: DefaultDirectory
	Client    *http.Client  // to reach it with; nil: http.DefaultClient
	Pause     time.Duration // after a certificate was refused; 0: 15 minutes, as Let's Encrypt has five attempts an hour
}

const (
	defaultPause = 15 * time.Minute
	askingLife   = 2 * time.Minute // after that another process asks
	lookAgain    = 250 * time.Millisecond
)

// Certificates hands out certificates, and asks for those that are missing or old.
type Certificates struct {
	o       Options
	records storage.Records
	log     *slog.Logger
	manager *autocert.Manager

	mu    sync.Mutex
	state map[string]attempt
}

// attempt is what came of the last one for a host.
type attempt struct {
	ready bool
	err   error
	again time.Time // when err is not nil
}

// New prepares for the hosts; nothing is asked of the ACME server yet.
func New(ctx context.Context, records storage.Records, o Options, log *slog.Logger) (*Certificates, error) {
	for i, host := range o.Hosts {
		o.Hosts[i] = strings.ToLower(host)
		if !strings.Contains(strings.Trim(host, "."), ".") || strings.ContainsAny(host, "*:/ ") || net.ParseIP(host) != nil {
			return nil, errdefs.Invalid("invalid host %q for a certificate: want a full name such as registry.example.com, without port or *", host)
		}
	}
	if o.Pause == 0 {
		o.Pause = defaultPause
	}
	key, err := accountKey(ctx, records)
	if err != nil {
		return nil, fmt.Errorf("keep the ACME account's key: %w", err)
	}
	c := &Certificates{o: o, records: records, log: log, state: map[string]attempt{}}
	directory := o.Directory
	if directory == "" {
		directory = DefaultDirectory
	}
	c.manager = &autocert.Manager{
		Prompt:     autocert.AcceptTOS,
		Cache:      kept{records, log},
		HostPolicy: c.check,
		Email:      o.Email,
		Client:     &acme.Client{Key: key, DirectoryURL: directory, HTTPClient: o.Client, UserAgent: "davit"},
	}
	return c, nil
}

// accountKey returns the key that all processes share; the first makes it.
func accountKey(ctx context.Context, records storage.Records) (crypto.Signer, error) {
	const name = "secret/acme/account"
	content, err := records.GetRecord(ctx, name)
	if errors.Is(err, errdefs.ErrNotFound) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			return nil, err
		}
		_, err = records.SwapRecord(ctx, name, storage.Absent, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
		if err != nil && !errors.Is(err, errdefs.ErrConflict) {
			return nil, err
		}
		content, err = records.GetRecord(ctx, name)
		if err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(content)
	if block == nil {
		return nil, fmt.Errorf("%s is not PEM", name)
	}
	return x509.ParseECPrivateKey(block.Bytes)
}

// TLSConfig serves the certificates and answers TLS-ALPN-01 challenges (RFC 8737).
func (c *Certificates) TLSConfig() *tls.Config {
	return &tls.Config{GetCertificate: c.get, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1", acme.ALPNProto}}
}

// ChallengeHandler answers HTTP-01 challenges, on port 80, and sends everybody else to https. It must be
// made before anything is served.
func (c *Certificates) ChallengeHandler() http.Handler {
	answer := c.manager.HTTPHandler(nil)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if name, _, err := net.SplitHostPort(r.Host); err == nil {
			r.Host = name // who forwards port 80 may have put in another
		}
		answer.ServeHTTP(w, r)
	})
}

// check is an autocert.HostPolicy.
func (c *Certificates) check(_ context.Context, host string) error {
	if !slices.Contains(c.o.Hosts, host) {
		return errdefs.NotFound("there is no certificate for %q: this registry is called %s", host, strings.Join(c.o.Hosts, ", "))
	}
	return nil
}

func (c *Certificates) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if slices.Equal(hello.SupportedProtos, []string{acme.ALPNProto}) {
		return c.manager.GetCertificate(hello)
	}
	return c.obtain(hello.Context(), strings.ToLower(strings.TrimSuffix(hello.ServerName, ".")))
}

// obtain returns the host's certificate, and has it made when there is none yet. It has an ECDSA key for
// everybody: a client cannot have another one asked for, and refused in everybody's name, by knowing RSA
// alone.
func (c *Certificates) obtain(ctx context.Context, host string) (*tls.Certificate, error) {
	if err := c.check(ctx, host); err != nil {
		return nil, err
	}
	hello := modernHello(host)
	if c.last(host).ready {
		return c.manager.GetCertificate(hello)
	}
	asking, err := c.await(ctx, host)
	if err != nil {
		return nil, err
	}
	pair, err := c.manager.GetCertificate(hello)
	c.note(host, err)
	if asking != storage.Absent {
		err = errors.Join(err, ignoreConflict(c.records.RemoveRecord(context.WithoutCancel(ctx), askingKey(host), asking)))
	}
	return pair, err
}

func askingKey(host string) string { return "secret/acme/asking/" + host }

func (c *Certificates) last(host string) attempt {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state[host]
}

func (c *Certificates) note(host string, err error) {
	next := attempt{ready: err == nil}
	if err != nil {
		next.again = time.Now().Add(c.o.Pause)
		next.err = fmt.Errorf("no certificate for %s, next attempt at %s: %w", host, next.again.UTC().Format(time.RFC3339), err)
		c.log.Error("the ACME server gave no certificate", "host", host, "next", next.again, "error", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state[host] = next
}

// await returns when there is a certificate, or when this process is to ask for one: then asking is the
// version of the record that says so. One that was refused lately is not asked for.
func (c *Certificates) await(ctx context.Context, host string) (asking storage.Version, err error) {
	for {
		if last := c.last(host); last.err != nil && time.Now().Before(last.again) {
			return storage.Absent, last.err
		}
		content, err := c.records.GetRecord(ctx, keptKey(host))
		if ignoreNotFound(err) != nil || time.Now().Before(expiry(content)) {
			return storage.Absent, ignoreNotFound(err)
		}
		other, err := c.records.ReadRecord(ctx, askingKey(host))
		if ignoreNotFound(err) != nil {
			return storage.Absent, err
		}
		if err != nil || time.Since(other.Put) > askingLife {
			asking, err := c.records.SwapRecord(ctx, askingKey(host), other.Version, nil)
			if !errors.Is(err, errdefs.ErrConflict) {
				return asking, err
			}
		}
		select {
		case <-ctx.Done():
			return storage.Absent, ctx.Err()
		case <-time.After(lookAgain):
		}
	}
}

func ignoreConflict(err error) error {
	if errors.Is(err, errdefs.ErrConflict) || errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	return err
}

func ignoreNotFound(err error) error {
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	return err
}
