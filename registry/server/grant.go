package server

import (
	"context"
	"net/http"
	"time"
)

// grant is what somebody asks of /token: by GET with Basic authentication, or by POST as OAuth 2 has it
// (distribution, "Token Authentication Specification" and "OAuth2 Token Authentication").
type grant struct {
	by      who
	scopes  []string
	offline bool   // a refresh token is wanted
	refresh string // the one that was given
}

// tokenAnswer is the answer of /token.
type tokenAnswer struct {
	Token       string `json:"token"`
	AccessToken string `json:"access_token"`
	Refresh     string `json:"refresh_token,omitempty"`
	ExpiresIn   int    `json:"expires_in"` // seconds
	IssuedAt    string `json:"issued_at"`  // RFC 3339
	Scope       string `json:"scope,omitempty"`
}

func (s *Server) token(r request) error {
	policy, ok := s.auth.(*Policy)
	if !ok {
		return &failure{"NOT_FOUND", http.StatusNotFound, errNoSuchPath}
	}
	r.w.Header().Set("Cache-Control", "no-store")
	answer, err := policy.token(r)
	if err != nil {
		return err
	}
	return r.json("application/json", answer)
}

// token answers with a token for whoever proves to be a user, or for nobody.
func (p *Policy) token(r request) (answer tokenAnswer, err error) {
	state := p.current()
	g, err := p.askedBy(state, r)
	if err != nil {
		return answer, err
	}
	if out, ok := r.w.(*seen); ok {
		out.by = g.by.user
	}
	now := time.Now()
	c := claim{User: g.by.user, Token: g.by.token, Scopes: g.scopes, Expires: now.Add(tokenLife).Unix()}
	if secret, ok := state.secret(c.User); ok && c.Token == "" {
		c.Account = p.seal(c.User, secret)
	}
	answer = tokenAnswer{Refresh: g.refresh, ExpiresIn: int(tokenLife.Seconds()), IssuedAt: now.UTC().Format(time.RFC3339)}
	if answer.Token, err = p.tokens.sign(c); err != nil {
		return answer, err
	}
	answer.AccessToken = answer.Token
	if g.offline && c.User != "" && g.refresh == "" {
		answer.Refresh, err = p.tokens.sign(claim{User: c.User, Token: c.Token, Expires: now.Add(refreshLife).Unix(), Account: c.Account, Refresh: true})
	}
	return answer, err
}

// askedBy reads a request for a token and checks who makes it.
func (p *Policy) askedBy(state *policyState, r request) (g grant, err error) {
	if r.Method == http.MethodPost {
		return p.askedByForm(state, r)
	}
	query := r.URL.Query()
	g.scopes, g.offline = query["scope"], query.Get("offline_token") == "true"
	user, password, given := r.BasicAuth()
	if given {
		g.by, err = p.login(state, r.Request, user, password)
	}
	return g, err
}

func (p *Policy) askedByForm(state *policyState, r request) (g grant, err error) {
	r.Body = http.MaxBytesReader(r.w, r.Body, 64<<10)
	if err := r.ParseForm(); err != nil {
		return g, &failure{"UNSUPPORTED", http.StatusBadRequest, err}
	}
	form := r.PostForm
	g.scopes, g.offline = form["scope"], form.Get("access_type") == "offline"
	switch kind := form.Get("grant_type"); kind {
	case "password":
		g.by, err = p.login(state, r.Request, form.Get("username"), form.Get("password"))
		return g, err
	case "refresh_token":
		g.refresh = form.Get("refresh_token")
		c, err := p.tokens.open(g.refresh, time.Now())
		if err == nil && !c.Refresh {
			err = errBadToken
		}
		if err == nil {
			g.by, err = p.holds(r.Context(), state, c)
		}
		if err != nil {
			p.log.Warn("refresh token refused", "user", c.User, "address", clientAddress(r.Request))
			return g, fail("UNAUTHORIZED", "the refresh token is not valid, has expired, or its user was removed or has another password now: log in again")
		}
		return g, nil
	default:
		bad := fail("UNSUPPORTED", "grant_type %q is not served: want password or refresh_token", kind).(*failure)
		return g, &failure{bad.code, http.StatusBadRequest, bad.err}
	}
}

// seal ties a token to the password with which it was asked for, without telling anything about that.
func (p *Policy) seal(user, secret string) string {
	return p.tokens.mac("account " + user + " " + secret)[:22]
}

// holds returns whose token it is, if the account is there still, with the same password. The anonymous one
// is.
func (p *Policy) holds(ctx context.Context, state *policyState, c claim) (who, error) {
	by := who{user: c.User, token: c.Token}
	switch secret, ok := state.secret(c.User); {
	case c.User == "":
		return by, nil
	case c.Token != "" && state.person(c.User):
		person, err := p.people.store.Holds(ctx, c.User, c.Token)
		by.groups = person.Groups
		return by, unauthorized(err)
	case c.Token != "" || !ok || c.Account != p.seal(c.User, secret):
		return by, fail("UNAUTHORIZED", "the account of this token is no longer valid")
	}
	return by, nil
}
