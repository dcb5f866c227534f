package client_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"davit/registry/auth"
	"davit/registry/client"
)

// tokenWorld is a registry that takes Bearer tokens, and the server that hands them out.
type tokenWorld struct {
	t       *testing.T
	noGet   bool
	mu      sync.Mutex
	granted []string // "METHOD scope" of each exchange
	valid   map[string]string
	server  *httptest.Server
}

func newTokenWorld(t *testing.T) *tokenWorld {
	w := &tokenWorld{t: t, valid: map[string]string{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/token", w.token)
	mux.HandleFunc("/v2/", w.registry)
	w.server = httptest.NewServer(mux)
	t.Cleanup(w.server.Close)
	return w
}

func (w *tokenWorld) host() string { return strings.TrimPrefix(w.server.URL, "http://") }

func (w *tokenWorld) token(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	user, password, _ := r.BasicAuth()
	if r.Method == http.MethodGet && w.noGet {
		rw.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	if r.Method == http.MethodPost {
		user, password = r.FormValue("username"), r.FormValue("password")
		if r.FormValue("grant_type") == "refresh_token" && r.FormValue("refresh_token") == "identity" {
			user, password = "joe", "secret"
		}
	}
	if user != "" && (user != "joe" || password != "secret") {
		rw.WriteHeader(http.StatusUnauthorized)
		return
	}
	scopes := strings.Join(r.Form["scope"], " ")
	if scopes == "" {
		scopes = strings.Join(r.URL.Query()["scope"], " ")
	}
	if user == "" {
		scopes = strings.ReplaceAll(scopes, ",push", "") // nobody may pull only
	}
	token := fmt.Sprintf("token-%d", len(w.granted))
	w.granted = append(w.granted, r.Method+" "+scopes)
	w.valid[token] = scopes
	json.NewEncoder(rw).Encode(map[string]any{"token": token, "expires_in": 300, "refresh_token": "identity"})
}

func (w *tokenWorld) registry(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	scopes, ok := w.valid[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
	need := "pull"
	if r.Method == http.MethodPost {
		need = "push"
	}
	if !ok || (r.URL.Path != "/v2/" && !strings.Contains(scopes, need)) {
		rw.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="test,one",scope="repository:x:%s"`, w.server.URL, need))
		rw.WriteHeader(http.StatusUnauthorized)
		io.WriteString(rw, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
		return
	}
	switch {
	case r.Method == http.MethodPost:
		rw.Header().Set("Location", "/v2/x/upload")
		rw.WriteHeader(http.StatusAccepted)
	case r.Method == http.MethodPut:
		rw.WriteHeader(http.StatusCreated)
	default:
		io.WriteString(rw, `{"tags":["a"]}`)
	}
}

func (w *tokenWorld) exchanges() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.granted)
}

func TestBearer(t *testing.T) {
	w := newTokenWorld(t)
	c := newClient(t, client.Options{})
	repo := repository(t, c, w.host()+"/x", auth.Credentials{})
	for range 3 {
		if tags, err := repo.Tags(t.Context()); err != nil || len(tags) != 1 {
			t.Fatalf("Tags = %v, %v", tags, err)
		}
	}
	if got := w.exchanges(); !slices.Equal(got, []string{"GET repository:x:pull"}) {
		t.Errorf("three requests took the exchanges %q", got)
	}
	_, err := repo.Upload(t.Context(), blobOf([]byte("x")), opener([]byte("x")))
	if err == nil || !strings.Contains(err.Error(), "push access denied for "+w.host()+"/x") {
		t.Errorf("anonymous Upload = %v", err)
	}
}

func TestBearerCredentials(t *testing.T) {
	cases := map[string]struct {
		creds  auth.Credentials
		noGet  bool
		method string
	}{
		"password":             {auth.Credentials{Username: "joe", Password: "secret"}, false, "GET"},
		"password by POST":     {auth.Credentials{Username: "joe", Password: "secret"}, true, "POST"},
		"identity token":       {auth.Credentials{IdentityToken: "identity"}, false, "POST"},
		"identity without GET": {auth.Credentials{IdentityToken: "identity"}, true, "POST"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			w := newTokenWorld(t)
			w.noGet = test.noGet
			repo := repository(t, newClient(t, client.Options{}), w.host()+"/x", test.creds)
			if _, err := repo.Upload(t.Context(), blobOf([]byte("x")), opener([]byte("x"))); err != nil {
				t.Fatal(err)
			}
			if got := w.exchanges(); !slices.Equal(got, []string{test.method + " repository:x:pull,push"}) {
				t.Errorf("exchanges %q", got)
			}
		})
	}
}

func TestBearerLogin(t *testing.T) {
	w := newTokenWorld(t)
	c := newClient(t, client.Options{})
	identity, err := c.Login(t.Context(), auth.Credentials{Username: "joe", Password: "secret", ServerAddress: "http://" + w.host() + "/v2/"})
	if err != nil || identity != "identity" {
		t.Errorf("Login = %q, %v", identity, err)
	}
	if _, err := c.Login(t.Context(), auth.Credentials{Username: "joe", Password: "wrong", ServerAddress: w.host()}); err == nil || !strings.Contains(err.Error(), "incorrect username or password") {
		t.Errorf("Login with a wrong password = %v", err)
	}
}
