package auth_test

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"davit/registry/auth"
)

func TestHeader(t *testing.T) {
	want := auth.Credentials{Username: "joe", Password: "pä?>s", ServerAddress: "host:5000"}
	padded := want.EncodeHeader()
	for _, value := range []string{padded, strings.TrimRight(padded, "="), strings.NewReplacer("-", "+", "_", "/").Replace(padded)} {
		if got, err := auth.DecodeHeader(value); err != nil || got != want {
			t.Errorf("DecodeHeader(%s) = %+v, %v", value, got, err)
		}
	}
	combined := base64.URLEncoding.EncodeToString([]byte(`{"auth":"` + base64.StdEncoding.EncodeToString([]byte("a:b:c")) + `"}`))
	if got, err := auth.DecodeHeader(combined); err != nil || got.Username != "a" || got.Password != "b:c" {
		t.Errorf("DecodeHeader(auth) = %+v, %v", got, err)
	}
	for _, value := range []string{"", "e30="} {
		if got, err := auth.DecodeHeader(value); err != nil || !got.Anonymous() {
			t.Errorf("DecodeHeader(%q) = %+v, %v", value, got, err)
		}
	}
	if _, err := auth.DecodeHeader("%%%"); err == nil {
		t.Error("DecodeHeader took nonsense")
	}
	config := base64.URLEncoding.EncodeToString([]byte(`{"https://index.docker.io/v1/":{"username":"hub"},"host:5000":{"username":"own"}}`))
	byHost, err := auth.DecodeConfigHeader(config)
	if err != nil || byHost["docker.io"].Username != "hub" || byHost["host:5000"].Username != "own" {
		t.Errorf("DecodeConfigHeader = %+v, %v", byHost, err)
	}
}

func TestConfigFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "docker", "config.json")
	c, err := auth.LoadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Store(t.Context(), "docker.io", auth.Credentials{Username: "joe", Password: "a:b"}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var raw map[string]any
	if err := json.Unmarshal(b, &raw); err != nil {
		t.Fatal(err)
	}
	entry := raw["auths"].(map[string]any)[auth.IndexServer].(map[string]any)
	if entry["auth"] != base64.StdEncoding.EncodeToString([]byte("joe:a:b")) {
		t.Errorf("file holds %v", raw)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("the file's mode is %v", info.Mode())
	}
	again, err := auth.LoadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := again.Get(t.Context(), "docker.io"); err != nil || got.Username != "joe" || got.Password != "a:b" {
		t.Errorf("Get = %+v, %v", got, err)
	}
	if known, err := again.Erase(t.Context(), "registry-1.docker.io"); err != nil || !known {
		t.Errorf("Erase = %v, %v", known, err)
	}
	if got, err := again.Get(t.Context(), "docker.io"); err != nil || !got.Anonymous() {
		t.Errorf("Get after Erase = %+v, %v", got, err)
	}
}

// TestHelpers uses a helper program that keeps each server's entry in a file.
func TestHelpers(t *testing.T) {
	dir := t.TempDir()
	script := `#!/bin/sh
kept="` + dir + `/kept"
case "$1" in
store) cat > "$kept" ;;
get) read server; [ -f "$kept" ] || { echo "credentials not found in native keychain"; exit 1; }; cat "$kept" ;;
erase) rm -f "$kept" ;;
list) [ -f "$kept" ] && echo '{"helped:5000":"joe"}' || echo '{}' ;;
esac
`
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-davittest"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	path := filepath.Join(dir, "config.json")
	content := `{"credHelpers":{"helped:5000":"davittest"},"auths":{"plain":{"auth":"` + base64.StdEncoding.EncodeToString([]byte("p:q")) + `"}},"psFormat":"kept"}`
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := auth.LoadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.Get(t.Context(), "helped:5000"); err != nil || !got.Anonymous() {
		t.Errorf("Get of nothing = %+v, %v", got, err)
	}
	for _, creds := range []auth.Credentials{
		{Username: "joe", Password: "secret"},
		{Username: "joe", IdentityToken: "refresh"},
	} {
		if _, err := c.Store(t.Context(), "helped:5000", creds); err != nil {
			t.Fatal(err)
		}
		got, err := c.Get(t.Context(), "helped:5000")
		if err != nil || got.IdentityToken != creds.IdentityToken || (creds.IdentityToken == "" && (got.Username != "joe" || got.Password != "secret")) {
			t.Errorf("Get after storing %+v = %+v, %v", creds, got, err)
		}
	}
	if all := c.All(t.Context()); len(all) != 2 || all["plain"].Password != "q" || all["helped:5000"].IdentityToken != "refresh" {
		t.Errorf("All = %+v", all)
	}
	if known, err := c.Erase(t.Context(), "helped:5000"); err != nil || !known {
		t.Errorf("Erase = %v, %v", known, err)
	}
	if _, err := c.Erase(t.Context(), "plain"); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(path); !strings.Contains(string(b), `"psFormat": "kept"`) {
		t.Errorf("an unknown field was lost: %s", b)
	}
}
