package main

import (
	"bytes"
	"io"
	"log/slog"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"davit/oci"
	registry "davit/registry/server"
	"davit/registry/storage/dir"
)

func TestTagsAndRollback(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	store, err := dir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	handler := registry.New(store, log, registry.Options{HistoryKeep: time.Hour})
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	name := strings.TrimPrefix(server.URL, "http://") + "/team/app"
	for _, tag := range []string{"a", "b"} { // two indexes, which need nothing else
		index := `{"schemaVersion":2,"mediaType":"` + oci.MediaTypeIndex + `","manifests":[],"annotations":{"n":"` + tag + `"}}`
		r := httptest.NewRequest("PUT", "/v2/team/app/manifests/v1", strings.NewReader(index))
		r.Header.Set("Content-Type", oci.MediaTypeIndex)
		w := httptest.NewRecorder()
		if handler.ServeHTTP(w, r); w.Code != 201 {
			t.Fatal(w.Body)
		}
	}
	use := func(want string, args ...string) {
		t.Helper()
		var out bytes.Buffer
		err := useRegistry(t.Context(), args, &out, io.Discard, log)
		got := out.String()
		if err != nil {
			got = err.Error()
		}
		if !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("%v: %q, want %q", args, got, want)
		}
	}
	use(`^v1\n$`, "tags", name)
	use(`(?s)TAG.*v1@\{0\} +sha256:\w{64} +\S+ \S+ +192.0.2.1\nv1@\{1\} +sha256`, "tags", name, "--history")
	use(`:v1: sha256:\w{64}\n$`, "rollback", name+":v1")
	use(`v1@\{2\}`, "tags", "--history", name)
	use(`:v1: sha256:\w{64}\n$`, "rollback", name+":v1@{1}")
	use(`the history of .* ends at @\{3\}`, "rollback", name+":v1@{9}")
	use(`has no tag`, "rollback", name)
	use(`want REPOSITORY:TAG@\{N\}`, "rollback", name+":v1@{x}")
	use(`has no history`, "rollback", name+":v2")
}
