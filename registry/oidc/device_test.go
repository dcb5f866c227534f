package oidc_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"davit/internal/oidctest"
	"davit/registry/client"
)

// device asks for a token as "davit registry login" does, while act ends the sign-in in a browser.
func (f *fixture) device(days int, act func(client.SignIn)) (client.SignedIn, error) {
	f.t.Helper()
	c, err := client.New(client.Options{Attempts: 1})
	if err != nil {
		f.t.Fatal(err)
	}
	return c.SignIn(f.t.Context(), strings.TrimPrefix(f.url, "http://"), "davit on a server", days, act)
}

// elsewhere goes through the provider's pages for a code, in a browser that knows nothing of the registry.
func (f *fixture) elsewhere(user, action string) func(client.SignIn) {
	return func(asked client.SignIn) {
		b := oidctest.NewBrowser(f.t, nil)
		form := b.Get(asked.Complete).Form("/device/login")
		if form.Get("user_code") != asked.Code || asked.Code == "" {
			f.t.Errorf("%s asks for code %q, want %q", asked.Complete, form.Get("user_code"), asked.Code)
		}
		form.Set("username", user)
		form.Set("password", users[user].Password)
		if page := b.Post(f.provider.Issuer+"/device/login", form); page.Status != 200 {
			f.t.Errorf("%s: %d %s", page.URL, page.Status, page.Text)
		}
		if page := b.Get(f.provider.Issuer + "/device/confirm?action=" + action); !strings.Contains(page.Text, "Device authorization "+action) {
			f.t.Errorf("%s: %d %s", page.URL, page.Status, page.Text)
		}
	}
}

// A machine without a browser gets a token of whoever signs in elsewhere.
func TestOtherDevice(t *testing.T) {
	t.Parallel()
	f := start(t)
	made, err := f.device(90, f.elsewhere("ada", "allowed"))
	if err != nil {
		t.Fatal(err)
	}
	if made.User != "ada" || time.Until(made.Expires) < 89*24*time.Hour {
		t.Errorf("made %+v", made)
	}
	f.api(201, "PUT", "/v2/team/app/manifests/v1", made.User, made.Token)
	if page := f.signedIn("ada").Get(f.url + "/account"); !strings.Contains(page.Text, "davit on a server") {
		t.Errorf("the account does not show the token: %s", page.Text)
	}
	f.wantAudited(`"action":"login","result":"ok"`)
}

// Who refuses, and who has a user's name, gets none; nor does a handle that is not ours.
func TestOtherDeviceRefused(t *testing.T) {
	t.Parallel()
	f := start(t)
	var group sync.WaitGroup
	for user, action := range map[string]string{"ada": "denied", "root": "allowed"} {
		group.Go(func() {
			if made, err := f.device(90, f.elsewhere(user, action)); err == nil || !strings.Contains(err.Error(), "denied") {
				t.Errorf("%s: %+v, %v", user, made, err)
			}
		})
	}
	group.Wait()
	for form, want := range map[string]int{"handle=x&days=1&label=x": 403, "handle=x&days=y": 400} {
		response, err := http.Post(f.url+"/davit/v1/signin", "application/x-www-form-urlencoded", strings.NewReader(form))
		if err != nil {
			t.Fatal(err)
		}
		if response.Body.Close(); response.StatusCode != want {
			t.Errorf("%s: %d, want %d", form, response.StatusCode, want)
		}
	}
	for range 3 { // two were refused before
		begin(t, f, 200)
	}
	begin(t, f, 429)
}

func begin(t *testing.T, f *fixture, want int) {
	t.Helper()
	response, err := http.Post(f.url+"/davit/v1/signin", "application/x-www-form-urlencoded", nil)
	if err != nil {
		t.Fatal(err)
	}
	if response.Body.Close(); response.StatusCode != want {
		t.Errorf("beginning: %d, want %d", response.StatusCode, want)
	}
}
