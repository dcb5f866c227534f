package web

import (
	"context"
	"crypto/subtle"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"davit/oci/errdefs"
)

// Accounts is what a Registry may have beside: people who sign in at a provider, and make tokens for their
// programs.
type Accounts interface {
	SignIn
	Tokens
}

// SignIn is signing in at a provider.
type SignIn interface {
	// Provider names who people sign in at now; empty: nobody does.
	Provider() string
	// Begin returns the provider's address, to send the browser to, and sets what it is to bring back.
	Begin(w http.ResponseWriter, r *http.Request, back string) (to string, err error)
	// Finish signs in who comes back from there; back is where they came from.
	Finish(w http.ResponseWriter, r *http.Request) (back string, err error)
	// End signs out.
	End(w http.ResponseWriter, r *http.Request)
}

// Tokens are what a person's programs log in with.
type Tokens interface {
	// List returns a person's tokens, the latest first.
	List(ctx context.Context, user string) ([]Token, error)
	// Make makes one and returns its secret, which cannot be had again.
	Make(r *http.Request, user, label string, life time.Duration) (secret string, err error)
	// Revoke ends one.
	Revoke(r *http.Request, user, id string) error
}

// Token is a token as its owner knows it.
type Token struct {
	ID, Label     string
	Made, Expires time.Time
}

// Expired says whether the token is no longer good for anything.
func (t Token) Expired() bool { return !time.Now().Before(t.Expires) }

// lives are the choices of how many days a token is good for.
var lives = []int{7, 30, 90, 365}

const defaultLife = 30

// provider names who people sign in at; empty: nobody does.
func (v *visit) provider() string {
	if v.p.accounts == nil {
		return ""
	}
	return v.p.accounts.Provider()
}

// challenge is what a browser is told that lacks a password. It would ask for one before it shows the page;
// so where people sign in at a provider it is told of a scheme that is not for browsers.
func (v *visit) challenge() string {
	if v.provider() != "" && !v.URL.Query().Has("password") {
		return `Bearer realm="davit registry"`
	}
	return `Basic realm="davit registry", charset="UTF-8"`
}

// member refuses who is not meant by a page of accounts. Its forms must be those that were sent to the
// same person, in the same session.
func (v *visit) member(found *route) error {
	switch {
	case found.signIn && v.provider() == "":
		return errdefs.NotFound("there is no page at this address")
	case found.member && v.visitor.Proof == "":
		return errdefs.Unauthorized("sign in at %s to see your account", v.provider())
	case found.member && found.post:
		v.Body = http.MaxBytesReader(v.w, v.Body, 64<<10)
		if subtle.ConstantTimeCompare([]byte(v.PostFormValue("proof")), []byte(v.visitor.Proof)) != 1 {
			return errdefs.Forbidden("this form is not of your present session: load the page again")
		}
	}
	return nil
}

// back is where a visitor goes after logging in: to the page that they are on, or that they came from, if it
// is one of these.
func (v *visit) back() string {
	back := v.URL.Query().Get("back")
	if v.Method != http.MethodPost && !strings.HasPrefix(v.URL.Path, "/login") {
		back = v.URL.RequestURI()
	}
	u, err := url.Parse(back)
	if err != nil || u.Host != "" || u.Scheme != "" || u.Path != "/account" && !strings.HasPrefix(u.Path, "/r/") {
		return "/"
	}
	return back
}

// login asks for a user and goes back to where the visitor came from.
func (v *visit) login() error {
	switch {
	case v.visitor.User != "" || v.visitor.Open:
		v.redirect(v.back())
		return nil
	case v.provider() == "" || v.URL.Query().Has("password"):
		return errdefs.Unauthorized("log in with the name and password that you use for docker login")
	}
	query := url.Values{"back": {v.back()}}
	body := map[string]string{"Provider": v.provider(), "Begin": "/login/begin?" + query.Encode(), "Password": "/login?password=1&" + query.Encode()}
	return v.show(http.StatusOK, loginPage, "Log in", []crumb{{"Repositories", "/"}, {"Log in", ""}}, body)
}

func (v *visit) begin() error {
	to, err := v.p.accounts.Begin(v.w, v.Request, v.back())
	if err == nil {
		v.redirect(to)
	}
	return err
}

func (v *visit) finish() error {
	back, err := v.p.accounts.Finish(v.w, v.Request)
	if err == nil {
		v.redirect(back)
	}
	return err
}

func (v *visit) logout() error {
	v.p.accounts.End(v.w, v.Request)
	v.redirect("/")
	return nil
}

// account is the body of the page of tokens.
type account struct {
	User, Provider, Proof, Host string
	Secret                      string // of the token just made
	Tokens                      []Token
	Lives                       []int
	Life                        int
}

func (v *visit) account() error { return v.showAccount(http.StatusOK, "") }

func (v *visit) showAccount(status int, secret string) error {
	tokens, err := v.p.accounts.List(v.Context(), v.visitor.User)
	if err != nil {
		return err
	}
	v.w.Header().Set("Cache-Control", "no-store")
	body := account{v.visitor.User, v.provider(), v.visitor.Proof, v.Host, secret, tokens, lives, defaultLife}
	return v.show(status, accountPage, "Account", []crumb{{"Repositories", "/"}, {"Account", ""}}, body)
}

func (v *visit) makeToken() error {
	days, err := strconv.Atoi(v.PostFormValue("days"))
	if err != nil || !slices.Contains(lives, days) {
		return errdefs.Invalid("a token is good for 7, 30, 90 or 365 days")
	}
	secret, err := v.p.accounts.Make(v.Request, v.visitor.User, v.PostFormValue("label"), time.Duration(days)*24*time.Hour)
	if err != nil {
		return err
	}
	return v.showAccount(http.StatusCreated, secret)
}

func (v *visit) revokeToken() error {
	if err := v.p.accounts.Revoke(v.Request, v.visitor.User, v.PostFormValue("id")); err != nil {
		return err
	}
	v.redirect("/account")
	return nil
}
