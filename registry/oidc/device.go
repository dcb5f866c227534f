package oidc

import (
	"context"
	"errors"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"davit/oci/errdefs"
)

// Device is a sign-in that somebody ends in a browser elsewhere (RFC 8628). It is secret, but for what
// people are told: the address, and the code to enter there.
type Device struct {
	Code     string    `json:"d"`
	UserCode string    `json:"c"`
	Address  string    `json:"a"`
	Complete string    `json:"f,omitempty"` // the address with the code in it, where the provider has one
	Interval int64     `json:"i"`           // seconds between questions
	Expires  time.Time `json:"e"`
}

// ErrPending is that nobody has ended a sign-in yet.
var ErrPending = errors.New("nobody has signed in yet")

// BeginDevice begins one. That the provider does not know such a thing is an ErrNotImplemented.
func (p *Provider) BeginDevice(ctx context.Context) (Device, error) {
	ctx = oidc.ClientContext(ctx, p.client)
	known, err := p.discover(ctx)
	if err != nil {
		return Device{}, err
	}
	config := p.oauth(known, "")
	if config.Endpoint.DeviceAuthURL == "" {
		return Device{}, errdefs.NotImplemented("%s signs nobody in on other devices: make a token on the registry's page /account", p.Name())
	}
	var proof []oauth2.AuthCodeOption
	if p.secret != "" {
		proof = append(proof, oauth2.SetAuthURLParam("client_secret", p.secret))
	}
	asked, err := config.DeviceAuth(ctx, proof...)
	if refused := new(oauth2.RetrieveError); errors.As(err, &refused) {
		return Device{}, errdefs.New(errdefs.ErrNotImplemented, "%s does not let this registry sign people in on other devices, make a token on its page /account: %w", p.Name(), err)
	}
	if err != nil {
		return Device{}, p.unreachable(err)
	}
	return Device{asked.DeviceCode, asked.UserCode, asked.VerificationURI, asked.VerificationURIComplete, asked.Interval, asked.Expiry}, nil
}

// FinishDevice asks the provider who signed in, again and again until ctx ends: then it is ErrPending. That
// it was refused, or took too long, is an ErrForbidden.
func (p *Provider) FinishDevice(ctx context.Context, d Device) (Person, error) {
	ctx = oidc.ClientContext(ctx, p.client)
	known, err := p.discover(ctx)
	if err != nil {
		return Person{}, err
	}
	config := p.oauth(known, "")
	asked := &oauth2.DeviceAuthResponse{DeviceCode: d.Code, Expiry: d.Expires, Interval: d.Interval}
	token, err := config.DeviceAccessToken(ctx, asked)
	refused := new(oauth2.RetrieveError)
	switch {
	case errors.As(err, &refused):
		return Person{}, errdefs.New(errdefs.ErrForbidden, "%s did not sign you in: %w", p.Name(), err)
	case err != nil && time.Now().After(d.Expires):
		return Person{}, errdefs.Forbidden("nobody signed in at %s in time: begin again", p.Name())
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled):
		return Person{}, ErrPending
	case err != nil:
		return Person{}, p.unreachable(err)
	}
	ctx = context.WithoutCancel(ctx) // the code is used up: the client's patience is not to be
	claims, err := p.verify(ctx, known, token, "")
	if err != nil {
		return Person{}, err
	}
	if err := p.complete(ctx, known, token, claims); err != nil {
		return Person{}, err
	}
	return p.person(claims)
}
