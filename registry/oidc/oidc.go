package oidc

import (
	"cmp"
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"davit/oci/errdefs"
)

// patience is how long the provider may take for an answer.
const patience = 10 * time.Second

// Provider is where people sign in. Its description is read when it is first needed: that it cannot be
// reached keeps nobody else from working.
type Provider struct {
	config Config
	secret string
	client *http.Client

	mu    sync.Mutex
	known *oidc.Provider
}

// New reads the client's secret; the provider is not asked yet.
func New(config Config) (*Provider, error) {
	secret, err := config.secret()
	if err != nil {
		return nil, err
	}
	return &Provider{config: config, secret: secret, client: &http.Client{Timeout: patience}}, nil
}

// Name is what to call the provider: its host.
func (p *Provider) Name() string {
	u, err := url.Parse(p.config.Issuer)
	if err != nil {
		return p.config.Issuer
	}
	return u.Host
}

// URL is where browsers reach the registry, if the configuration says so.
func (p *Provider) URL() string { return strings.TrimSuffix(p.config.URL, "/") }

// Pending is a sign-in that has begun. It is secret.
type Pending struct {
	State    string `json:"s"`
	Nonce    string `json:"n"`
	Verifier string `json:"v"`
}

// Person is who signed in.
type Person struct {
	Name    string
	Issuer  string
	Subject string
	Groups  []string
}

// discover returns the provider's description, read anew until it was read once.
func (p *Provider) discover(ctx context.Context) (*oidc.Provider, error) {
	p.mu.Lock()
	known := p.known
	p.mu.Unlock()
	if known != nil {
		return known, nil
	}
	known, err := oidc.NewProvider(ctx, p.config.Issuer)
	if err != nil {
		return nil, p.unreachable(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known = known
	return known, nil
}

func (p *Provider) unreachable(err error) error {
	return errdefs.New(errdefs.ErrUnavailable, "%s, where people sign in, cannot be used now (tokens and passwords work as before): %w", p.Name(), err)
}

func (p *Provider) oauth(known *oidc.Provider, redirect string) oauth2.Config {
	scopes := p.config.Scopes
	if len(scopes) == 0 {
		scopes = []string{"profile", "email"}
	}
	return oauth2.Config{
		ClientID: p.config.ClientID, ClientSecret: p.secret, Endpoint: known.Endpoint(), RedirectURL: redirect,
		Scopes: append([]string{oidc.ScopeOpenID}, scopes...),
	}
}

// Begin returns the address at the provider to send the browser to. redirect is where it comes back to.
func (p *Provider) Begin(ctx context.Context, redirect string) (string, Pending, error) {
	ctx = oidc.ClientContext(ctx, p.client)
	known, err := p.discover(ctx)
	if err != nil {
		return "", Pending{}, err
	}
	pending := Pending{State: random(), Nonce: random(), Verifier: oauth2.GenerateVerifier()}
	config := p.oauth(known, redirect)
	return config.AuthCodeURL(pending.State, oidc.Nonce(pending.Nonce), oauth2.S256ChallengeOption(pending.Verifier)), pending, nil
}

// Finish takes what the provider sent the browser back with. That the sign-in is not the one that began, or
// was refused, is an ErrForbidden.
func (p *Provider) Finish(ctx context.Context, redirect string, pending Pending, query url.Values) (Person, error) {
	ctx = oidc.ClientContext(ctx, p.client)
	if pending.State == "" || subtle.ConstantTimeCompare([]byte(query.Get("state")), []byte(pending.State)) != 1 {
		return Person{}, errdefs.Forbidden("this is not the sign-in that was begun in this browser: sign in again")
	}
	if code := query.Get("error"); code != "" {
		return Person{}, errdefs.Forbidden("%s did not sign you in: %s", p.Name(), strings.TrimSpace(code+" "+query.Get("error_description")))
	}
	known, err := p.discover(ctx)
	if err != nil {
		return Person{}, err
	}
	config := p.oauth(known, redirect)
	token, err := config.Exchange(ctx, query.Get("code"), oauth2.VerifierOption(pending.Verifier))
	if refused := new(oauth2.RetrieveError); errors.As(err, &refused) {
		return Person{}, errdefs.New(errdefs.ErrForbidden, "%s did not sign you in, try again: %w", p.Name(), err)
	}
	if err != nil {
		return Person{}, p.unreachable(err)
	}
	claims, err := p.verify(ctx, known, token, pending.Nonce)
	if err != nil {
		return Person{}, err
	}
	if err := p.complete(ctx, known, token, claims); err != nil {
		return Person{}, err
	}
	return p.person(claims)
}

// verify returns the claims of the ID token, whose signature, audience, issuer and time it checks.
func (p *Provider) verify(ctx context.Context, known *oidc.Provider, token *oauth2.Token, nonce string) (claims, error) {
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return nil, errdefs.Forbidden("%s gave no ID token: is the scope openid allowed there?", p.Name())
	}
	id, err := known.Verifier(&oidc.Config{ClientID: p.config.ClientID}).Verify(ctx, raw)
	if err != nil {
		return nil, errdefs.New(errdefs.ErrForbidden, "the ID token of %s is not valid: %w", p.Name(), err)
	}
	if subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(nonce)) != 1 {
		return nil, errdefs.Forbidden("the ID token of %s is for another sign-in: sign in again", p.Name())
	}
	found := claims{}
	if err := id.Claims(&found); err != nil {
		return nil, fmt.Errorf("read the ID token: %w", err)
	}
	return found, nil
}

// complete asks the provider for claims that the ID token does not have.
func (p *Provider) complete(ctx context.Context, known *oidc.Provider, token *oauth2.Token, found claims) error {
	_, name := found[p.nameClaim()]
	_, groups := found[p.groupsClaim()]
	if name && groups || known.UserInfoEndpoint() == "" {
		return nil
	}
	info, err := known.UserInfo(ctx, oauth2.StaticTokenSource(token))
	if err != nil {
		return p.unreachable(err)
	}
	if info.Subject != found.text("sub") {
		return errdefs.Forbidden("%s says that you are two people", p.Name())
	}
	more := claims{}
	if err := info.Claims(&more); err != nil {
		return fmt.Errorf("read what %s says of you: %w", p.Name(), err)
	}
	for claim, value := range more {
		if _, ok := found[claim]; !ok {
			found[claim] = value
		}
	}
	return nil
}

func (p *Provider) nameClaim() string   { return cmp.Or(p.config.UsernameClaim, "preferred_username") }
func (p *Provider) groupsClaim() string { return cmp.Or(p.config.GroupsClaim, "groups") }

func (p *Provider) person(found claims) (Person, error) {
	person := Person{Issuer: p.config.Issuer, Subject: found.text("sub"), Name: found.text(p.nameClaim()), Groups: found.list(p.groupsClaim())}
	verified, said := found["email_verified"] // some providers write it as text
	if said && p.nameClaim() == "email" && strings.Trim(string(verified), `"`) != "true" {
		return person, errdefs.Forbidden("%s has not verified that %s is your address", p.Name(), person.Name)
	}
	if !usable(person.Name) {
		return person, errdefs.Forbidden("%s calls you %q (claim %s), which cannot be a name here", p.Name(), person.Name, p.nameClaim())
	}
	return person, nil
}

// usable says whether a name can be one of Basic authentication, and of somebody in the rules.
func usable(name string) bool {
	return name != "" && len(name) <= 128 && !strings.ContainsAny(name, ":*") && !strings.HasPrefix(name, "@") && !strings.HasPrefix(name, "robot+") &&
		name != "anonymous" && name != "users" &&
		!strings.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) })
}

// claims are those of an ID token or of the userinfo endpoint.
type claims map[string]json.RawMessage

func (c claims) text(name string) (s string) {
	if json.Unmarshal(c[name], &s) != nil {
		return ""
	}
	return s
}

// list reads a claim that is a list of texts or one text.
func (c claims) list(name string) (all []string) {
	if one := c.text(name); one != "" {
		return []string{one}
	}
	if json.Unmarshal(c[name], &all) != nil {
		return nil
	}
	return all
}
