package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"davit/oci/errdefs"
	"davit/registry/auth"
)

// SignIn is what a person is asked to do in a browser: open Complete, or Address and enter Code there.
type SignIn struct {
	Code     string
	Address  string
	Complete string // may be empty
	Expires  time.Time

	Handle string
}

// SignedIn is the token that a person has from then on, as the password.
type SignedIn struct {
	User    string
	Token   string
	Expires time.Time
}

// SignIn has a person sign in at the provider of a davit registry, in a browser anywhere, and returns the
// token that the registry makes for them; label is what they know it by. show is called once. Registries
// where nobody signs in are an errdefs.ErrNotFound.
func (c *Client) SignIn(ctx context.Context, host, label string, days int, show func(SignIn)) (token SignedIn, err error) {
	e, err := c.origin(host, auth.Credentials{})
	if err != nil {
		return token, err
	}
	defer e.http.CloseIdleConnections()
	var asked SignIn
	if _, err := c.signIn(ctx, e, nil, &asked); err != nil {
		return token, err
	}
	show(asked)
	form := url.Values{"handle": {asked.Handle}, "label": {label}, "days": {strconv.Itoa(days)}}
	for {
		done, err := c.signIn(ctx, e, form, &token)
		if err != nil || done {
			return token, err
		}
	}
}

// signIn asks once; done is false when the registry has no answer yet.
func (c *Client) signIn(ctx context.Context, e *endpoint, form url.Values, reply any) (done bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.o.IdleTimeout)
	defer cancel()
	base, err := e.reach(ctx)
	if err != nil {
		return false, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base.String()+"/davit/v1/signin", strings.NewReader(form.Encode()))
	if err != nil {
		return false, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := e.send(ctx, req, nil)
	if err != nil {
		return false, err
	}
	resp, err = checked(resp, http.StatusOK, http.StatusAccepted)
	if refusal := new(Error); errors.As(err, &refusal) && refusal.Status == http.StatusNotFound {
		return false, errdefs.New(errdefs.ErrNotFound, "people do not sign in at %s, use \"davit login\": %w", base.Host, err)
	}
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusAccepted {
		return false, nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxList)).Decode(reply); err != nil {
		return false, fmt.Errorf("read answer of registry %s: %w", base.Host, err)
	}
	return true, nil
}
