package oidc_test

import (
	"context"
	"encoding/json"
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
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"davit/internal/oidctest"
	"davit/internal/proctest"
	"davit/oci"
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

type lines struct{ proctest.Output }

func (l *lines) want(t *testing.T, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(l.String(), part) {
			t.Errorf("the log does not say %q:\n%s", part, l.String())
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
