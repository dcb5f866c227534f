package main

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"davit/oci"
	registry "davit/registry/server"
	"davit/registry/storage/dir"
)

// Quotas and retention on the command line, of a registry that wants a login.
func TestQuotaAndRetention(t *testing.T) {
	root := t.TempDir()
	write := func(name string, value any) string {
		t.Helper()
		content, err := json.Marshal(value)
		if text, ok := value.(string); ok {
			content = []byte(text)
		}
		path := filepath.Join(root, name)
		if err == nil {
			err = os.WriteFile(path, content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	hash, err := bcrypt.GenerateFromPassword([]byte("ada"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	rules := write("rules.json", map[string]any{
		"htpasswd": write("users", "ada:"+string(hash)+"\n"),
		"rules":    []any{map[string]any{"name": "ada", "repositories": []string{"*"}, "users": []string{"ada"}, "actions": []string{"admin"}}},
		"quotas":   []any{map[string]any{"name": "team", "repositories": []string{"team/*"}, "together": true, "bytes": "1G", "tags": 10}},
		"retention": []any{
			map[string]any{"name": "newest", "repositories": []string{"*"}, "tags": []string{"b*"}, "keepNewest": 1},
		},
	})
	log := slog.New(slog.DiscardHandler)
	policy, err := registry.NewPolicy(rules, []byte("a key of tokens that is long enough"), log)
	if err != nil {
		t.Fatal(err)
	}
	store, err := dir.Open(filepath.Join(root, "content"))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(registry.New(store, log, registry.Options{Auth: policy, NoDeltas: true, NoPages: true}))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	write("config.json", map[string]any{"auths": map[string]any{host: map[string]string{"auth": "YWRhOmFkYQ=="}}})
	t.Setenv("DOCKER_CONFIG", root)
	for _, tag := range []string{"b1", "b2", "v1"} {
		r, err := http.NewRequest("PUT", server.URL+"/v2/team/app/manifests/"+tag, strings.NewReader(`{"schemaVersion":2,"manifests":[]}`))
		if err != nil {
			t.Fatal(err)
		}
		r.SetBasicAuth("ada", "ada")
		r.Header.Set("Content-Type", oci.MediaTypeIndex)
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != 201 {
			t.Fatal(response.Status)
		}
	}
	use := func(want string, args ...string) {
		t.Helper()
		var out bytes.Buffer
		if err := useRegistry(t.Context(), args, &out, io.Discard, log); err != nil {
			t.Errorf("%v: %v", args, err)
		}
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("%v: %q, want %q", args, out.String(), want)
		}
	}
	name := host + "/team/app"
	use(`(?s)QUOTA.*-  +this repository +34B +- +3 +-\nteam +team/\* together +34B +1GiB +3 +10\n`, "quota", name)
	use(`(?s)tag b1 +sha256:\w{64} +\S+ \S+ +newest\n1 tags and 0 manifests would be deleted; 2 tags stay\n`, "retention", "--dry-run", name)
	use(`b1\nb2\nv1\n`, "tags", name)
	use(`1 tags and 0 manifests deleted; 2 tags stay\n`, "retention", name)
	use(`^b2\nv1\n`, "tags", name)
}
