package server

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"davit/oci/errdefs"
	"davit/registry/oidc"
)

// signInWait is how long a question is held that nobody's sign-in answers yet.
const signInWait = 20 * time.Second

// begun is a sign-in on another device, as the program knows it that waits for it.
type begun struct {
	Handle   string    `json:"handle"` // sealed, to ask with
	Code     string    `json:"code"`
	Address  string    `json:"address"`
	Complete string    `json:"complete,omitempty"`
	Expires  time.Time `json:"expires"`
}

// madeToken is what the sign-in gives.
type madeToken struct {
	User    string    `json:"user"`
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
}

// signIn serves "davit registry login": POST without a handle begins, with one it asks whether the person has
// signed in, and answers 202 when they have not yet. Then a token is made for them, with label and days.
func (s *Server) signIn(r request) error {
	policy, state := pageSource{s}.provider()
	if policy == nil {
		return &failure{"NOT_FOUND", http.StatusNotFound, errdefs.NotFound("nobody signs in at a provider here: log in with a password")}
	}
	r.Body = http.MaxBytesReader(r.w, r.Body, 64<<10)
	if err := r.ParseForm(); err != nil {
		return &failure{"UNSUPPORTED", http.StatusBadRequest, err}
	}
	r.w.Header().Set("Cache-Control", "no-store")
	var answer any
	var err error
	if handle := r.PostForm.Get("handle"); handle == "" {
		answer, err = policy.beginDevice(r, state)
	} else {
		answer, err = policy.finishDevice(r, state, handle)
	}
	if errors.Is(err, oidc.ErrPending) {
		r.w.WriteHeader(http.StatusAccepted)
		return nil
	}
	if err != nil {
		return refusal(err)
	}
	return r.json("application/json", answer)
}

// refusal is an error of signing in, in the registry's terms.
func refusal(err error) error {
	return errdefs.Find(err, []errdefs.Row[error]{
		{Class: errdefs.ErrForbidden, Meaning: &failure{"DENIED", http.StatusForbidden, err}},
		{Class: errdefs.ErrConflict, Meaning: &failure{"DENIED", http.StatusConflict, err}},
		{Class: errdefs.ErrInvalid, Meaning: &failure{"UNSUPPORTED", http.StatusBadRequest, err}},
		{Class: errdefs.ErrNotImplemented, Meaning: &failure{"UNSUPPORTED", http.StatusNotImplemented, err}},
		{Class: errdefs.ErrUnavailable, Meaning: &failure{"UNAVAILABLE", http.StatusServiceUnavailable, err}},
	}, err)
}

func (p *Policy) beginDevice(r request, state *policyState) (begun, error) {
	address := clientAddress(r.Request)
	if p.people.begun.wait(address, time.Now()) > 0 {
		return begun{}, &failure{"TOOMANYREQUESTS", http.StatusTooManyRequests, errors.New("too many sign-ins were begun and not ended: wait and try again")}
	}
	p.people.begun.note(address, time.Now()) // anybody can have the provider asked
	d, err := state.oidc.BeginDevice(r.Context())
	if err != nil {
		return begun{}, err
	}
	handle, err := p.people.devices.Seal(d, d.Expires)
	return begun{handle, d.UserCode, d.Address, d.Complete, d.Expires}, err
}

func (p *Policy) finishDevice(r request, state *policyState, handle string) (madeToken, error) {
	days, err := strconv.Atoi(r.PostForm.Get("days"))
	if err != nil {
		return madeToken{}, errdefs.Invalid("days %q is no number", r.PostForm.Get("days"))
	}
	var d oidc.Device
	if p.people.devices.Open(handle, &d, time.Now()) != nil {
		return madeToken{}, errdefs.Forbidden("nobody signed in in time: begin again")
	}
	ctx, cancel := context.WithTimeout(r.Context(), signInWait)
	defer cancel()
	person, err := state.oidc.FinishDevice(ctx, d)
	if errors.Is(err, oidc.ErrPending) {
		return madeToken{}, err
	}
	if out, ok := r.w.(*seen); ok {
		out.by = person.Name
	}
	if err == nil {
		err = p.admit(r.Context(), state, person)
	}
	if err != nil {
		p.log.Warn("sign-in refused", "user", person.Name, "address", clientAddress(r.Request), "error", err)
		return madeToken{}, err
	}
	p.people.begun.forget(clientAddress(r.Request))
	secret, t, err := p.makeToken(r.Request, person.Name, r.PostForm.Get("label"), time.Duration(days)*24*time.Hour)
	return madeToken{person.Name, secret, t.Expires}, err
}
