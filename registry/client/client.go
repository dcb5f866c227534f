// Package client speaks the distribution protocol (OCI distribution-spec 1.1, Docker Registry API v2)
// to other people's registries. A Repository implements image.Source and image.Sink.
//
// What may go wrong on the way is mended where it happens: an answer of 5xx or 429, a reset or a
// truncated body is tried again after a pause, a blob from the byte where it broke. Nothing waits
// forever: connecting, headers and each stretch of a body have their time limits.
package client

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"davit/oci/errdefs"
	"davit/oci/ref"
	"davit/registry/auth"
)

// Options configures a Client. The zero value is usable.
type Options struct {
	// Insecure lists registries (host, host:port, or a CIDR of their addresses) whose certificate is
	// not checked and which may speak plain HTTP. Loopback addresses always belong to them.
	Insecure []string
	// Mirrors lists, by registry host ("docker.io", "quay.io"), base URLs that are asked first, in this
	// order; those of "*" are asked for every registry, after its own. They are told by ?ns= whose
	// repository is meant, as containerd does, so that one mirror may serve several registries.
	Mirrors map[string][]string
	// Origins are base URLs of registries that do not live at https://HOST.
	Origins map[string]string
	// Wrap, when not nil, is put around what makes requests: to see them, or to answer in its place.
	Wrap func(http.RoundTripper) http.RoundTripper
	// CertDirs are searched for HOST[:PORT]/*.crt (authorities) and *.cert with *.key (client pairs).
	// Empty: DefaultCertDirs.
	CertDirs []string

	UserAgent string
	Log       *slog.Logger

	// Attempts is how often in a row a request is made without progress; 0 means 6.
	Attempts int
	// Backoff is the pause after the first failure; it doubles each time; 0 means 250 ms.
	Backoff time.Duration
	// IdleTimeout ends a connection on which nothing moved for so long; 0 means 60 s.
	IdleTimeout time.Duration
}

// DefaultCertDirs are the directories for registry certificates: davit's own and Docker's.
func DefaultCertDirs() []string { return []string{"/etc/davit/certs.d", "/etc/docker/certs.d"} }

// Client makes Repositories. Methods may be called at the same time.
type Client struct {
	o        Options
	networks []*net.IPNet // of Insecure
}

// New returns a client, or an errdefs.ErrInvalid error about the options.
func New(o Options) (*Client, error) {
	if o.CertDirs == nil {
		o.CertDirs = DefaultCertDirs()
	}
	if o.UserAgent == "" {
		o.UserAgent = "davit"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Attempts == 0 {
		o.Attempts = 6
	}
	if o.Backoff == 0 {
		o.Backoff = 250 * time.Millisecond
	}
	if o.IdleTimeout == 0 {
		o.IdleTimeout = time.Minute
	}
	c := &Client{o: o}
	for _, entry := range o.Insecure {
		if _, network, err := net.ParseCIDR(entry); err == nil {
			c.networks = append(c.networks, network)
		} else if strings.Contains(entry, "/") {
			return nil, errdefs.Invalid("insecure registry %q is not valid: want host, host:port or a CIDR", entry)
		}
	}
	for registry, mirrors := range o.Mirrors {
		for _, mirror := range mirrors {
			if _, err := baseURL(mirror); err != nil {
				return nil, errdefs.Invalid("mirror %q of registry %s is not valid: %w", mirror, registry, err)
			}
		}
	}
	for registry, origin := range o.Origins {
		if _, err := baseURL(origin); err != nil {
			return nil, errdefs.Invalid("address %q of registry %s is not valid: %w", origin, registry, err)
		}
	}
	return c, nil
}

// baseURL reads the address under which a registry answers.
func baseURL(s string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimRight(s, "/"))
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, errdefs.Invalid("want http(s)://host[:port][/path]")
	}
	return u, nil
}

// Repository returns the repository of a reference, to be used with the credentials of its user.
// It keeps tokens and the way to reach the registry, so use one for a whole pull or push.
func (c *Client) Repository(r ref.Ref, creds auth.Credentials) (*Repository, error) {
	endpoints, err := c.endpoints(r.Domain, creds)
	if err != nil {
		return nil, err
	}
	return &Repository{client: c, name: r, endpoints: endpoints}, nil
}

// Login checks credentials against the registry of their ServerAddress. It returns the identity token
// that replaces the password, where the registry gives one.
func (c *Client) Login(ctx context.Context, creds auth.Credentials) (identity string, err error) {
	host := auth.Host(creds.ServerAddress)
	e, err := c.origin(host, creds)
	if err != nil {
		return "", err
	}
	base, err := e.reach(ctx)
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base.String()+"/v2/", nil)
	if err != nil {
		return "", fmt.Errorf("log in to %s: %w", host, err)
	}
	resp, err := e.send(ctx, req, nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("login attempt to %s/v2/ failed with status: %s: %w", base, resp.Status, readError(resp))
	}
	return e.auth.Identity(), nil
}

// origin returns the registry itself, past its mirrors.
func (c *Client) origin(host string, creds auth.Credentials) (*endpoint, error) {
	endpoints, err := c.endpoints(host, creds)
	if err != nil {
		return nil, err
	}
	return endpoints[len(endpoints)-1], nil
}
