package main

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"davit/internal/oidctest"
	"davit/oci/errdefs"
	"davit/registry/auth"
	"davit/registry/oidc"
	registry "davit/registry/server"
	"davit/registry/storage/dir"
)

// "davit registry login" says where to sign in and keeps what the registry gives.
func TestRegistryLogin(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	listening := httptest.NewUnstartedServer(nil)
	host := listening.Listener.Addr().String()
	provider := oidctest.Start(t, "http://"+host+"/login/callback", map[string]oidctest.User{"ada": {Password: "a", Subject: "1"}})
	folder := t.TempDir()
	rules, err := json.Marshal(registry.Rules{
		Rules: []registry.Rule{},
		OIDC:  &oidc.Config{Issuer: provider.Issuer, ClientID: oidctest.ClientID, SecretFile: filepath.Join(folder, "secret")},
	})
	for name, content := range map[string][]byte{"rules": rules, "secret": []byte(oidctest.Secret)} {
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, name), content, 0o600)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	policy, err := registry.NewPolicy(filepath.Join(folder, "rules"), make([]byte, 32), log)
	if err != nil {
		t.Fatal(err)
	}
	store, err := dir.Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	listening.Config.Handler = registry.New(store, log, registry.Options{Auth: policy, NoPages: true})
	listening.Start()
	t.Cleanup(listening.Close)

	said, out := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := signIn(t.Context(), []string{"login", "--days", "7", host}, out, io.Discard, log)
		out.CloseWithError(err)
		ended <- err
	}()
	line := make([]byte, 1000)
	n, err := said.Read(line)
	asked := regexp.MustCompile(`Open  (\S+)\n.*The code is  (\S+) `).FindStringSubmatch(string(line[:n]))
	if err != nil || asked == nil {
		t.Fatalf("said %q, %v", line[:n], err)
	}
	b := oidctest.NewBrowser(t, nil)
	b.Get(asked[1])
	b.Post(provider.Issuer+"/device/login", url.Values{"user_code": {asked[2]}, "username": {"ada"}, "password": {"a"}})
	b.Get(provider.Issuer + "/device/confirm?action=allowed")
	rest, err := io.ReadAll(said)
	if err != nil || !strings.Contains(string(rest), "Logged in to "+host+" as ada until") {
		t.Fatalf("said %q, %v", rest, err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	config, err := auth.LoadConfig(auth.DefaultConfigPath())
	if err != nil {
		t.Fatal(err)
	}
	if kept, err := config.Get(t.Context(), host); err != nil || kept.Username != "ada" || !strings.HasPrefix(kept.Password, "davit_pat_") {
		t.Errorf("kept %+v, %v", kept, err)
	}
	var told strings.Builder
	if err := forget(t.Context(), []string{"forget", "ada", "--root", folder}, &told, io.Discard); err != nil || !strings.Contains(told.String(), "Forgot ada") {
		t.Errorf("forgetting: %q, %v", told.String(), err)
	}
	if err := forget(t.Context(), []string{"forget", "ada", "--root", folder}, &told, io.Discard); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("forgetting again: %v", err)
	}
}

// A registry where nobody signs in says so.
func TestRegistryLoginElsewhere(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	store, err := dir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	listening := httptest.NewServer(registry.New(store, log, registry.Options{}))
	t.Cleanup(listening.Close)
	err = signIn(t.Context(), []string{"login", strings.TrimPrefix(listening.URL, "http://")}, io.Discard, io.Discard, log)
	if err == nil || !strings.Contains(err.Error(), `people do not sign in at`) {
		t.Errorf("error %v", err)
	}
}
