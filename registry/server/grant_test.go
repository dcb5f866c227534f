package server

import (
	"encoding/json"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"davit/oci"
	"davit/registry/auth"
	"davit/registry/client"
)

// grantOf posts a form to /token.
func (p *policyFixture) grantOf(status int, pairs ...string) tokenAnswer {
	p.t.Helper()
	form := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	_, body := p.want(status, "POST", "/token", strings.NewReader(form.Encode()), "Content-Type", "application/x-www-form-urlencoded")
	var answer tokenAnswer
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		p.t.Fatal(err)
	}
	return answer
}

// passwords replaces the users, as an operator's htpasswd does.
func (p *policyFixture) passwords(users map[string]string) {
	p.t.Helper()
	text := ""
	for user, password := range users {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			p.t.Fatal(err)
		}
		text += user + ":" + string(hash) + "\n"
	}
	path := p.path + ".users"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err == nil {
		later := info.ModTime().Add(time.Second)
		err = os.Chtimes(path, later, later)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

func TestRefreshTokens(t *testing.T) {
	p := startPolicy(t, adaRule)
	const scope = "repository:app:pull"
	if got := p.grantOf(200, "grant_type", "password", "username", "ada", "password", "ada", "scope", scope); got.Refresh != "" {
		t.Error("a refresh token that nobody asked for")
	}
	login := p.grantOf(200, "grant_type", "password", "username", "ada", "password", "ada", "access_type", "offline", "scope", scope)
	if login.Refresh == "" || login.AccessToken == "" {
		t.Fatalf("login answers %+v", login)
	}
	refreshed := p.grantOf(200, "grant_type", "refresh_token", "refresh_token", login.Refresh, "scope", scope)
	use := func(status int, token string) {
		t.Helper()
		p.want(status, "GET", "/v2/app/tags/list", nil, "Authorization", "Bearer "+token)
	}
	use(404, refreshed.AccessToken)
	use(401, login.Refresh) // it is good for tokens, not for content
	p.grantOf(401, "grant_type", "refresh_token", "refresh_token", refreshed.AccessToken)
	p.grantOf(401, "grant_type", "refresh_token", "refresh_token", login.Refresh+"x")
	p.grantOf(401, "grant_type", "password", "username", "ada", "password", "guess")
	p.grantOf(400, "grant_type", "authorization_code")
	var basic tokenAnswer
	if err := json.Unmarshal([]byte(p.as("robot+ci:long secret", "GET", "/token?offline_token=true", 200)), &basic); err != nil || basic.Refresh == "" {
		t.Fatalf("%+v, %v", basic, err)
	}
	if got := p.as("", "GET", "/token?offline_token=true", 200); strings.Contains(got, "refresh_token") {
		t.Errorf("nobody has a refresh token: %s", got)
	}
	p.passwords(map[string]string{"ada": "changed", "bob": "bob"})
	use(401, refreshed.AccessToken)
	p.grantOf(401, "grant_type", "refresh_token", "refresh_token", login.Refresh)
	p.grantOf(200, "grant_type", "refresh_token", "refresh_token", basic.Refresh)
	login = p.grantOf(200, "grant_type", "password", "username", "ada", "password", "changed", "access_type", "offline")
	p.grantOf(200, "grant_type", "refresh_token", "refresh_token", login.Refresh)
	p.passwords(map[string]string{"bob": "bob"})
	p.grantOf(401, "grant_type", "refresh_token", "refresh_token", login.Refresh)
}

// What "docker login" keeps serves the engine's client, and skopeo, from then on.
func TestIdentityTokensWithClients(t *testing.T) {
	p := startPolicy(t, adaRule)
	host := strings.TrimPrefix(p.url, "http://")
	c, err := client.New(client.Options{Attempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	identity, err := c.Login(t.Context(), auth.Credentials{Username: "ada", Password: "ada", ServerAddress: p.url})
	if err != nil || identity == "" {
		t.Fatalf("login returns %q, %v", identity, err)
	}
	token := p.grantOf(200, "grant_type", "refresh_token", "refresh_token", identity, "scope", "repository:app:pull,push")
	p.want(201, "PUT", "/v2/app/manifests/v1", strings.NewReader(`{"schemaVersion":2,"manifests":[]}`), "Content-Type", oci.MediaTypeIndex, "Authorization", "Bearer "+token.Token)
	config, err := json.Marshal(map[string]any{"auths": map[string]any{host: map[string]string{"auth": "YWRhOg==", "identitytoken": identity}}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "auth.json")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		t.Fatal(err)
	}
	inspect := func() (string, error) {
		out, err := exec.Command("skopeo", "inspect", "--raw", "--tls-verify=false", "--authfile", path, "docker://"+host+"/app:v1").CombinedOutput()
		return string(out), err
	}
	if out, err := inspect(); err != nil || !strings.Contains(out, "schemaVersion") {
		t.Fatalf("skopeo: %s, %v", out, err)
	}
	p.passwords(map[string]string{"ada": "changed"})
	if out, err := inspect(); err == nil {
		t.Fatalf("skopeo gets in with a revoked token: %s", out)
	}
}
