package oidc_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"davit/internal/oidctest"
	"davit/oci/errdefs"
	"davit/registry/people"
)

// People sign in, see what the rules give their groups, make tokens for programs, and revoke them.
func TestPeople(t *testing.T) {
	f := start(t)
	anonymous := oidctest.NewBrowser(t, nil)
	hidden := anonymous.Get(f.url + "/r/team/app?q=x")
	if hidden.Status != 401 || hidden.Links()["Log in"] != "/login?back=%2fr%2fteam%2fapp%3fq%3dx" || strings.Contains(hidden.Header.Get("WWW-Authenticate"), "Basic") {
		t.Errorf("an anonymous visitor gets %d %q, %v", hidden.Status, hidden.Header.Get("WWW-Authenticate"), hidden.Links())
	}
	if page := anonymous.Get(f.url + "/account"); page.Status != 401 {
		t.Errorf("the account of nobody: %d", page.Status)
	}
	ada := f.signedIn("ada")
	token := f.makeToken(ada, "laptop")
	if page := ada.Get(f.url + "/account"); strings.Contains(page.Text, token) || !strings.Contains(page.Text, "laptop") {
		t.Errorf("the list of tokens: %s", page.Text)
	}
	g := f.grant("ada", token)
	f.api(201, "PUT", "/v2/team/app/manifests/v1", "", g.Token)
	f.api(201, "PUT", "/v2/team/app/manifests/v2", "ada", token)
	f.api(403, "PUT", "/v2/other/app/manifests/v1", "ada", token)
	f.api(401, "PUT", "/v2/team/app/manifests/v1", "ada", token+"x")
	f.api(401, "PUT", "/v2/team/app/manifests/v1", "bob", token)
	if err := f.resolve("ada", token); err != nil {
		t.Error(err)
	}
	f.skopeo(t, "ada:"+token)
	if page := ada.Get(f.url + "/r/team/app/-/tag/v1"); page.Status != 200 || !strings.Contains(page.Text, "ada") {
		t.Errorf("ada's page: %d %s", page.Status, page.Text)
	}
	if page := ada.Get(f.url + "/r/other/app"); page.Status != 404 {
		t.Errorf("what ada may not see: %d", page.Status)
	}
	bob := f.signedIn("bob")
	bobs := f.makeToken(bob, "laptop")
	f.api(200, "GET", "/v2/team/app/tags/list", "bob", bobs)
	f.api(403, "PUT", "/v2/team/app/manifests/v1", "bob", bobs)
	eve := f.signedIn("eve")
	if page := eve.Get(f.url + "/r/team/app"); page.Status != 404 {
		t.Errorf("eve's page: %d", page.Status)
	}
	f.api(403, "GET", "/v2/public/app/tags/list", "eve", f.makeToken(eve, "laptop"))
	f.log.want(t, `msg="signed in" user=ada groups="[staff pushers]"`, `msg="token made" user=ada`, `rule="eve is out"`, `msg="token refused" user=bob`)

	page := ada.Get(f.url + "/account")
	if page = ada.Post(f.url+"/account/revoke", page.Form("/account/revoke")); page.Status != 200 || !strings.Contains(page.Text, "You have none") {
		t.Errorf("after revoking: %d %s", page.Status, page.Text)
	}
	f.api(401, "GET", "/v2/team/app/tags/list", "ada", token)
	f.api(401, "GET", "/v2/team/app/tags/list", "", g.Token)
	response, err := http.PostForm(f.url+"/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {g.Refresh}})
	if err != nil {
		t.Fatal(err)
	}
	if response.Body.Close(); response.StatusCode != 401 {
		t.Errorf("the refresh token of a revoked one: %d", response.StatusCode)
	}
	if err := f.resolve("ada", token); !errors.Is(err, errdefs.ErrUnauthorized) {
		t.Errorf("davit pulls with a revoked token: %v", err)
	}
	f.wantAudited(`"action":"login","result":"ok"`, `"action":"token","result":"ok"`, `"action":"revoke","result":"ok"`)
	if page := ada.Post(f.url+"/logout", ada.Get(f.url+"/account").Form("/logout")); page.URL.String() != f.url+"/" || page.Links()["Log in"] == "" {
		t.Errorf("logging out ends at %s: %s", page.URL, page.Text)
	}
	if page := ada.Get(f.url + "/account"); page.Status != 401 {
		t.Errorf("after logging out: %d", page.Status)
	}
}

// Refresh tokens that come from a personal one are good as long as that is.
func TestTokensEnd(t *testing.T) {
	f := start(t)
	f.signedIn("ada")
	kept := people.New(f.store)
	secret, made, err := kept.Make(t.Context(), "ada", "short", 1500*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	g := f.grant("ada", secret)
	f.api(201, "PUT", "/v2/team/app/manifests/v1", "", g.Token)
	<-time.After(time.Until(made.Expires))
	f.api(401, "GET", "/v2/team/app/tags/list", "", g.Token)
	if answer := f.api(401, "GET", "/v2/team/app/tags/list", "ada", secret); !strings.Contains(answer, "the token expired at") {
		t.Errorf("the client is told %s", answer)
	}
}

// What comes back from the provider must be what this browser began.
func TestForgedSignIns(t *testing.T) {
	f := start(t)
	refused := func(what string, b *oidctest.Browser, page oidctest.Page) {
		t.Helper()
		if page.Status != 403 {
			t.Errorf("%s: %d %s", what, page.Status, page.Text)
		}
		if page := b.Get(f.url + "/account"); page.Status != 401 {
			t.Errorf("%s: signed in, %d", what, page.Status)
		}
	}
	// authorize returns where Begin sends the browser.
	authorize := func(b *oidctest.Browser) *url.URL {
		t.Helper()
		b.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		defer func() { b.CheckRedirect = nil }()
		to, err := url.Parse(b.Get(f.begin(b, "/")).Header.Get("Location"))
		if err != nil {
			t.Fatal(err)
		}
		return to
	}
	for name, value := range map[string]string{"nonce": "other", "state": "other", "code_challenge": "other"} {
		b := oidctest.NewBrowser(t, nil)
		to := authorize(b)
		query := to.Query()
		if query.Get(name) == "" || query.Get("code_challenge_method") != "S256" {
			t.Errorf("no %s in %s", name, to)
		}
		query.Set(name, value)
		to.RawQuery = query.Encode()
		refused("another "+name, b, b.SignIn(to.String(), "ada", "a"))
	}
	b := oidctest.NewBrowser(t, nil)
	refused("nothing begun", b, b.Get(f.url+"/login/callback?state=x&code=y"))
	to := authorize(b)
	other := oidctest.NewBrowser(t, nil)
	refused("begun in another browser", other, other.SignIn(to.String(), "ada", "a"))
	to = authorize(b)
	refused("refused", b, b.Get(f.url+"/login/callback?error=access_denied&error_description=no&state="+to.Query().Get("state")))
	refused("again", b, b.Get(f.url+"/login/callback?code=x&state="+to.Query().Get("state")))
	to = authorize(b)
	refused("a made up code", b, b.Get(f.url+"/login/callback?code=x&state="+to.Query().Get("state")))
}

// A name is one person's, and not that of an account which the registry itself has.
func TestNames(t *testing.T) {
	f := start(t)
	for user, want := range map[string]int{"root": 409, "robot+ci": 403} {
		b := oidctest.NewBrowser(t, nil)
		if page := b.SignIn(f.begin(b, "/"), user, users[user].Password); page.Status != want {
			t.Errorf("%s: %d %s", user, page.Status, page.Text)
		}
	}
	f.signedIn("ada")
	f.provider.SetUsers(map[string]oidctest.User{"ada": {Password: "x", Subject: "9"}})
	b := oidctest.NewBrowser(t, nil)
	if page := b.SignIn(f.begin(b, "/"), "ada", "x"); page.Status != 409 {
		t.Errorf("another ada: %d %s", page.Status, page.Text)
	}
	f.api(200, "GET", "/v2/", "root", "local")
	basic := oidctest.NewBrowser(t, nil).Get(f.url + "/login?password=1")
	if basic.Status != 401 || !strings.HasPrefix(basic.Header.Get("WWW-Authenticate"), "Basic ") {
		t.Errorf("the way for passwords: %d %q", basic.Status, basic.Header.Get("WWW-Authenticate"))
	}
}

// While the provider is down nobody signs in; who has a session or a token works on, through any process. New
// keys of the provider are learnt, and new groups at the next sign-in.
func TestProvider(t *testing.T) {
	f := start(t)
	f.signedIn("bob")
	f.provider.Rotate()
	bob := f.signedIn("bob")
	token := f.makeToken(bob, "laptop")
	f.api(403, "PUT", "/v2/team/app/manifests/v1", "bob", token)
	f.provider.SetUsers(map[string]oidctest.User{"bob": {Password: "b", Subject: "2", Groups: []string{"pushers"}}})
	f.api(403, "PUT", "/v2/team/app/manifests/v1", "bob", token)
	f.signedIn("bob")
	f.api(201, "PUT", "/v2/team/app/manifests/v1", "bob", token)
	f.provider.Stop()
	other := *f
	listening := httptest.NewUnstartedServer(nil)
	other.url = "http://" + listening.Listener.Addr().String()
	other.serve(listening)
	for _, process := range []*fixture{f, &other} {
		process.api(201, "PUT", "/v2/team/app/manifests/v2", "bob", token)
		process.api(200, "GET", "/v2/team/app/tags/list", "", f.grant("bob", token).Token)
		if page := bob.Get(process.url + "/r/team/app"); page.Status != 200 || !strings.Contains(page.Text, "bob") {
			t.Errorf("bob's session: %d %s", page.Status, page.Text)
		}
	}
	b := oidctest.NewBrowser(t, nil)
	page := b.Get(other.begin(b, "/"))
	if page.Status != 503 || !strings.Contains(page.Text, "cannot be used now (tokens and passwords work as before)") {
		t.Errorf("signing in: %d %s", page.Status, page.Text)
	}
}

// Forms count only from the page of the same session, and cookies are for this site alone.
func TestForms(t *testing.T) {
	f := start(t)
	ada, bob := f.signedIn("ada"), f.signedIn("bob")
	form := ada.Get(f.url + "/account").Form("/account/make")
	form.Set("label", "x")
	form.Set("days", "7")
	if page := ada.Post(f.url+"/account/make", form, "Sec-Fetch-Site", "cross-site"); page.Status != 403 {
		t.Errorf("a form of another site: %d", page.Status)
	}
	if page := bob.Post(f.url+"/account/make", form); page.Status != 403 {
		t.Errorf("a form of ada's page by bob: %d", page.Status)
	}
	for name, value := range map[string]string{"proof": "", "days": "9999", "label": strings.Repeat("x", 101)} {
		changed, _ := url.ParseQuery(form.Encode())
		changed.Set(name, value)
		if page := ada.Post(f.url+"/account/make", changed); page.Status != 403 && page.Status != 400 {
			t.Errorf("%s %q: %d", name, value, page.Status)
		}
	}
	form.Set("label", `"><script>alert(1)</script>`)
	page := ada.Post(f.url+"/account/make", form)
	if page.Status != 201 || !strings.Contains(page.Header.Get("Content-Security-Policy"), "form-action 'self'") || !strings.Contains(page.Text, "<script>alert(1)") {
		t.Errorf("a hostile name: %d %s", page.Status, page.Text)
	}
	address, err := url.Parse(f.url)
	if err != nil {
		t.Fatal(err)
	}
	for _, cookie := range ada.Jar.Cookies(address) { // a session is no way to change anything by the API
		r, err := http.NewRequest(http.MethodPut, f.url+"/v2/team/app/manifests/v1", strings.NewReader(index))
		if err != nil {
			t.Fatal(err)
		}
		r.AddCookie(cookie)
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if response.Body.Close(); response.StatusCode != 401 {
			t.Errorf("a push by cookie %s: %d", cookie.Name, response.StatusCode)
		}
	}
}

// The cookies of a registry that browsers reach by TLS are for it alone, and for no script.
func TestCookies(t *testing.T) {
	f := start(t)
	for proto, want := range map[string]string{"http": "davit-sign-in=", "https": "__Host-davit-sign-in="} {
		r, err := http.NewRequest(http.MethodGet, f.url+"/login/begin", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Forwarded-Proto", proto)
		response, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		cookie := response.Header.Get("Set-Cookie")
		if !strings.HasPrefix(cookie, want) || !strings.Contains(cookie, "HttpOnly; ") || !strings.Contains(cookie, "SameSite=Lax") || strings.Contains(cookie, "Secure") != (proto == "https") {
			t.Errorf("%s: %s", proto, cookie)
		}
		if to := response.Header.Get("Location"); !strings.Contains(to, url.QueryEscape(proto+"://")) {
			t.Errorf("%s: the way back is not in %s", proto, to)
		}
	}
}
