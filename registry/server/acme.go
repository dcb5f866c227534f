package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"davit/oci/errdefs"
	"davit/registry/acme"
	"davit/registry/storage"
)

// ACME says how certificates come from an ACME server.
type ACME struct {
	acme.Options
	HTTPAddr string // host:port to answer HTTP-01 challenges on, which come to port 80; empty: TLS-ALPN-01 alone
}

// certificates is where a registry's come from: files, an ACME server, or nowhere.
type certificates struct {
	tls  *tls.Config // nil: plain HTTP
	acme *acme.Certificates
	http net.Listener // of HTTP-01; nil: none
}

func openCertificates(ctx context.Context, config Config, records storage.Records, log *slog.Logger) (certificates, error) {
	files := config.TLSCert != "" || config.TLSKey != ""
	switch {
	case files && len(config.ACME.Hosts) > 0:
		return certificates{}, errdefs.Invalid("certificates come from files (--tls-cert, --tls-key) or from an ACME server (--acme-host): say one of them")
	case files:
		pair, err := newCertificate(config.TLSCert, config.TLSKey, log)
		if err != nil {
			return certificates{}, err
		}
		return certificates{tls: &tls.Config{GetCertificate: pair.get, MinVersion: tls.VersionTLS12}}, nil
	case len(config.ACME.Hosts) == 0 && (config.ACME.Email != "" || config.ACME.Directory != "" || config.ACME.HTTPAddr != ""):
		return certificates{}, errdefs.Invalid("--acme-host is missing: the name of this registry that the certificate is for")
	case len(config.ACME.Hosts) == 0:
		return certificates{}, nil
	}
	c, err := acme.New(ctx, records, config.ACME.Options, log)
	if err != nil {
		return certificates{}, err
	}
	found := certificates{tls: c.TLSConfig(), acme: c}
	if config.ACME.HTTPAddr != "" {
		if found.http, err = net.Listen("tcp", config.ACME.HTTPAddr); err != nil {
			return found, fmt.Errorf("listen for ACME challenges: %w", err)
		}
	}
	return found, nil
}

// keep has certificates made, and answers challenges on port 80, until ctx ends.
func (c certificates) keep(ctx context.Context, log *slog.Logger) {
	if c.acme == nil {
		return
	}
	if c.http != nil {
		server := &http.Server{Handler: c.acme.ChallengeHandler(), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, MaxHeaderBytes: 8 << 10}
		served := make(chan struct{})
		go func() {
			defer close(served)
			if err := server.Serve(c.http); !errors.Is(err, http.ErrServerClosed) {
				log.Error("ACME challenges are no longer answered", "error", err)
			}
		}()
		defer func() { _ = server.Close(); <-served }() // who asks will ask again
	}
	c.acme.Keep(ctx)
}
