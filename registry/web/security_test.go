package web_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"davit/oci"
	"davit/registry/server"
)

// hostile is text that breaks out of most places where a page could put it.
const hostile = `"><script>alert(1)</script><img src=x onerror=alert(1)>'--></style></title>{{.}}`

// wantHarmless checks that a page runs no script but ours and leads nowhere by script.
func (a *answer) wantHarmless() {
	a.t.Helper()
	for _, script := range a.all("script") {
		if !strings.HasPrefix(attribute(script, "src"), "/static/script.js?") || script.FirstChild != nil {
			a.t.Errorf("a script that is not ours: %v", script)
		}
	}
	for n := range a.root.Descendants() {
		for _, at := range n.Attr {
			if strings.HasPrefix(at.Key, "on") || at.Key == "style" || strings.HasPrefix(strings.ToLower(strings.TrimSpace(at.Val)), "javascript:") {
				a.t.Errorf("<%s %s=%q>", n.Data, at.Key, at.Val)
			}
		}
	}
	for _, name := range []string{"img", "iframe", "object", "base", "style"} {
		for _, n := range a.all(name) {
			if name != "img" || !strings.HasPrefix(attribute(n, "src"), "/static/icon.svg") {
				a.t.Errorf("an element <%s> that is not ours", name)
			}
		}
	}
	for name, want := range map[string]string{"Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self';", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY"} {
		if got := a.header.Get(name); !strings.HasPrefix(got, want) {
			a.t.Errorf("%s is %q", name, got)
		}
	}
	if csp := a.header.Get("Content-Security-Policy"); strings.Contains(csp, "unsafe") || !strings.Contains(csp, "frame-ancestors 'none'") {
		a.t.Errorf("the policy is %s", csp)
	}
}

func TestHostileTextIsText(t *testing.T) {
	f := start(t, server.Options{})
	name := strings.NewReplacer("/", "\\", "=", ":").Replace(hostile)
	evil := layer(t, name+"/", name+"/"+name+"=x", "link⇒"+hostile, "javascript:alert(1)=x", "bad\xff\xfeutf8=x", "line\nbreak=x", "\u202egnp.exe=x")
	image := oci.Image{
		OS: hostile, Architecture: "amd64", Author: hostile,
		History: []oci.History{{CreatedBy: hostile}},
		Config:  oci.Config{User: hostile, Cmd: []string{hostile}, Env: []string{hostile + "=" + hostile}, Labels: map[string]string{hostile: hostile, "url": "javascript:alert(1)"}},
	}
	d := f.pushImage("evil", "v1", image, evil)
	f.pushImage("evil", "v2", oci.Image{}, layer(t, "a=b"))
	config := f.pushBlob("evil", []byte("{}"), hostile)
	blob := f.pushBlob("evil", []byte("data"), hostile)
	blob.Annotations = map[string]string{"org.opencontainers.image.title": hostile}
	artifact := f.push("evil", "art", oci.MediaTypeManifest, oci.Manifest{
		SchemaVersion: 2, MediaType: oci.MediaTypeManifest, ArtifactType: hostile, Config: config,
		Layers: []oci.Descriptor{blob}, Subject: &d, Annotations: map[string]string{hostile: hostile},
	})
	q := url.QueryEscape(hostile)
	for path, status := range map[string]int{
		"/": 200, "/?q=" + q: 200, "/r/evil": 200, "/r/evil?q=" + q + "&sort=" + q + "&page=" + q: 200, "/r/evil?deleted=" + q + "&q=" + q: 200,
		"/r/evil/-/tag/v1": 200, "/r/evil/-/tag/v1?done=" + q: 200, "/r/evil/-/tag/art": 200,
		"/r/evil/-/manifest/" + string(d.Digest): 200, "/r/evil/-/manifest/" + string(artifact.Digest): 200,
		"/r/evil/-/files/" + string(d.Digest): 200, "/r/evil/-/files/" + string(d.Digest) + "?path=" + url.QueryEscape(name): 200,
		"/r/evil/-/files/" + string(d.Digest) + "?path=" + q: 404,
		"/r/evil/-/diff?from=v1&to=v2":                       200, "/r/evil/-/diff?from=v2&to=" + string(d.Digest) + "&platform=" + q: 200,
		"/r/evil/-/diff?from=" + q: 200, "/r/evil/-/diff?from=v1&to=" + q: 400,
		"/r/" + url.PathEscape(hostile): 404, "/r/evil/-/tag/" + url.PathEscape(hostile): 400, "/r/evil/-/manifest/" + url.PathEscape(hostile): 400,
		"/static/" + url.PathEscape(hostile): 404, "/r/evil/-/" + url.PathEscape(hostile): 404, "/login?back=" + q: 303,
		"/r/../../etc/passwd": 404, "/static/../web.go": 404,
	} {
		f.get(status, path).wantHarmless()
	}
	f.get(200, "/r/evil/-/files/"+string(d.Digest)).wants(name+"/", "link → "+hostile, `bad\xff\xfeutf8`, `line\nbreak`, `\u202egnp.exe`)
}

func TestHostHeaderIsText(t *testing.T) {
	f := start(t, server.Options{})
	f.shop("shop")
	r, err := http.NewRequest("GET", f.url+"/r/shop/-/tag/v1", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "host'onload=alert(1)"
	f.send(r).wantHarmless()
}

// rules is a registry where anonymous may pull public/*, ada everything below team/, push included, and bob
// may only pull team/shared.
func rules(t *testing.T) *fixture {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	users := filepath.Join(folder, "users")
	sum := sha256.Sum256([]byte("r2d2"))
	config, err := json.Marshal(server.Rules{
		Htpasswd: users,
		Robots:   []server.Robot{{Name: "ci", Secret: hex.EncodeToString(sum[:])}},
		Rules: []server.Rule{
			{Name: "robot", Repositories: []string{"*"}, Users: []string{"robot+ci"}, Actions: []string{"pull", "push", "delete"}},
			{Name: "ada", Repositories: []string{"team/*"}, Users: []string{"ada"}, Actions: []string{"pull", "push"}},
			{Name: "bob", Repositories: []string{"team/shared"}, Users: []string{"bob"}, Actions: []string{"pull"}},
			{Name: "open", Repositories: []string{"public/*"}, Users: []string{"*"}, Actions: []string{"pull"}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, "rules.json")
	for name, content := range map[string][]byte{users: []byte("ada:" + string(hash) + "\nbob:" + string(hash) + "\n"), path: config} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	policy, err := server.NewPolicy(path, make([]byte, 32), slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	f := start(t, server.Options{Auth: policy})
	robot := f.as("robot+ci", "r2d2")
	for _, repo := range []string{"team/shared", "team/secret", "public/site"} {
		robot.shop(repo)
	}
	return f
}

func TestVisitorsSeeWhatTheyMayPull(t *testing.T) {
	f := rules(t)
	for _, c := range []struct {
		who  *fixture
		sees []string
	}{
		{f, []string{"public/site"}},
		{f.as("bob", "secret"), []string{"public/site", "team/shared"}},
		{f.as("ada", "secret"), []string{"public/site", "team/shared", "team/secret"}},
	} {
		page := c.who.get(200, "/")
		for _, repo := range []string{"public/site", "team/shared", "team/secret"} {
			listed := strings.Contains(page.body, `href="/r/`+repo+`"`)
			sees := strings.Contains(strings.Join(c.sees, " "), repo)
			if listed != sees {
				t.Errorf("%s lists %s: %v", c.who.auth[0], repo, listed)
			}
			d := oci.DigestOf(nil)
			for _, path := range []string{"", "/-/tag/v1", "/-/diff?from=v1&to=v2", "/-/manifest/" + string(d), "/-/files/" + string(d)} {
				want := map[bool]string{true: "200", false: "404"}[sees]
				if c.who.auth[0] == "" && !sees {
					want = "401"
				}
				if strings.HasSuffix(path, string(d)) && want == "200" {
					want = "404"
				}
				c.who.get(map[string]int{"200": 200, "401": 401, "404": 404}[want], "/r/"+repo+path)
			}
		}
	}
	// What is hidden and what is not there look the same.
	bob := f.as("bob", "secret")
	hidden, absent := bob.get(404, "/r/team/secret").body, bob.get(404, "/r/team/absent").body
	if strings.ReplaceAll(hidden, "team/secret", "team/absent") != absent {
		t.Error("the answers differ")
	}
	page := bob.get(200, "/r/team/shared/-/tag/v1")
	page.wants("History of v1")
	if len(page.all("form")) != 0 {
		t.Error("bob, who may not push, is offered a rollback")
	}
}

func TestLogin(t *testing.T) {
	f := rules(t)
	page := f.get(401, "/login?back=/r/public/site")
	if got := page.header.Get("WWW-Authenticate"); !strings.HasPrefix(got, "Basic realm=") {
		t.Errorf("the challenge is %q", got)
	}
	f.get(401, "/r/team/shared").wants("Log in to see this repository")
	bob := f.as("bob", "secret")
	for back, want := range map[string]string{"/r/team/shared?q=x": "/r/team/shared?q=x", "//elsewhere/": "/", "https://elsewhere/": "/", "/\\elsewhere": "/", "": "/", "/v2/": "/"} {
		if to := bob.get(303, "/login?back="+url.QueryEscape(back)).header.Get("Location"); to != want {
			t.Errorf("back to %q is %q", back, to)
		}
	}
	f.as("bob", "wrong").get(401, "/").wants("Wrong user or password.")
	f.get(200, "/static/style.css")
	if !strings.Contains(bob.get(200, "/").text("header"), "Logged in as bob") {
		t.Error("the page does not say who is logged in")
	}
}

func TestPasswordAlone(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(path, []byte("ada:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, anonymousPull := range []bool{false, true} {
		users, err := server.NewHtpasswd(path, anonymousPull)
		if err != nil {
			t.Fatal(err)
		}
		f := start(t, server.Options{Auth: users})
		ada := f.as("ada", "secret")
		one, _ := ada.shop("shop")
		ada.pushImage("shop", "v1", oci.Image{})
		ada.get(200, "/").wants("shop")
		form := url.Values{"tag": {"v1"}, "digest": {string(one.Digest)}}
		if anonymousPull {
			if page := f.get(200, "/r/shop/-/tag/v1"); len(page.all("form")) != 0 {
				t.Error("an anonymous visitor is offered a rollback")
			}
		} else {
			f.get(401, "/")
			f.get(401, "/r/shop")
		}
		if a := f.post("/r/shop/-/rollback", form); a.status != 401 {
			t.Errorf("an anonymous rollback: %d", a.status)
		}
		if a := ada.post("/r/shop/-/rollback", form); a.status != 303 {
			t.Errorf("ada's rollback: %d", a.status)
		}
		f.as("ada", "wrong").get(401, "/")
	}
}

// A browser that is logged in sends its password with any site's forms: those are refused, here and in the API.
func TestFormsOfOtherSites(t *testing.T) {
	f := rules(t)
	ada := f.as("ada", "secret")
	ada.pushImage("team/shared", "v1", oci.Image{})
	page := ada.get(200, "/r/team/shared/-/tag/v1")
	form := url.Values{}
	for _, input := range page.all("input") {
		form.Set(attribute(input, "name"), attribute(input, "value"))
	}
	api := "/davit/v1/team/shared/tags/v1/rollback?digest=" + form.Get("digest")
	for _, headers := range [][]string{
		{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://evil.example"}, {"Origin", "null"},
	} {
		for _, path := range []string{"/r/team/shared/-/rollback", api} {
			a := ada.post(path, form, headers...)
			if a.status != 403 {
				t.Errorf("%s with %v: %d", path, headers, a.status)
			}
			if path != api {
				a.wants("403 Forbidden")
			}
		}
	}
	bob := f.as("bob", "secret")
	if a := bob.post("/r/team/shared/-/rollback", form); a.status != 403 {
		t.Errorf("bob's rollback: %d", a.status)
	}
	if a := bob.post("/r/team/secret/-/rollback", form); a.status != 404 {
		t.Errorf("bob's rollback of what he may not see: %d", a.status)
	}
	if a := ada.post("/r/team/shared/-/rollback", form, "Origin", f.url, "Sec-Fetch-Site", "same-origin"); a.status != 303 {
		t.Errorf("ada's rollback: %d %s", a.status, a.text("main"))
	}
}
