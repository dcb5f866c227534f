package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/oci/ref"
	"davit/registry/auth"
	"davit/registry/client"
)

type policyFixture struct {
	*fixture
	policy *Policy
	path   string
	log    lines
}

// startPolicy runs a registry with the users ada and bob, whose passwords are their names, two robots, and
// rules.
func startPolicy(t *testing.T, rules ...Rule) *policyFixture {
	t.Helper()
	p := &policyFixture{path: filepath.Join(t.TempDir(), "rules.json")}
	p.writeRules(t, rules...)
	log := slog.New(slog.NewJSONHandler(&p.log, nil))
	policy, err := NewPolicy(p.path, newKey(), log)
	if err != nil {
		t.Fatal(err)
	}
	p.policy, p.fixture = policy, startWith(t, Options{Auth: policy})
	return p
}

func (p *policyFixture) writeRules(t *testing.T, rules ...Rule) {
	t.Helper()
	users := ""
	for _, user := range []string{"ada", "bob"} {
		hash, err := bcrypt.GenerateFromPassword([]byte(user), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		users += user + ":" + string(hash) + "\n"
	}
	sum := sha256.Sum256([]byte("long secret"))
	secret := hex.EncodeToString(sum[:])
	r := Rules{Htpasswd: p.path + ".users", Rules: rules, Robots: []Robot{
		{Name: "ci", Secret: secret, Expires: time.Now().Add(time.Hour)},
		{Name: "old", Secret: secret, Expires: time.Now().Add(-time.Hour)},
	}}
	content, err := json.Marshal(r)
	if err == nil {
		err = errors.Join(os.WriteFile(r.Htpasswd, []byte(users), 0o600), os.WriteFile(p.path, content, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// as makes a request with a user and password "user:password", or without when it is empty.
func (p *policyFixture) as(who, method, path string, status int) string {
	p.t.Helper()
	r, err := http.NewRequest(method, p.url+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	if name, password, ok := cutLast(who); ok {
		r.SetBasicAuth(name, password)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		p.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != status {
		p.t.Errorf("%s: %s %s: status %d, want %d: %s (%v)", who, method, path, response.StatusCode, status, body, err)
	}
	return string(body)
}

func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return "", "", false
	}
	return s[:i], s[i+1:], true
}

var (
	publicRule = Rule{Name: "public", Repositories: []string{"public/*"}, Users: []string{"*"}, Actions: []string{"pull"}}
	ciRule     = Rule{Name: "ci", Repositories: []string{"*"}, Users: []string{"robot+ci"}, Actions: []string{"pull", "push"}}
	adaRule    = Rule{Name: "ada", Repositories: []string{"*"}, Users: []string{"ada"}, Actions: []string{"admin"}}
	frozenRule = Rule{Name: "frozen", Repositories: []string{"frozen"}, Users: []string{"*"}, Actions: []string{"push", "delete"}, Deny: true}
)

func TestRulesDecide(t *testing.T) {
	p := startPolicy(t, frozenRule, publicRule, ciRule, adaRule)
	const uploads, tags = "/blobs/uploads/", "/tags/list"
	for _, c := range []struct {
		who, method, path string
		status            int
	}{
		{"", "GET", "/v2/", 401},
		{"ada:ada", "GET", "/v2/", 200},
		{"bob:bob", "GET", "/v2/", 200},
		{"", "GET", "/v2/public/a" + tags, 404},
		{"", "GET", "/v2/private" + tags, 401},
		{"bob:bob", "GET", "/v2/private" + tags, 403},
		{"", "POST", "/v2/public/a" + uploads, 401},
		{"bob:bob", "POST", "/v2/public/a" + uploads, 403},
		{"robot+ci:long secret", "POST", "/v2/public/a" + uploads, 202},
		{"robot+ci:short", "POST", "/v2/a" + uploads, 401},
		{"robot+old:long secret", "GET", "/v2/", 401},
		{"robot+ci:long secret", "DELETE", "/v2/a/manifests/v", 403},
		{"ada:ada", "POST", "/v2/frozen" + uploads, 403},
		{"ada:ada", "GET", "/v2/frozen" + tags, 404},
		{"ada:ada", "GET", "/v2/_catalog", 200},
		{"bob:bob", "GET", "/v2/_catalog", 403},
		{"bob:bob", "GET", "/metrics", 403},
		{"ada:ada", "GET", "/metrics", 200},
		{"", "GET", "/healthz", 200},
	} {
		p.policy.failed.forget("127.0.0.1")
		p.as(c.who, c.method, c.path, c.status)
	}
	p.log.want(t, "request denied", `"rule":"frozen"`, `"user":"ada"`, `"action":"push"`, `"repository":"frozen"`)
	p.log.want(t, "request denied", `"rule":"no rule allows it"`, `"user":"bob"`)
}

func TestRulesAreReadAgain(t *testing.T) {
	p := startPolicy(t, publicRule)
	p.as("bob:bob", "GET", "/v2/team/tags/list", 403)
	changed := func(write func()) {
		write()
		future := time.Now().Add(time.Minute)
		if err := os.Chtimes(p.path, future, future); err != nil {
			t.Fatal(err)
		}
		state := *p.policy.state.Load()
		state.looked = time.Time{}
		p.policy.state.Store(&state)
	}
	changed(func() {
		p.writeRules(t, Rule{Name: "team", Repositories: []string{"team"}, Users: []string{"users"}, Actions: []string{"pull"}})
	})
	p.as("bob:bob", "GET", "/v2/team/tags/list", 404)
	changed(func() {
		if err := os.WriteFile(p.path, []byte(`{"rules":[],"mispelled":1}`), 0o600); err != nil {
			t.Fatal(err)
		}
	})
	p.as("bob:bob", "GET", "/v2/team/tags/list", 404)
	p.log.want(t, "the old ones hold", "mispelled")
}

func TestWrongPasswordsAreThrottled(t *testing.T) {
	p := startPolicy(t, adaRule)
	for range freeFailures {
		p.as("ada:guess", "GET", "/v2/", 401)
	}
	p.as("ada:ada", "GET", "/v2/", 429)
	p.as("ada:ada", "GET", "/token", 429)
	var failed throttle
	now := time.Now()
	for _, want := range []time.Duration{0, 0, 0, 0, time.Second, 2 * time.Second, 4 * time.Second} {
		if failed.note("a", now); failed.wait("a", now) != want {
			t.Fatalf("wait is %s, want %s", failed.wait("a", now), want)
		}
	}
	if failed.wait("a", now.Add(5*time.Second)) > 0 || failed.wait("b", now) > 0 {
		t.Error("waits too long, or hits others")
	}
}

// davit's own client goes through the Bearer flow: pushes as one user, is refused as another.
func TestTokensWithAClient(t *testing.T) {
	p := startPolicy(t, publicRule, adaRule)
	host := strings.TrimPrefix(p.url, "http://")
	name, err := ref.Parse(host + "/private/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(client.Options{Attempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	content := `{"schemaVersion":2,"mediaType":"` + oci.MediaTypeIndex + `","manifests":[]}`
	token := func(who, scope string) string {
		var answer struct{ Token string }
		if err := json.Unmarshal([]byte(p.as(who, "GET", "/token?scope="+scope, 200)), &answer); err != nil {
			t.Fatal(err)
		}
		return "Bearer " + answer.Token
	}
	put := func(status int, authorization string) {
		t.Helper()
		p.want(status, "PUT", "/v2/private/app/manifests/v1", strings.NewReader(content), "Content-Type", oci.MediaTypeIndex, "Authorization", authorization)
	}
	put(201, token("ada:ada", "repository:private/app:pull,push"))
	put(401, token("ada:ada", "repository:private/app:pull"))
	put(401, token("ada:ada", "repository:other:pull,push"))
	put(403, token("bob:bob", "repository:private/app:pull,push"))
	put(401, "Bearer "+strings.Repeat("x", 40))
	for user, class := range map[string]error{"ada": nil, "bob": errdefs.ErrForbidden, "": errdefs.ErrUnauthorized} {
		repo, err := c.Repository(name, auth.Credentials{Username: user, Password: user, ServerAddress: host})
		if err != nil {
			t.Fatal(err)
		}
		if _, err = repo.Resolve(t.Context(), "v1"); !errors.Is(err, class) {
			t.Errorf("%q resolves: %v, want %v", user, err, class)
		}
		repo.Close()
	}
}

func TestTokens(t *testing.T) {
	key, now := tokens{newKey()}, time.Now()
	signed, err := key.sign(claim{User: "ada", Expires: now.Add(time.Minute).Unix()})
	if err != nil {
		t.Fatal(err)
	}
	if c, err := key.open(signed, now); err != nil || c.User != "ada" {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := key.open(signed, now.Add(2*time.Minute)); err == nil {
		t.Error("an expired token opens")
	}
	if _, err := (tokens{newKey()}).open(signed, now); err == nil {
		t.Error("another key's token opens")
	}
	for i := range signed {
		if _, err := key.open(signed[:i]+"~"+signed[i+1:], now); err == nil {
			t.Fatalf("a token changed at %d opens", i)
		}
	}
}

func writePair(t *testing.T, dir, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{"c": {Type: "CERTIFICATE", Bytes: der}, "k": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCertificateIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	writePair(t, dir, "first")
	c, err := newCertificate(filepath.Join(dir, "c"), filepath.Join(dir, "k"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	want := func(name string) {
		t.Helper()
		loaded := *c.loaded.Load()
		loaded.looked, loaded.changed = time.Time{}, [2]time.Time{}
		c.loaded.Store(&loaded)
		pair, err := c.get(&tls.ClientHelloInfo{})
		if err != nil || pair.Leaf.Subject.CommonName != name {
			t.Fatalf("certificate is %v, %v; want %s", pair.Leaf.Subject, err, name)
		}
	}
	want("first")
	writePair(t, dir, "second")
	want("second")
	if err := os.WriteFile(filepath.Join(dir, "k"), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	want("second")
}

// The example's rules are valid and mean what its README says.
func TestExampleRules(t *testing.T) {
	content, err := os.ReadFile("../../examples/registry/rules.json")
	if err != nil {
		t.Fatal(err)
	}
	var r Rules
	if err := errors.Join(json.Unmarshal(content, &r), r.check()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		user, repository, action string
		allowed                  bool
	}{
		{"", "public/a", "pull", true},
		{"", "team/a", "pull", false},
		{"bob", "team/a", "pull", true},
		{"bob", "team/a", "push", false},
		{"robot+ci", "release/a", "push", true},
		{"ada", "release/a", "delete", false},
		{"ada", "*", "admin", true},
	} {
		if rule, allowed := r.decide(who{user: c.user}, c.repository, c.action); allowed != c.allowed {
			t.Errorf("%+v: %v by %q", c, allowed, rule)
		}
	}
}
