package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"davit/oci/errdefs"
	"davit/registry/auth"
	"davit/registry/auth/challenge"
)

const (
	connectTimeout   = 15 * time.Second
	handshakeTimeout = 15 * time.Second
	// headerTimeout is long, because a registry may verify a whole blob before it answers.
	headerTimeout    = 5 * time.Minute
	maxRedirects     = 10
	connectionsAtEnd = 16

	hubHost = "registry-1.docker.io" // where docker.io lives
)

// endpoint is one base URL under which a registry, or a mirror of it, answers.
type endpoint struct {
	host      string // as messages name it
	mirror    bool
	userAgent string
	http      *http.Client
	auth      *challenge.Authorizer
	deltas    atomic.Bool // it said that it sends deltas

	down atomic.Bool // a mirror from which no sensible answer came

	mu         sync.Mutex
	candidates []*url.URL // of which the first that answers is taken
	base       *url.URL   // nil until reached
}

// endpoints returns where to find a registry: its mirrors in order, and last the registry itself.
func (c *Client) endpoints(host string, creds auth.Credentials) ([]*endpoint, error) {
	var all []*endpoint
	for _, mirror := range append(slices.Clone(c.o.Mirrors[host]), c.o.Mirrors["*"]...) {
		u, err := baseURL(mirror)
		if err != nil {
			return nil, errdefs.Invalid("mirror %q is not valid: %w", mirror, err)
		}
		if u.Host == host {
			continue // a mirror of everything is no mirror of itself
		}
		// The user's credentials are the registry's; a mirror gets none of them.
		e, err := c.endpoint(u.Host, c.insecure(u.Host), auth.Credentials{}, u)
		if err != nil {
			return nil, err
		}
		e.mirror = true
		all = append(all, e)
	}
	insecure := c.insecure(host)
	candidates, err := c.addresses(host, insecure)
	if err != nil {
		return nil, err
	}
	e, err := c.endpoint(host, insecure, creds, candidates...)
	if err != nil {
		return nil, err
	}
	return append(all, e), nil
}

// addresses are the base URLs at which a registry may live.
func (c *Client) addresses(host string, insecure bool) ([]*url.URL, error) {
	if origin := c.o.Origins[host]; origin != "" {
		u, err := baseURL(origin)
		return []*url.URL{u}, err
	}
	address := host
	if host == "docker.io" {
		address = hubHost
	}
	candidates := []*url.URL{{Scheme: "https", Host: address}}
	if insecure {
		candidates = append(candidates, &url.URL{Scheme: "http", Host: address})
	}
	return candidates, nil
}

func (c *Client) endpoint(host string, insecure bool, creds auth.Credentials, candidates ...*url.URL) (*endpoint, error) {
	config, err := c.tlsConfig(host)
	if err != nil {
		return nil, err
	}
	config.InsecureSkipVerify = insecure
	client := &http.Client{CheckRedirect: checkRedirect, Transport: transport(config)}
	if c.o.Wrap != nil {
		client.Transport = c.o.Wrap(client.Transport)
	}
	return &endpoint{
		host: host, userAgent: c.o.UserAgent, http: client, candidates: candidates,
		auth: challenge.NewAuthorizer(client, creds, c.o.UserAgent),
	}, nil
}

func transport(config *tls.Config) http.RoundTripper {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: connectTimeout, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:       config,
		TLSHandshakeTimeout:   handshakeTimeout,
		ResponseHeaderTimeout: headerTimeout,
		ExpectContinueTimeout: time.Second,
		IdleConnTimeout:       15 * time.Second,
		MaxIdleConnsPerHost:   connectionsAtEnd,
		ForceAttemptHTTP2:     true,
		// The bytes are content whose digest is known: they must arrive as they are.
		DisableCompression: true,
	}
}

// checkRedirect keeps credentials from other hosts, ports included, and from plain HTTP.
func checkRedirect(req *http.Request, via []*http.Request) error {
	first := via[0]
	if len(via) >= maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	if first.URL.Scheme == "https" && req.URL.Scheme == "http" {
		return fmt.Errorf("redirect from https to plain http at %s refused", req.URL.Host)
	}
	if req.URL.Host != first.URL.Host || req.URL.Scheme != first.URL.Scheme {
		req.Header.Del("Authorization")
	}
	return nil
}

// insecure says whether the options or the loopback rule exempt a host from TLS.
func (c *Client) insecure(host string) bool {
	name := hostname(host)
	for _, entry := range c.o.Insecure {
		if entry == host || entry == name {
			return true
		}
	}
	ips := []net.IP{net.ParseIP(name)}
	if name == "localhost" {
		ips = []net.IP{net.IPv4(127, 0, 0, 1)}
	} else if ips[0] == nil && len(c.networks) > 0 {
		ips, _ = net.LookupIP(name) // a name that does not resolve is in no network
	}
	for _, ip := range ips {
		if ip.IsLoopback() || c.inNetworks(ip) {
			return true
		}
	}
	return false
}

func (c *Client) inNetworks(ip net.IP) bool {
	for _, network := range c.networks {
		if network.Contains(ip) {
			return true
		}
	}
	return false
}

// hostname takes the port and the brackets of an IPv6 address off a host.
func hostname(host string) string { return (&url.URL{Host: host}).Hostname() }

// tlsConfig adds the certificates of the host's directories to the system's.
func (c *Client) tlsConfig(host string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	for _, dir := range c.o.CertDirs {
		entries, err := os.ReadDir(filepath.Join(dir, host))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read registry certificates: %w", err)
		}
		for _, entry := range entries {
			if err := addCertificate(config, filepath.Join(dir, host, entry.Name())); err != nil {
				return nil, err
			}
		}
	}
	return config, nil
}

func addCertificate(config *tls.Config, path string) error {
	switch filepath.Ext(path) {
	case ".crt":
		pem, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read registry certificate: %w", err)
		}
		if config.RootCAs == nil {
			if config.RootCAs, err = x509.SystemCertPool(); err != nil {
				return fmt.Errorf("read the system's certificates: %w", err)
			}
		}
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return errdefs.Invalid("registry certificate %s holds no PEM certificate", path)
		}
	case ".cert":
		pair, err := tls.LoadX509KeyPair(path, strings.TrimSuffix(path, ".cert")+".key")
		if err != nil {
			return errdefs.Invalid("registry client certificate %s: %w", path, err)
		}
		config.Certificates = append(config.Certificates, pair)
	}
	return nil
}

// reach returns the base URL. Where plain HTTP is allowed too, it finds out once which one answers.
func (e *endpoint) reach(ctx context.Context) (*url.URL, error) {
	e.mu.Lock()
	base := e.base
	e.mu.Unlock()
	if base != nil {
		return base, nil
	}
	base, err := e.probe(ctx)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.base = base
	return base, nil
}

func (e *endpoint) probe(ctx context.Context) (*url.URL, error) {
	if len(e.candidates) == 1 {
		return e.candidates[0], nil
	}
	var first error
	for _, candidate := range e.candidates {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, candidate.String()+"/v2/", nil)
		if err != nil {
			return nil, fmt.Errorf("reach registry %s: %w", e.host, err)
		}
		req.Header.Set("User-Agent", e.userAgent)
		resp, err := e.http.Do(req)
		if err == nil {
			resp.Body.Close()
			return candidate, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, unreachable(e.host, first)
}

// send makes one request with authentication: after a 401 it learns how, and sends it once more.
// The request must have no body, or a GetBody.
func (e *endpoint) send(ctx context.Context, req *http.Request, scopes []challenge.Scope) (*http.Response, error) {
	req.Header.Set("User-Agent", e.userAgent)
	resp, err := e.try(ctx, req, scopes)
	if err != nil || resp.StatusCode != http.StatusUnauthorized || (req.Body != nil && req.GetBody == nil) {
		return resp, err
	}
	if req.URL.Host != resp.Request.URL.Host {
		return resp, nil // the challenge of another host, after a redirect
	}
	if err := e.auth.Challenge(ctx, resp, scopes); err != nil {
		return nil, errors.Join(err, resp.Body.Close())
	}
	resp.Body.Close()
	if req.GetBody != nil {
		if req.Body, err = req.GetBody(); err != nil {
			return nil, fmt.Errorf("send request again: %w", err)
		}
	}
	return e.try(ctx, req, scopes)
}

// owns says whether a URL is the endpoint's own: an upload may be sent on to another host, which must
// not see the credentials.
func (e *endpoint) owns(u *url.URL) bool {
	for _, candidate := range e.candidates {
		if u.Host == candidate.Host && u.Scheme == candidate.Scheme {
			return true
		}
	}
	return false
}

func (e *endpoint) try(ctx context.Context, req *http.Request, scopes []challenge.Scope) (*http.Response, error) {
	if e.owns(req.URL) {
		if err := e.auth.Apply(ctx, req, scopes); err != nil {
			return nil, err
		}
	}
	resp, err := e.http.Do(req)
	if err != nil {
		return nil, unreachable(e.host, err)
	}
	return resp, nil
}
