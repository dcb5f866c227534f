package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/acme/autocert"

	"davit/oci/errdefs"
	"davit/registry/storage"
)

// kept is an autocert.Cache over the registry's records.
type kept struct {
	records storage.Records
	log     *slog.Logger
}

func keptKey(name string) string { return "secret/acme/kept/" + name }

// Get implements autocert.Cache.
func (k kept) Get(ctx context.Context, name string) ([]byte, error) {
	content, err := k.records.GetRecord(ctx, keptKey(name))
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil, autocert.ErrCacheMiss
	}
	return content, err
}

// Put implements autocert.Cache.
func (k kept) Put(ctx context.Context, name string, content []byte) error {
	if err := k.records.PutRecord(ctx, keptKey(name), content); err != nil {
		k.log.Error("a certificate could not be kept", "name", name, "error", err) // autocert does not say it
		return err
	}
	if end := expiry(content); !strings.HasSuffix(name, "+token") && !end.IsZero() {
		k.log.Info("the ACME server gave a certificate", "name", name, "until", end)
	}
	return nil
}

// Delete implements autocert.Cache.
func (k kept) Delete(ctx context.Context, name string) error {
	return ignoreNotFound(k.records.DeleteRecord(ctx, keptKey(name)))
}

// expiry returns when the first certificate ends, or the zero time.
func expiry(content []byte) time.Time {
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			if leaf, err := x509.ParseCertificate(block.Bytes); err == nil {
				return leaf.NotAfter
			}
		}
	}
	return time.Time{}
}

// Keep asks for the certificates that are missing before a client has to wait for them, and complains of
// those that should have been renewed by now, until ctx ends. The listener must be open.
func (c *Certificates) Keep(ctx context.Context) {
	var hosts sync.WaitGroup
	for _, host := range c.o.Hosts {
		hosts.Go(func() {
			for ctx.Err() == nil {
				pair, err := c.obtain(ctx, host)
				pause := c.o.Pause
				if err == nil {
					pause = c.overdue(host, pair.Leaf)
				}
				select {
				case <-ctx.Done():
				case <-time.After(pause):
				}
			}
		})
	}
	hosts.Wait()
}

// overdue returns when to look at a certificate again. A third of its life before it ends autocert renews
// it, and tells nobody when it cannot.
func (c *Certificates) overdue(host string, leaf *x509.Certificate) time.Duration {
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	if left := time.Until(leaf.NotAfter); left < life/4 {
		c.log.Error("the certificate should have been renewed and was not: is the ACME server reachable, and this host from there?",
			"host", host, "until", leaf.NotAfter)
	}
	return max(life/20, time.Second)
}

// modernHello is what a client of today begins with.
func modernHello(host string) *tls.ClientHelloInfo {
	return &tls.ClientHelloInfo{
		ServerName:        host,
		SupportedVersions: []uint16{tls.VersionTLS13, tls.VersionTLS12},
		SupportedCurves:   []tls.CurveID{tls.X25519, tls.CurveP256},
		SignatureSchemes:  []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256},
		CipherSuites:      []uint16{tls.TLS_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
	}
}
