package server

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"time"

	"davit/oci/errdefs"
	"davit/registry/oidc"
	"davit/registry/people"
	"davit/registry/web"
)

// sessionLife is how long a browser stays signed in; pendingLife how long one may take at the provider.
const (
	sessionLife = 12 * time.Hour
	pendingLife = 15 * time.Minute
)

// persons is what a Policy needs for people who sign in at a provider.
type persons struct {
	store    *people.Store
	sessions oidc.Sealer
	pending  oidc.Sealer
	devices  oidc.Sealer
	proofs   []byte    // key of forms' proofs
	begun    *throttle // of sign-ins on other devices
}

func newPersons(key []byte) persons {
	proofs := sha256.Sum256(append([]byte("forms "), key...))
	return persons{sessions: oidc.NewSealer(key, "session"), pending: oidc.NewSealer(key, "sign-in"), devices: oidc.NewSealer(key, "device"), proofs: proofs[:], begun: &throttle{}}
}

// session is what the cookie of a browser says that is signed in. Groups and rules are looked up each time.
type session struct {
	User    string `json:"u"`
	Issuer  string `json:"i"`
	Subject string `json:"s"`
	ID      string `json:"n"` // of this session alone
}

// pending is what the cookie of a browser says that is on its way to the provider and back.
type pending struct {
	oidc.Pending
	Back string `json:"b"`
}

// visitor is identify for those who may be signed in by a page; proof is then for its forms. Programs, and
// whatever changes something by the API, show who they are by Authorization alone.
func (p *Policy) visitor(state *policyState, r *http.Request, pages bool) (by who, proof string, err error) {
	by, err = p.identify(state, r)
	if err != nil || !pages || state.oidc == nil || r.Header.Get("Authorization") != "" {
		return by, "", err
	}
	cookie, err := r.Cookie(cookieName(state.oidc, r, "session"))
	if err != nil {
		return by, "", nil
	}
	var s session
	if p.people.sessions.Open(cookie.Value, &s, time.Now()) != nil {
		return by, "", nil // it is old: the visitor is anonymous, and can sign in again
	}
	if !state.person(s.User) {
		return by, "", nil
	}
	person, err := p.people.store.Person(r.Context(), s.User)
	if errors.Is(err, errdefs.ErrNotFound) || err == nil && (person.Subject != s.Subject || person.Issuer != s.Issuer || state.rules.OIDC.Issuer != s.Issuer) {
		return by, "", nil
	}
	h := hmac.New(sha256.New, p.people.proofs)
	h.Write([]byte(s.ID))
	return who{user: s.User, groups: person.Groups}, base64.RawURLEncoding.EncodeToString(h.Sum(nil)), err
}

// person says whether a name can be that of somebody who signs in at the provider: it is not if it belongs to
// a user of this registry's own.
func (s *policyState) person(name string) bool {
	_, taken := s.secret(name)
	return s.oidc != nil && !taken
}

// reachedBy is the address of this registry for the browser that makes a request.
func reachedBy(provider *oidc.Provider, r *http.Request) string {
	if provider.URL() != "" {
		return provider.URL()
	}
	return schemeOf(r) + "://" + r.Host
}

// cookieName makes the browser refuse the cookie from anybody but this host, over TLS.
func cookieName(provider *oidc.Provider, r *http.Request, what string) string {
	if strings.HasPrefix(reachedBy(provider, r), "https:") {
		return "__Host-davit-" + what
	}
	return "davit-" + what
}

func setCookie(w http.ResponseWriter, provider *oidc.Provider, r *http.Request, what, value string, life time.Duration) {
	name := cookieName(provider, r, what)
	cookie := &http.Cookie{
		Name: name, Value: value, Path: "/", MaxAge: int(life.Seconds()),
		HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: strings.HasPrefix(name, "__Host-"),
	}
	if value == "" {
		cookie.MaxAge = -1
	}
	http.SetCookie(w, cookie)
}

// provider returns where people sign in, and the Policy that says so; nil when nobody does.
func (s pageSource) provider() (*Policy, *policyState) {
	policy, ok := s.auth.(*Policy)
	if !ok {
		return nil, nil
	}
	state := policy.current()
	if state.oidc == nil {
		return nil, nil
	}
	return policy, state
}

// Provider implements web.SignIn.
func (s pageSource) Provider() string {
	if _, state := s.provider(); state != nil {
		return state.oidc.Name()
	}
	return ""
}

var errNobodySignsIn = errdefs.NotFound("nobody signs in at a provider any more")

// Begin implements web.SignIn.
func (s pageSource) Begin(w http.ResponseWriter, r *http.Request, back string) (string, error) {
	policy, state := s.provider()
	if policy == nil {
		return "", errNobodySignsIn
	}
	to, begun, err := state.oidc.Begin(r.Context(), reachedBy(state.oidc, r)+"/login/callback")
	if err != nil {
		s.log.Warn("nobody can sign in", "error", err)
		return "", err
	}
	sealed, err := policy.people.pending.Seal(pending{begun, back}, time.Now().Add(pendingLife))
	if err == nil {
		setCookie(w, state.oidc, r, "sign-in", sealed, pendingLife)
	}
	return to, err
}

// Finish implements web.SignIn.
func (s pageSource) Finish(w http.ResponseWriter, r *http.Request) (string, error) {
	policy, state := s.provider()
	if policy == nil {
		return "", errNobodySignsIn
	}
	var begun pending
	cookie, err := r.Cookie(cookieName(state.oidc, r, "sign-in"))
	if err == nil {
		err = policy.people.pending.Open(cookie.Value, &begun, time.Now())
	}
	if err != nil {
		return "", errdefs.Forbidden("no sign-in was begun in this browser lately: sign in again")
	}
	setCookie(w, state.oidc, r, "sign-in", "", 0) // a sign-in is good for once
	person, err := state.oidc.Finish(r.Context(), reachedBy(state.oidc, r)+"/login/callback", begun.Pending, r.URL.Query())
	if out, ok := w.(*seen); ok {
		out.by = person.Name
	}
	if err == nil {
		err = policy.admit(r.Context(), state, person)
	}
	if err != nil {
		policy.log.Warn("sign-in refused", "user", person.Name, "address", clientAddress(r), "error", err)
		return "", err
	}
	policy.log.Info("signed in", "user", person.Name, "groups", person.Groups, "address", clientAddress(r))
	sealed, err := policy.people.sessions.Seal(session{person.Name, person.Issuer, person.Subject, begun.State}, time.Now().Add(sessionLife))
	if err == nil {
		setCookie(w, state.oidc, r, "session", sealed, sessionLife)
	}
	return begun.Back, err
}

// admit keeps who signed in, unless the name is that of an account here: a provider may let people choose
// theirs.
func (p *Policy) admit(ctx context.Context, state *policyState, person oidc.Person) error {
	if !state.person(person.Name) {
		return errdefs.Conflict("the name %q is a user of this registry's own: rename one of the two", person.Name)
	}
	return p.people.store.SignedIn(ctx, people.Person{
		Name: person.Name, Issuer: person.Issuer, Subject: person.Subject, Groups: person.Groups, SignedIn: time.Now().UTC(),
	})
}

// End implements web.SignIn.
func (s pageSource) End(w http.ResponseWriter, r *http.Request) {
	if policy, state := s.provider(); policy != nil {
		setCookie(w, state.oidc, r, "session", "", 0)
	}
}

// List implements web.Tokens.
func (s pageSource) List(ctx context.Context, user string) ([]web.Token, error) {
	policy, _ := s.provider()
	if policy == nil {
		return nil, errNobodySignsIn
	}
	all, err := policy.people.store.Tokens(ctx, user)
	tokens := make([]web.Token, len(all))
	for i, t := range all {
		tokens[i] = web.Token{ID: t.ID, Label: t.Label, Made: t.Made, Expires: t.Expires}
	}
	return tokens, err
}

// Make implements web.Tokens.
func (s pageSource) Make(r *http.Request, user, label string, life time.Duration) (string, error) {
	policy, _ := s.provider()
	if policy == nil {
		return "", errNobodySignsIn
	}
	secret, _, err := policy.makeToken(r, user, label, life)
	return secret, err
}

func (p *Policy) makeToken(r *http.Request, user, label string, life time.Duration) (string, people.Token, error) {
	secret, t, err := p.people.store.Make(r.Context(), user, label, life)
	if err == nil {
		p.log.Info("token made", "user", user, "token", t.ID, "label", t.Label, "until", t.Expires, "address", clientAddress(r))
	}
	return secret, t, err
}

// Revoke implements web.Tokens.
func (s pageSource) Revoke(r *http.Request, user, id string) error {
	policy, _ := s.provider()
	if policy == nil {
		return errNobodySignsIn
	}
	err := policy.people.store.Revoke(r.Context(), user, id)
	if err == nil {
		policy.log.Info("token revoked", "user", user, "token", id, "address", clientAddress(r))
	}
	return err
}
