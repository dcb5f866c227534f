// Package challenge answers a registry's demand for authentication (a 401 with WWW-Authenticate) by the
// two schemes registries use, Basic and Bearer tokens.
package challenge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"davit/oci/errdefs"
	"davit/registry/auth"
)

// Authorizer puts credentials on the requests to one registry. It begins without knowing how the
// registry wants them, learns that from the first 401 answer, and keeps tokens while they are valid:
//
//	a.Apply(ctx, req, scopes)           before each request
//	a.Challenge(ctx, resp, scopes)      after a 401; when it returns nil, send the request again, once
//
// Methods may be called at the same time.
type Authorizer struct {
	client    *http.Client
	creds     auth.Credentials
	userAgent string

	mu       sync.Mutex
	learned  challenge
	tokens   map[string]token // by scopes, in the order given
	flights  map[string]*flight
	identity string // refresh token that the registry gave, for Login
}

type token struct {
	value   string
	expires time.Time
}

// clientID names davit to token servers.
const clientID = "davit"

// tokenMargin is how long before its end a token counts as expired.
const tokenMargin = 5 * time.Second

// NewAuthorizer returns an Authorizer that reaches token servers through client.
func NewAuthorizer(client *http.Client, creds auth.Credentials, userAgent string) *Authorizer {
	return &Authorizer{client: client, creds: creds, userAgent: userAgent, tokens: map[string]token{}, flights: map[string]*flight{}}
}

// Scope names an access right, as "repository:library/ubuntu:pull,push" (distribution, token scope).
type Scope string

// PullScope is the right to read a repository.
func PullScope(path string) Scope { return Scope("repository:" + path + ":pull") }

// PushScope is the right to read and write a repository.
func PushScope(path string) Scope { return Scope("repository:" + path + ":pull,push") }

// DeleteScope is the right to delete from a repository.
func DeleteScope(path string) Scope { return Scope("repository:" + path + ":delete") }

// CatalogScope is the right to list repositories.
const CatalogScope Scope = "registry:catalog:*"

// Apply sets the Authorization header, when the registry is known to want one.
func (a *Authorizer) Apply(ctx context.Context, req *http.Request, scopes []Scope) error {
	a.mu.Lock()
	scheme := a.learned.scheme
	a.mu.Unlock()
	switch {
	case a.creds.RegistryToken != "":
		req.Header.Set("Authorization", "Bearer "+a.creds.RegistryToken)
	case scheme == "basic":
		req.SetBasicAuth(a.creds.Username, a.creds.Password)
	case scheme == "bearer":
		value, err := a.token(ctx, req.URL, scopes)
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+value)
	}
	return nil
}

// Challenge learns from a 401 response. An error, of class ErrUnauthorized, says that sending the
// request again would not help.
func (a *Authorizer) Challenge(ctx context.Context, resp *http.Response, scopes []Scope) error {
	c, ok := choose(parseChallenges(resp.Header))
	if !ok || a.creds.RegistryToken != "" {
		return errdefs.Unauthorized("unauthorized: authentication required")
	}
	sent := resp.Request.Header.Get("Authorization")
	a.learn(c, sent, scopes)
	if c.scheme == "basic" {
		if a.creds.Username == "" && a.creds.Password == "" {
			return errdefs.Unauthorized("no basic auth credentials")
		}
		if sent != "" {
			return errdefs.Unauthorized("unauthorized: incorrect username or password")
		}
		return nil
	}
	_, err := a.token(ctx, resp.Request.URL, scopes)
	return err
}

// learn keeps the registry's scheme, and forgets the token that it just refused.
func (a *Authorizer) learn(c challenge, refused string, scopes []Scope) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.learned = c
	if key := tokenKey(scopes); refused == "Bearer "+a.tokens[key].value {
		delete(a.tokens, key)
	}
}

// Identity returns the refresh token that a token server handed out, if any.
func (a *Authorizer) Identity() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.identity
}

// choose prefers Bearer, as Docker does.
func choose(all []challenge) (challenge, bool) {
	for _, scheme := range []string{"bearer", "basic"} {
		for _, c := range all {
			if c.scheme == scheme && (scheme == "basic" || c.params["realm"] != "") {
				return c, true
			}
		}
	}
	return challenge{}, false
}

func tokenKey(scopes []Scope) string {
	var b strings.Builder
	for _, s := range scopes {
		b.WriteString(string(s) + " ")
	}
	return b.String()
}

// flight is one exchange under way; the requests that need the same token wait for it.
type flight struct {
	done  chan struct{}
	token token
	err   error
}

// token returns a valid token for the scopes, a new one if need be.
func (a *Authorizer) token(ctx context.Context, registry *url.URL, scopes []Scope) (string, error) {
	key := tokenKey(scopes)
	for {
		a.mu.Lock()
		if t, ok := a.tokens[key]; ok && time.Now().Before(t.expires) {
			a.mu.Unlock()
			return t.value, nil
		}
		f, underway := a.flights[key]
		if !underway {
			f = &flight{done: make(chan struct{})}
			a.flights[key] = f
		}
		challenged := a.learned
		a.mu.Unlock()
		if !underway {
			f.token, f.err = a.exchange(ctx, challenged, registry, scopes)
			a.land(key, f)
			return f.token.value, f.err
		}
		select {
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-f.done:
		}
		if f.err != nil && !errors.Is(f.err, context.Canceled) {
			return "", f.err
		}
	}
}

func (a *Authorizer) land(key string, f *flight) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.flights, key)
	if f.err == nil {
		a.tokens[key] = f.token
	}
	close(f.done)
}

// realm returns the token server's address, unless credentials may not be sent there.
func (a *Authorizer) realm(c challenge, registry *url.URL) (*url.URL, error) {
	realm, err := url.Parse(c.params["realm"])
	if err != nil || realm.Host == "" {
		return nil, errdefs.Unauthorized("registry %s names an invalid token server %q", registry.Host, c.params["realm"])
	}
	if registry.Scheme == "https" && realm.Scheme != "https" && !a.creds.Anonymous() {
		return nil, errdefs.Unauthorized("registry %s wants credentials sent in the clear to %s: refused", registry.Host, realm.Host)
	}
	return realm, nil
}

// exchange asks the token server: by OAuth2 POST with a refresh token, else by GET with Basic
// credentials or none; a server that knows no GET is asked by POST with the password.
func (a *Authorizer) exchange(ctx context.Context, c challenge, registry *url.URL, scopes []Scope) (token, error) {
	realm, err := a.realm(c, registry)
	if err != nil {
		return token{}, err
	}
	service := c.params["service"]
	if a.creds.IdentityToken != "" {
		t, _, err := a.ask(ctx, a.postRequest(realm, service, scopes, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {a.creds.IdentityToken}}))
		return t, err
	}
	t, status, err := a.ask(ctx, a.getRequest(realm, service, scopes))
	if (status == http.StatusNotFound || status == http.StatusMethodNotAllowed) && a.creds.Username != "" {
		t, _, err = a.ask(ctx, a.postRequest(realm, service, scopes, url.Values{
			"grant_type": {"password"}, "username": {a.creds.Username}, "password": {a.creds.Password}, "access_type": {"offline"},
		}))
	}
	return t, err
}

func (a *Authorizer) getRequest(realm *url.URL, service string, scopes []Scope) *http.Request {
	u := *realm
	q := u.Query()
	if service != "" {
		q.Set("service", service)
	}
	for _, s := range scopes {
		q.Add("scope", string(s))
	}
	req := &http.Request{Method: http.MethodGet, URL: &u, Header: http.Header{}}
	if a.creds.Username != "" {
		q.Set("account", a.creds.Username)
		q.Set("client_id", clientID)
		q.Set("offline_token", "true")
		req.SetBasicAuth(a.creds.Username, a.creds.Password)
	}
	u.RawQuery = q.Encode()
	return req
}

func (a *Authorizer) postRequest(realm *url.URL, service string, scopes []Scope, form url.Values) *http.Request {
	form.Set("client_id", clientID)
	form.Set("service", service)
	all := make([]string, len(scopes))
	for i, s := range scopes {
		all[i] = string(s)
	}
	form.Set("scope", strings.Join(all, " "))
	body := form.Encode()
	return &http.Request{
		Method: http.MethodPost, URL: realm, ContentLength: int64(len(body)), Body: io.NopCloser(strings.NewReader(body)),
		Header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}},
	}
}

// tokenReply is a token server's answer (distribution, "Token authentication specification").
type tokenReply struct {
	Token        string `json:"token"`
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	ExpiresIn    int    `json:"expires_in"` // seconds
}

// maxTokenReply bounds what is read of an answer, in bytes.
const maxTokenReply = 1 << 20

func (a *Authorizer) ask(ctx context.Context, req *http.Request) (token, int, error) {
	req.Header.Set("User-Agent", a.userAgent)
	resp, err := a.client.Do(req.WithContext(ctx))
	if err != nil {
		return token{}, 0, errdefs.Unavailable("token server %s cannot be reached: %w", req.URL.Host, urlCause(err))
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenReply))
	if err != nil {
		return token{}, resp.StatusCode, fmt.Errorf("read answer of token server %s: %w", req.URL.Host, err)
	}
	switch {
	case resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden || resp.StatusCode == http.StatusBadRequest:
		return token{}, resp.StatusCode, errdefs.Unauthorized("unauthorized: incorrect username or password")
	case resp.StatusCode/100 != 2:
		return token{}, resp.StatusCode, errdefs.Unavailable("token server %s answered %s", req.URL.Host, resp.Status)
	}
	var reply tokenReply
	if err := json.Unmarshal(body, &reply); err != nil {
		return token{}, resp.StatusCode, fmt.Errorf("read answer of token server %s: %w", req.URL.Host, err)
	}
	if reply.Token == "" {
		reply.Token = reply.AccessToken
	}
	if reply.Token == "" {
		return token{}, resp.StatusCode, errdefs.Unauthorized("token server %s gave no token", req.URL.Host)
	}
	if reply.RefreshToken != "" {
		a.mu.Lock()
		a.identity = reply.RefreshToken
		a.mu.Unlock()
	}
	return token{value: reply.Token, expires: time.Now().Add(lifetime(reply.ExpiresIn))}, resp.StatusCode, nil
}

// lifetime is how long a token is used: 60 seconds by default, less a margin.
func lifetime(seconds int) time.Duration {
	if seconds <= 0 {
		seconds = 60
	}
	return max(time.Duration(seconds)*time.Second-tokenMargin, time.Second)
}

// urlCause takes net/http's decoration, which repeats the whole URL, off an error.
func urlCause(err error) error {
	var decorated *url.Error
	if errors.As(err, &decorated) {
		return decorated.Err
	}
	return err
}
