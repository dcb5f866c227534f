// Package oidctest runs a real OpenID provider on loopback, as test/prepare-oidc builds it, and a browser
// without a screen to sign in at it.
package oidctest

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"davit/internal/proctest"

	"golang.org/x/net/html"
)

// The one client of the provider.
const (
	ClientID = "registry"
	Secret   = "registry's secret"
)

// User is somebody at the provider.
type User struct {
	Password string   `json:"password"`
	Subject  string   `json:"subject"`
	Groups   []string `json:"groups"`
}

// Provider is a running one.
type Provider struct {
	Issuer string

	t     testing.TB
	users string
	cmd   *exec.Cmd
	lines chan string
}

// Start runs a provider until the test ends; redirect is where it sends browsers back to.
func Start(t testing.TB, redirect string, users map[string]User) *Provider {
	t.Helper()
	p := &Provider{t: t, users: filepath.Join(t.TempDir(), "users.json"), lines: make(chan string, 10)}
	p.SetUsers(users)
	p.cmd = exec.Command(proctest.Prepare(t, "prepare-oidc"), "-client", ClientID, "-secret", Secret, "-redirect", redirect, "-users", p.users)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var errs strings.Builder
	p.cmd.Stderr = &errs
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			p.lines <- scanner.Text()
		}
		close(p.lines)
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-read
		p.cmd.Wait()
		if t.Failed() {
			t.Logf("the provider says:\n%s", errs.String())
		}
	})
	_, p.Issuer, _ = strings.Cut(p.wait("listening"), " ")
	return p
}

func (p *Provider) wait(word string) string {
	p.t.Helper()
	select {
	case line := <-p.lines:
		if !strings.HasPrefix(line, word) {
			p.t.Fatalf("the provider says %q, want %s", line, word)
		}
		return line
	case <-time.After(30 * time.Second):
		p.t.Fatalf("the provider does not say %s after 30 s", word)
		return ""
	}
}

// SetUsers changes who there is.
func (p *Provider) SetUsers(users map[string]User) {
	p.t.Helper()
	content, err := json.Marshal(users)
	if err == nil {
		err = os.WriteFile(p.users+".new", content, 0o600)
	}
	if err == nil {
		err = os.Rename(p.users+".new", p.users)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// Rotate replaces the key that ID tokens are signed with.
func (p *Provider) Rotate() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		p.t.Fatal(err)
	}
	p.wait("rotated")
}

// Stop ends the provider.
func (p *Provider) Stop() {
	p.t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Fatal(err)
	}
	for range p.lines { // until its end is closed
	}
}

// Browser follows redirects and keeps cookies.
type Browser struct {
	*http.Client
	t testing.TB
}

// NewBrowser returns one without cookies; transport may be nil.
func NewBrowser(t testing.TB, transport http.RoundTripper) *Browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &Browser{&http.Client{Jar: jar, Transport: transport}, t}
}

// Page is what a browser shows.
type Page struct {
	Status   int
	Header   http.Header
	URL      *url.URL
	Text     string // of the elements
	Document *html.Node
}

// Get opens an address.
func (b *Browser) Get(address string) Page {
	b.t.Helper()
	response, err := b.Client.Get(address)
	return b.page(response, err)
}

// Post sends a form, as a page of the same site would; headers are names and values.
func (b *Browser) Post(address string, form url.Values, headers ...string) Page {
	b.t.Helper()
	r, err := http.NewRequest(http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	response, err := b.Do(r)
	return b.page(response, err)
}

func (b *Browser) page(response *http.Response, err error) Page {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	document, err := html.Parse(strings.NewReader(string(body)))
	if err != nil {
		b.t.Fatal(err)
	}
	var text []string
	for n := range document.Descendants() {
		if n.Type == html.TextNode {
			text = append(text, strings.Fields(n.Data)...)
		}
	}
	return Page{response.StatusCode, response.Header, response.Request.URL, strings.Join(text, " "), document}
}

// Links returns where the links of a page lead, by their text.
func (p Page) Links() map[string]string {
	found := map[string]string{}
	for n := range p.Document.Descendants() {
		if n.Type == html.ElementNode && n.Data == "a" && n.FirstChild != nil {
			found[strings.TrimSpace(n.FirstChild.Data)] = Attribute(n, "href")
		}
	}
	return found
}

// Form returns the fields of the form that goes to an address with this path, as they are filled in.
func (p Page) Form(path string) url.Values {
	for n := range p.Document.Descendants() {
		if n.Type != html.ElementNode || n.Data != "form" || !strings.HasSuffix(Attribute(n, "action"), path) {
			continue
		}
		values := url.Values{}
		for field := range n.Descendants() {
			if name := Attribute(field, "name"); name != "" {
				values.Set(name, Attribute(field, "value"))
			}
		}
		return values
	}
	return nil
}

// Attribute returns an element's attribute.
func Attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

// SignIn opens an address that leads to the provider, fills in its form, and returns the page it ends at.
func (b *Browser) SignIn(address, user, password string) Page {
	b.t.Helper()
	asked := b.Get(address)
	form := asked.Form("/login/username")
	if form == nil {
		b.t.Fatalf("%s leads to %s (%d), which asks for no user: %s", address, asked.URL, asked.Status, asked.Text)
	}
	form.Set("username", user)
	form.Set("password", password)
	return b.Post(asked.URL.Scheme+"://"+asked.URL.Host+"/login/username", form)
}
