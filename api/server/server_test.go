package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/events"

	"davit/engine"
	"davit/oci/errdefs"
)

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, path string
		want          map[string]string // nil: no match
	}{
		{"containers/{id}/json", "containers/web/json", map[string]string{"id": "web"}},
		{"containers/{id}/json", "containers//json", nil},
		{"containers/{id}/json", "containers/a/b/json", nil},
		{"images/{name...}/json", "images/busybox/json", map[string]string{"name": "busybox"}},
		{"images/{name...}/json", "images/host:5000/a/b/json", map[string]string{"name": "host:5000/a/b"}},
		{"images/{name...}/json", "images/a%2Fb/json", map[string]string{"name": "a/b"}},
		{"images/{name...}/json", "images/json", nil},
		{"images/{name...}", "images/a/b", map[string]string{"name": "a/b"}},
		{"_ping", "_ping", map[string]string{}},
	} {
		got, ok := match(strings.Split(c.pattern, "/"), strings.Split(c.path, "/"))
		if ok != (c.want != nil) || (ok && !cmp.Equal(got, c.want)) {
			t.Errorf("%s on %s: got %v, %v", c.pattern, c.path, got, ok)
		}
	}
}

// TestEveryRouteIsReached guards against a pattern that an earlier one shadows.
func TestEveryRouteIsReached(t *testing.T) {
	table := (&Server{}).table()
	for _, group := range table {
		for i, r := range group {
			path := strings.NewReplacer("{", "", "}", "", "...", "").Replace(strings.Join(r.parts, "/"))
			for _, earlier := range group[:i] {
				if _, shadowed := match(earlier.parts, strings.Split(path, "/")); shadowed && (earlier.method == r.method || earlier.method == "*") {
					t.Errorf("%s /%s is answered by /%s", r.method, strings.Join(r.parts, "/"), strings.Join(earlier.parts, "/"))
				}
			}
		}
	}
}

func TestSplitVersion(t *testing.T) {
	for path, want := range map[string]struct {
		path    string
		version apiVersion
		bad     error
	}{
		"/_ping":                {path: "/_ping", version: 51},
		"/v1.24/info":           {path: "/info", version: 24},
		"/v1.51/images/a/json":  {path: "/images/a/json", version: 51},
		"/volumes/v1.2":         {path: "/volumes/v1.2", version: 51},
		"/v1.23/info":           {bad: errdefs.ErrInvalid},
		"/v1.52/info":           {bad: errdefs.ErrInvalid},
		"/v2.0/info":            {bad: errdefs.ErrNotFound},
		"/version":              {path: "/version", version: 51},
		"/v1.40/containers/x/y": {path: "/containers/x/y", version: 40},
	} {
		rest, v, err := splitVersion(path)
		if want.bad != nil {
			if !errors.Is(err, want.bad) {
				t.Errorf("%s: got %v, want %v", path, err, want.bad)
			}
			continue
		}
		if err != nil || rest != want.path || v != want.version {
			t.Errorf("%s: got %s, %s, %v", path, rest, v, err)
		}
	}
}

func TestStatusOf(t *testing.T) {
	for want, err := range map[int]error{
		http.StatusNotFound:            fmt.Errorf("look: %w", errdefs.NotFound("No such container: x")),
		http.StatusConflict:            errdefs.Conflict("taken"),
		http.StatusNotModified:         errdefs.NotModified("runs"),
		http.StatusServiceUnavailable:  errdefs.Unavailable("later"),
		http.StatusInternalServerError: io.ErrUnexpectedEOF,
	} {
		if got := statusOf(err); got != want {
			t.Errorf("%v: got %d, want %d", err, got, want)
		}
	}
}

func TestFiltersInBothForms(t *testing.T) {
	want := engine.Filters{"label": {"a=b"}}
	for _, text := range []string{`{"label":["a=b"]}`, `{"label":{"a=b":true,"c":false}}`} {
		got, err := (&request{form: map[string][]string{"filters": {text}}}).filters()
		if err != nil || !cmp.Equal(got, want) {
			t.Errorf("%s: got %v, %v", text, got, err)
		}
	}
	if _, err := (&request{form: map[string][]string{"filters": {"{"}}}).filters(); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("bad JSON: got %v", err)
	}
}

func TestDetachKeys(t *testing.T) {
	for text, want := range map[string][]byte{"": {16, 17}, "ctrl-p,ctrl-q": {16, 17}, "a": {'a'}, "ctrl-@": {0}, "ctrl-[,x": {27, 'x'}} {
		if got, err := detachKeys(text); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"ctrl-", "abc", "ctrl-!", "a,"} {
		if got, err := detachKeys(text); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
}

func TestEscapesPassesOnEverythingButTheKeys(t *testing.T) {
	for input, want := range map[string]struct {
		out      string
		detached bool
	}{
		"hello":           {"hello", false},
		"ab\x10\x11cd":    {"ab", true},
		"\x10x\x10\x10y":  {"\x10x\x10\x10y", false},
		"a\x10\x10\x11":   {"a\x10", true},
		"\x11\x11 \x10 b": {"\x11\x11 \x10 b", false},
	} {
		for name, r := range map[string]io.Reader{"whole": strings.NewReader(input), "bytewise": iotest.OneByteReader(strings.NewReader(input))} {
			out, err := io.ReadAll(&escapes{r: r, keys: []byte{16, 17}})
			if detached := errors.Is(err, errDetached); string(out) != want.out || detached != want.detached {
				t.Errorf("%q %s: got %q, %v; want %q, %v", input, name, out, err, want.out, want.detached)
			}
		}
	}
}

func TestFrame(t *testing.T) {
	var out, errs bytes.Buffer
	var stream bytes.Buffer
	for i, text := range []string{"one", "two"} {
		if err := frame(&stream, byte(i+1), []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := engine.Demultiplex(&stream, &out, &errs); err != nil || out.String() != "one" || errs.String() != "two" {
		t.Errorf("got %q, %q, %v", out.String(), errs.String(), err)
	}
}

func TestWants(t *testing.T) {
	start := events.Message{Type: events.ContainerEventType, Action: "health_status: healthy", Scope: "local", Actor: events.Actor{
		ID: "0123456789abcdef", Attributes: map[string]string{"name": "web", "image": "nginx", "tier": "front"},
	}}
	for name, c := range map[string]struct {
		f    engine.Filters
		want bool
	}{
		"nothing":        {engine.Filters{}, true},
		"type":           {engine.Filters{"type": {"image"}}, false},
		"action":         {engine.Filters{"event": {"health_status"}}, true},
		"by name":        {engine.Filters{"container": {"web"}}, true},
		"by short id":    {engine.Filters{"container": {"012345"}}, true},
		"another":        {engine.Filters{"container": {"db"}}, false},
		"of its image":   {engine.Filters{"image": {"nginx"}}, true},
		"label":          {engine.Filters{"label": {"tier=front"}}, true},
		"another label":  {engine.Filters{"label": {"tier=back"}}, false},
		"of a network":   {engine.Filters{"network": {"web"}}, false},
		"two, one fails": {engine.Filters{"container": {"web"}, "type": {"image"}}, false},
	} {
		if got := wants(c.f, start); got != c.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}
