package oidc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"davit/internal/oidctest"
	"davit/oci"
	"davit/oci/errdefs"
	"davit/oci/ref"
	"davit/registry/audit"
	"davit/registry/auth"
	"davit/registry/client"
	"davit/registry/oidc"
	"davit/registry/people"
	"davit/registry/server"
	"davit/registry/storage"
	"davit/registry/storage/dir"
)

const index = `{"schemaVersion":2,"mediaType":"` + oci.MediaTypeIndex + `","manifests":[]}`

// fixture is a registry whose people sign in at a real provider.
type fixture struct {
	t        *testing.T
	url      string
	store    storage.Store
	rules    string // file
	provider *oidctest.Provider
	log      *lines
	audited  string // file
}

type lines struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

func (l *lines) want(t *testing.T, parts ...string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, part := range parts {
		if !strings.Contains(l.all.String(), part) {
			t.Errorf("the log does not say %q:\n%s", part, l.all.String())
		}
	}
}

var users = map[string]oidctest.User{
	"ada":      {Password: "a", Subject: "1", Groups: []string{"staff", "pushers"}},
	"bob":      {Password: "b", Subject: "2", Groups: []string{"staff"}},
	"eve":      {Password: "e", Subject: "3"},
	"root":     {Password: "r", Subject: "4", Groups: []string{"pushers"}},
	"robot+ci": {Password: "c", Subject: "5"},
}

// start runs provider and registry; the htpasswd file knows root, whose password is "local".
func start(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, log: &lines{}, audited: filepath.Join(t.TempDir(), "audit")}
	var err error
	if f.store, err = dir.Open(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	listening := httptest.NewUnstartedServer(nil)
	f.url = "http://" + listening.Listener.Addr().String()
	f.provider = oidctest.Start(t, f.url+"/login/callback", users)
	f.writeRules(t.TempDir())
	f.serve(listening)
	return f
}

func (f *fixture) writeRules(folder string) {
	f.t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte("local"), bcrypt.MinCost)
	if err != nil {
		f.t.Fatal(err)
	}
	f.rules = filepath.Join(folder, "rules.json")
	rules, err := json.Marshal(server.Rules{
		Htpasswd: filepath.Join(folder, "users"),
		OIDC:     &oidc.Config{Issuer: f.provider.Issuer, ClientID: oidctest.ClientID, SecretFile: filepath.Join(folder, "secret")},
		Rules: []server.Rule{
			{Name: "eve is out", Repositories: []string{"*"}, Users: []string{"eve"}, Actions: []string{"admin"}, Deny: true},
			{Name: "staff reads", Repositories: []string{"team/*"}, Users: []string{"@staff"}, Actions: []string{"pull"}},
			{Name: "pushers push", Repositories: []string{"team/*"}, Users: []string{"@pushers", "root"}, Actions: []string{"pull", "push"}},
			{Name: "public", Repositories: []string{"public/*"}, Users: []string{"*"}, Actions: []string{"pull"}},
		},
	})
	for name, content := range map[string][]byte{"users": []byte("root:" + string(hash) + "\n"), "secret": []byte(oidctest.Secret + "\n"), "rules.json": rules} {
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, name), content, 0o600)
		}
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

// serve runs a registry process over the store until the test ends.
func (f *fixture) serve(listening *httptest.Server) {
	f.t.Helper()
	log := slog.New(slog.NewTextHandler(io.MultiWriter(f.log, f.t.Output()), nil))
	policy, err := server.NewPolicy(f.rules, make([]byte, 32), log)
	if err != nil {
		f.t.Fatal(err)
	}
	written, err := audit.Open(f.audited, log)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { written.Close(context.Background()) })
	registry := server.New(f.store, log, server.Options{Auth: policy, HistoryKeep: time.Hour, Audit: written})
	f.t.Cleanup(registry.Close)
	listening.Config.Handler = registry
	listening.Start()
	f.t.Cleanup(listening.Close)
}

// begin is the address that "Sign in" of a page leads to.
func (f *fixture) begin(b *oidctest.Browser, back string) string {
	f.t.Helper()
	page := b.Get(f.url + "/login?back=" + url.QueryEscape(back))
	link := page.Links()["Sign in at "+strings.TrimPrefix(f.provider.Issuer, "http://")]
	if page.Status != 200 || link == "" {
		f.t.Fatalf("the login page (%d) has no way to the provider: %s", page.Status, page.Text)
	}
	return f.url + link
}

func (f *fixture) signedIn(user string) *oidctest.Browser {
	f.t.Helper()
	b := oidctest.NewBrowser(f.t, nil)
	page := b.SignIn(f.begin(b, "/account"), user, users[user].Password)
	if page.Status != 200 || page.URL.String() != f.url+"/account" {
		f.t.Fatalf("%s ends at %s, %d: %s", user, page.URL, page.Status, page.Text)
	}
	return b
}

// makeToken goes through the form of the account page, and returns what that shows.
func (f *fixture) makeToken(b *oidctest.Browser, label string) string {
	f.t.Helper()
	form := b.Get(f.url + "/account").Form("/account/make")
	form.Set("label", label)
	form.Set("days", "7")
	page := b.Post(f.url+"/account/make", form)
	if page.Status != 201 || page.Header.Get("Cache-Control") != "no-store" {
		f.t.Fatalf("no token: %d %s", page.Status, page.Text)
	}
	for n := range page.Document.Descendants() {
		if oidctest.Attribute(n, "id") == "secret" && people.IsToken(n.FirstChild.Data) {
			return n.FirstChild.Data
		}
	}
	f.t.Fatalf("the page shows no token: %s", page.Text)
	return ""
}

// api makes a request with user and password, or with a Bearer token where there is no user.
func (f *fixture) api(status int, method, path, user, password string) string {
	f.t.Helper()
	body := ""
	if method == http.MethodPut {
		body = index
	}
	r, err := http.NewRequest(method, f.url+path, strings.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	r.Header.Set("Content-Type", oci.MediaTypeIndex)
	switch {
	case user != "":
		r.SetBasicAuth(user, password)
	case password != "":
		r.Header.Set("Authorization", "Bearer "+password)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		f.t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != status {
		f.t.Errorf("%s %s as %q: status %d, want %d: %s (%v)", method, path, user, response.StatusCode, status, content, err)
	}
	return string(content)
}

// wantAudited waits for lines about ada in the audit log, which is written behind the requests.
func (f *fixture) wantAudited(parts ...string) {
	f.t.Helper()
	for end := time.Now().Add(10 * time.Second); ; <-time.After(10 * time.Millisecond) {
		content, err := os.ReadFile(f.audited)
		missing := ""
		for _, part := range parts {
			if !regexp.MustCompile(part + `[^\n]*"user":"ada"`).Match(content) {
				missing = part
			}
		}
		if missing == "" {
			return
		}
		if time.Now().After(end) {
			f.t.Fatalf("no %s of ada's in the audit log: %s, %v", missing, content, err)
		}
	}
}

type granted struct {
	Token   string
	Refresh string `json:"refresh_token"`
}

// grant asks for a token of the Bearer flow.
func (f *fixture) grant(user, password string) (g granted) {
	f.t.Helper()
	answer := f.api(200, "GET", "/token?offline_token=true&scope="+url.QueryEscape("repository:team/app:pull,push"), user, password)
	if err := json.Unmarshal([]byte(answer), &g); err != nil {
		f.t.Fatal(err)
	}
	return g
}

// skopeo copies an image within the registry, as somebody.
func (f *fixture) skopeo(t *testing.T, credentials string) {
	t.Helper()
	image := "docker://" + strings.TrimPrefix(f.url, "http://") + "/team/app:"
	cmd := exec.CommandContext(t.Context(), "skopeo", "copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false",
		"--src-creds", credentials, "--dest-creds", credentials, image+"v1", image+"copied")
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func (f *fixture) resolve(user, password string) error {
	f.t.Helper()
	host := strings.TrimPrefix(f.url, "http://")
	name, err := ref.Parse(host + "/team/app:v1")
	if err != nil {
		f.t.Fatal(err)
	}
	c, err := client.New(client.Options{Attempts: 1})
	if err != nil {
		f.t.Fatal(err)
	}
	repo, err := c.Repository(name, auth.Credentials{Username: user, Password: password, ServerAddress: host})
	if err != nil {
		f.t.Fatal(err)
	}
	defer repo.Close()
	_, err = repo.Resolve(f.t.Context(), "v1")
	return err
}

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
