package cache

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"davit/oci/errdefs"
	"davit/oci/ref"
	"davit/registry/auth"
	"davit/registry/client"
)

// Upstream is a registry whose content is cached, as the registry's configuration file has it.
type Upstream struct {
	Name string `json:"name"`          // as references write it: "docker.io", "registry.example:5000"
	URL  string `json:"url,omitempty"` // where it is; empty: https://NAME

	Prefixes []string `json:"prefixes,omitempty"` // its repositories appear below these, too: "dockerhub"
	Hosts    []string `json:"hosts,omitempty"`    // all that is asked of the registry by these names is its
	Default  bool     `json:"default,omitempty"`  // names that nothing else covers are its

	Username     string `json:"username,omitempty"`
	Password     string `json:"password,omitempty"`
	PasswordFile string `json:"passwordFile,omitempty"` // in place of a password
	Insecure     bool   `json:"insecure,omitempty"`     // its certificate is not checked

	TagTTL Duration `json:"tagTTL,omitzero"` // how long a tag is believed unchanged; absent: 5 minutes
}

// defaultTagTTL is how long a tag is served without a look at the upstream.
const defaultTagTTL = 5 * time.Minute

// Duration is a time.Duration that is written "90s" or "1h30m".
type Duration time.Duration

// UnmarshalJSON implements json.Unmarshaler.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return fmt.Errorf("want a duration such as \"90s\" or \"1h\": %w", err)
	}
	parsed, err := time.ParseDuration(text)
	*d = Duration(parsed)
	return err
}

// MarshalJSON implements json.Marshaler.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

// ParseUpstream reads NAME=URL, or NAME alone.
func ParseUpstream(s string) (Upstream, error) {
	name, address, ok := strings.Cut(s, "=")
	if name == "" || ok && address == "" {
		return Upstream{}, errdefs.Invalid("upstream %q: want NAME=URL, such as docker.io=https://registry-1.docker.io", s)
	}
	return Upstream{Name: name, URL: address}, nil
}

// upstream is what the cache knows of one registry.
type upstream struct {
	Upstream
	log     *slog.Logger
	creds   auth.Credentials
	patient *client.Client // tries again and again
	quick   *client.Client // tries once
	counts  *Counters

	mu       sync.Mutex
	repos    map[string]repository // by path, "!" before those of quick
	failures int                   // in a row
	until    time.Time             // it is not asked before
	why      error
	spare    time.Time // nothing that there is a copy of is asked before
}

// repository is a repository of an upstream, with the tokens for it.
type repository = *client.Repository

func newUpstream(config Upstream, c *Cache) (*upstream, error) {
	u := &upstream{Upstream: config, log: c.o.Log, counts: &c.Counters, repos: map[string]repository{}}
	if err := u.check(); err != nil {
		return nil, err
	}
	if u.TagTTL == 0 {
		u.TagTTL = Duration(defaultTagTTL)
	}
	u.creds = auth.Credentials{Username: u.Username, Password: u.Password}
	if u.PasswordFile != "" {
		password, err := os.ReadFile(u.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("read password of upstream %s: %w", u.Name, err)
		}
		u.creds.Password = strings.TrimRight(string(password), "\r\n")
	}
	options := client.Options{UserAgent: c.o.UserAgent, Log: c.o.Log, IdleTimeout: c.o.Idle, Wrap: u.watch}
	if u.URL != "" {
		options.Origins = map[string]string{u.Name: u.URL}
	}
	if u.Insecure {
		options.Insecure = []string{u.Name}
	}
	var err error
	if u.patient, err = client.New(options); err != nil {
		return nil, fmt.Errorf("upstream %s: %w", u.Name, err)
	}
	options.Attempts = 1
	u.quick, err = client.New(options)
	return u, err
}

func (u *upstream) check() error {
	if parsed, err := url.Parse("//" + u.Name); err != nil || parsed.Host != u.Name || u.Name == "" {
		return errdefs.Invalid("upstream %q: want a registry's host[:port] as its name", u.Name)
	}
	for _, prefix := range u.prefixes() {
		if err := ref.CheckPath(prefix); err != nil {
			return errdefs.Invalid("upstream %s: prefix %q: %w", u.Name, prefix, err)
		}
	}
	if u.Password != "" && u.PasswordFile != "" {
		return errdefs.Invalid("upstream %s has both password and passwordFile", u.Name)
	}
	return nil
}

// local is where its repositories are kept: a port's colon cannot be in a repository's name.
func (u *upstream) local() string { return strings.ReplaceAll(strings.ToLower(u.Name), ":", "_") }

func (u *upstream) prefixes() []string { return append([]string{u.local()}, u.Prefixes...) }

// ways are the rules by which it is found; no two upstreams may have one in common.
func (u *upstream) ways() []string {
	ways := []string{"ns " + u.Name}
	for _, prefix := range u.prefixes() {
		ways = append(ways, "prefix "+prefix)
	}
	for _, host := range u.Hosts {
		ways = append(ways, "host "+host)
	}
	return ways
}

func (u *upstream) hasHost(host string) bool { return slices.Contains(u.Hosts, host) }

// target names a repository; Docker Hub's own images have a short form.
func (u *upstream) target(path string) Target {
	if u.Name == "docker.io" && !strings.Contains(path, "/") {
		path = "library/" + path
	}
	return Target{Name: u.local() + "/" + path, up: u, path: path}
}

// maxRepositories bounds how many repositories' tokens and connections are kept.
const maxRepositories = 512

func (u *upstream) repository(path string, quick bool) (repository, error) {
	key, from := path, u.patient
	if quick {
		key, from = "!"+path, u.quick
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if repo, ok := u.repos[key]; ok {
		return repo, nil
	}
	if len(u.repos) >= maxRepositories {
		u.forget()
	}
	repo, err := from.Repository(ref.Ref{Domain: u.Name, Path: path}, u.creds)
	if err == nil {
		u.repos[key] = repo
	}
	return repo, err
}

// forget closes idle connections; requests under way go on.
func (u *upstream) forget() {
	for _, repo := range u.repos {
		repo.Close()
	}
	clear(u.repos)
}

func (u *upstream) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.forget()
}

// watch sees all requests to the upstream and its token server.
func (u *upstream) watch(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		u.counts.Requests.Add(1)
		resp, err := next.RoundTrip(r)
		if err == nil {
			u.heed(resp.Header)
		}
		return resp, err
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// spareFor is how long an upstream with little allowance left is spared.
const spareFor = time.Minute

// heed reads Docker Hub's "RateLimit-Remaining: 76;w=21600" and its like. When less than a tenth of the
// limit is left, it is left to those who have no copy.
func (u *upstream) heed(h http.Header) {
	remaining, ok := allowance(h, "RateLimit-Remaining")
	limit, _ := allowance(h, "RateLimit-Limit")
	if !ok || remaining > 0 && remaining*10 >= limit {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if now := time.Now(); now.After(u.spare) {
		u.spare = now.Add(spareFor)
		u.log.Warn("upstream allows few more requests: what is cached is not checked for a while", "upstream", u.Name, "remaining", remaining, "limit", limit, "until", u.spare)
	}
}

func allowance(h http.Header, key string) (int64, bool) {
	value, _, _ := strings.Cut(h.Get(key), ";")
	n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
	return n, err == nil
}

// Rest is the failure to ask an upstream that is left alone for a while.
type Rest struct {
	Upstream string
	Until    time.Time
	Cause    error
}

// Error implements error.
func (r *Rest) Error() string {
	return fmt.Sprintf("upstream %s is not asked before %s: %v", r.Upstream, r.Until.UTC().Format(time.RFC3339), r.Cause)
}

// Unwrap gives it the class of the cause.
func (r *Rest) Unwrap() error { return r.Cause }

var errSpared = errdefs.New(errdefs.ErrTooManyRequest, "its allowance of requests is nearly used up")

// resting returns a *Rest while the upstream is not to be asked.
func (u *upstream) resting(now time.Time, haveCopy bool) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case now.Before(u.until):
		return &Rest{u.Name, u.until, u.why}
	case haveCopy && now.Before(u.spare):
		return &Rest{u.Name, u.spare, errSpared}
	}
	return nil
}

const (
	firstRest   = time.Second
	longestRest = 30 * time.Second // of one that is down
	limitedRest = 10 * time.Second // of one that says 429 and not how long
	longestHeed = 15 * time.Minute // of Retry-After
)

// learn gives the upstream a rest after a failure: as long as it asked, else twice as long each time.
func (u *upstream) learn(now time.Time, err error) {
	var refusal *client.Error
	answered := errors.As(err, &refusal)
	limited := answered && refusal.Status == http.StatusTooManyRequests
	u.mu.Lock()
	defer u.mu.Unlock()
	if wellAnswered(err) {
		u.failures = 0
		return
	}
	rest := min(firstRest<<min(u.failures, 10), longestRest)
	if limited {
		rest = limitedRest
	}
	if answered && refusal.RetryAfter > 0 {
		rest = min(refusal.RetryAfter, longestHeed)
	}
	if until := now.Add(rest); until.After(u.until) {
		u.until, u.why = until, err
	}
	u.failures++
	u.log.Warn("upstream is left alone for a while", "upstream", u.Name, "for", rest, "error", err)
}

// wellAnswered says whether an upstream is in order though err may be what it said.
func wellAnswered(err error) bool {
	var refusal *client.Error
	if errors.As(err, &refusal) {
		return refusal.Status < 500 && refusal.Status != http.StatusTooManyRequests
	}
	return err == nil || errors.Is(err, errdefs.ErrDataLoss) || errors.Is(err, errdefs.ErrInvalid) ||
		errors.Is(err, errdefs.ErrUnauthorized) || errors.Is(err, errdefs.ErrNotFound)
}

// RetryAfter says how long a client should wait before it asks again; 0 when that would not help.
func RetryAfter(err error) time.Duration {
	var rest *Rest
	if errors.As(err, &rest) {
		return max(time.Until(rest.Until), time.Second)
	}
	var refusal *client.Error
	if errors.As(err, &refusal) {
		return refusal.RetryAfter
	}
	return 0
}
