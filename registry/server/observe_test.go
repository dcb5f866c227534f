package server

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"davit/internal/proctest"
)

// lines collects what a logger writes.
type lines struct{ proctest.Output }

// want returns the last line for which all the parts are there.
func (l *lines) want(t *testing.T, parts ...string) map[string]any {
	t.Helper()
	for line := range strings.Lines(l.String()) {
		found := true
		for _, part := range parts {
			found = found && strings.Contains(line, part)
		}
		if found {
			var object map[string]any
			if err := json.Unmarshal([]byte(line), &object); err != nil {
				t.Fatal(err)
			}
			return object
		}
	}
	t.Fatalf("no line has %q:\n%s", parts, l.String())
	return nil
}

func TestMetricsAndAccessLog(t *testing.T) {
	var log lines
	f := startWith(t, Options{AccessLog: slog.New(slog.NewJSONHandler(&log, nil))})
	f.pushImage("app", "v1", "layer")
	f.want(200, "GET", "/v2/app/manifests/v1", nil)
	f.want(404, "GET", "/v2/app/manifests/none", nil)
	f.do("FANCY", "/v2/", nil)
	_, text := f.want(200, "GET", "/metrics", nil)
	for _, line := range []string{
		"davit_registry_request_duration_seconds_count{route=\"manifest\",method=\"GET\",code=\"200\"} 1\n",
		"davit_registry_request_duration_seconds_bucket{route=\"manifest\",method=\"GET\",code=\"404\",le=\"+Inf\"} 1\n",
		"davit_registry_request_duration_seconds_count{route=\"uploads\",method=\"POST\",code=\"201\"} 2\n",
		"davit_registry_request_duration_seconds_count{route=\"ping\",method=\"other\",code=\"405\"} 1\n",
		"davit_registry_requests_in_flight 1\n",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("metrics lack %q:\n%s", line, text)
		}
	}
	log.want(t, `"method":"GET"`, "/v2/app/manifests/v1", `"status":200`, `"address":"127.0.0.1"`)
	log.want(t, "/v2/app/manifests/none", `"status":404`, `"error":"`)
}

// The wrapper of the metrics must not cost the kernel's copying of files.
func TestBodyIsSentByTheServersOwnWriter(t *testing.T) {
	inner := &readerFrom{}
	n, err := io.Copy(&seen{ResponseWriter: inner, patient: &patient{control: http.NewResponseController(inner)}}, io.LimitReader(&bytes.Buffer{}, 1))
	if err != nil || n != 7 || !inner.asked {
		t.Fatalf("copied %d, %v", n, err)
	}
}

type readerFrom struct {
	http.ResponseWriter
	asked bool
}

func (r *readerFrom) ReadFrom(io.Reader) (int64, error) { r.asked = true; return 7, nil }

func TestHealth(t *testing.T) {
	f := start(t, nil)
	f.want(200, "GET", "/healthz", nil)
	f.want(200, "GET", "/readyz", nil)
	if err := os.RemoveAll(filepath.Join(f.root, "new")); err != nil {
		t.Fatal(err)
	}
	f.want(200, "GET", "/readyz", nil) // one look counts for a while
	f.registry.readiness.Store(nil)
	_, body := f.want(503, "GET", "/readyz", nil)
	if strings.Contains(body, f.root) {
		t.Errorf("a path is told: %s", body)
	}
	f.want(200, "GET", "/healthz", nil)
}
