package server

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

// certificate is a pair of files that is read again when one of them changes, so that renewals need no
// restart. While the new pair cannot be used the old one is.
type certificate struct {
	cert, key string
	log       *slog.Logger
	loaded    atomic.Pointer[loadedPair]
}

type loadedPair struct {
	pair    *tls.Certificate
	changed [2]time.Time
	looked  time.Time
}

func newCertificate(cert, key string, log *slog.Logger) (*certificate, error) {
	c := &certificate{cert: cert, key: key, log: log}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("load the registry's certificate: %w", err)
	}
	c.loaded.Store(&loadedPair{&pair, c.times(), time.Now()})
	return c, nil
}

func (c *certificate) times() (times [2]time.Time) {
	for i, path := range []string{c.cert, c.key} {
		if info, err := os.Stat(path); err == nil {
			times[i] = info.ModTime()
		}
	}
	return times
}

// get is a tls.Config's GetCertificate.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	now := c.loaded.Load()
	if time.Since(now.looked) < lookEvery {
		return now.pair, nil
	}
	next := &loadedPair{now.pair, now.changed, time.Now()}
	if times := c.times(); times != now.changed {
		if pair, err := tls.LoadX509KeyPair(c.cert, c.key); err == nil {
			next.pair, next.changed = &pair, times
		} else {
			c.log.Error("the registry's new certificate is not used", "error", err) // the pair may be half written: look again
		}
	}
	c.loaded.CompareAndSwap(now, next)
	return next.pair, nil
}
