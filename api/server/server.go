package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/common"

	"davit/engine"
	"davit/internal/version"
	"davit/oci/errdefs"
)

// The versions of the API that are answered.
const (
	NewestVersion = "1.51"
	OldestVersion = "1.24"
)

// Options are what a Server needs.
type Options struct {
	Engine *engine.Engine
	Log    *slog.Logger
}

// Server is the handler of the whole API.
type Server struct {
	Options
	routes routes
}

// New returns the handler.
func New(o Options) *Server {
	s := &Server{Options: o}
	s.routes = s.table()
	return s
}

// handler answers one request; an error is sent by the server, in Docker's form.
type handler func(w http.ResponseWriter, r *request) error

// request is an HTTP request with what the router found out.
type request struct {
	*http.Request
	version apiVersion        // of the API that the client speaks
	vars    map[string]string // the named parts of the path
	form    map[string][]string
}

// apiVersion is an API version, 1.minor.
type apiVersion int

func (v apiVersion) before(minor int) bool { return int(v) < minor }

func (v apiVersion) String() string { return "1." + strconv.Itoa(int(v)) }

func parseVersion(s string) (apiVersion, bool) {
	minor, ok := strings.CutPrefix(s, "1.")
	n, err := strconv.Atoi(minor)
	return apiVersion(n), ok && err == nil
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	h := w.Header()
	h.Set("Api-Version", NewestVersion)
	h.Set("Docker-Experimental", "false")
	h.Set("Ostype", "linux")
	h.Set("Server", "davit/"+version.Version+" (linux)")
	if err := s.serve(w, hr); err != nil {
		s.fail(w, hr, s.Engine.System.Explain(err))
	}
}

func (s *Server) serve(w http.ResponseWriter, hr *http.Request) error {
	path, v, err := splitVersion(hr.URL.EscapedPath())
	if err != nil {
		return err
	}
	handle, vars, found := s.routes.find(hr.Method, path)
	if !found {
		return errdefs.NotFound("page not found")
	}
	r := &request{Request: hr, version: v, vars: vars, form: hr.URL.Query()}
	return handle(w, r)
}

// splitVersion takes /v1.NN off a path. Without it the client speaks the newest version.
func splitVersion(path string) (string, apiVersion, error) {
	newest, _ := parseVersion(NewestVersion)
	oldest, _ := parseVersion(OldestVersion)
	rest, ok := strings.CutPrefix(path, "/v")
	if !ok || rest == "" || rest[0] < '0' || rest[0] > '9' {
		return path, newest, nil
	}
	text, rest, _ := strings.Cut(rest, "/")
	v, ok := parseVersion(text)
	switch {
	case !ok:
		return "", 0, errdefs.NotFound("page not found")
	case v < oldest:
		return "", 0, errdefs.Invalid("client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", v, OldestVersion)
	case v > newest:
		return "", 0, errdefs.Invalid("client version %s is too new. Maximum supported API version is %s", v, NewestVersion)
	}
	return "/" + rest, v, nil
}

// statusOf is the one table from error classes to status codes.
func statusOf(err error) int {
	return errdefs.Find(err, []errdefs.Row[int]{
		{Class: errdefs.ErrInvalid, Meaning: http.StatusBadRequest},
		{Class: errdefs.ErrUnauthorized, Meaning: http.StatusUnauthorized},
		{Class: errdefs.ErrForbidden, Meaning: http.StatusForbidden},
		{Class: errdefs.ErrNotFound, Meaning: http.StatusNotFound},
		{Class: errdefs.ErrConflict, Meaning: http.StatusConflict},
		{Class: errdefs.ErrNotModified, Meaning: http.StatusNotModified},
		{Class: errdefs.ErrNotImplemented, Meaning: http.StatusNotImplemented},
		{Class: errdefs.ErrTooManyRequest, Meaning: http.StatusTooManyRequests},
		{Class: errdefs.ErrUnavailable, Meaning: http.StatusServiceUnavailable},
	}, http.StatusInternalServerError)
}

// fail sends an error. A client that went away hears nothing.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
		return
	}
	status := statusOf(err)
	if status == http.StatusInternalServerError {
		s.Log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	if status == http.StatusNotModified {
		w.WriteHeader(status)
		return
	}
	_ = writeJSON(w, status, common.ErrorResponse{Message: err.Error()}) // the client may be gone
}

// writeJSON sends a value as Docker does: no HTML escapes, a newline at the end.
func writeJSON(w http.ResponseWriter, status int, value any) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(value)
}

// decode reads a JSON body into a value; an empty one leaves it as it is if that is allowed.
func (r *request) decode(into any, mayBeEmpty bool) error {
	body := json.NewDecoder(r.Body)
	err := body.Decode(into)
	switch {
	case errors.Is(err, io.EOF) && mayBeEmpty:
		return nil
	case errors.Is(err, io.EOF):
		return errdefs.Invalid("invalid JSON: got EOF while reading request body")
	case err != nil:
		return errdefs.New(errdefs.ErrInvalid, "invalid JSON: %w", err)
	}
	if _, err := body.Token(); !errors.Is(err, io.EOF) {
		return errdefs.Invalid("unexpected content after JSON")
	}
	return nil
}

// query returns a parameter's first value.
func (r *request) query(name string) string {
	if v := r.form[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// flag returns a boolean parameter, by Docker's rule: anything is true but a few words.
func (r *request) flag(name string) bool {
	switch strings.ToLower(strings.TrimSpace(r.query(name))) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// flagOr is flag with a default.
func (r *request) flagOr(name string, otherwise bool) bool {
	if _, given := r.form[name]; !given {
		return otherwise
	}
	return r.flag(name)
}

// number returns an integer parameter, and whether there is one.
func (r *request) number(name string) (int, bool, error) {
	text := r.query(name)
	if text == "" {
		return 0, false, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, false, errdefs.Invalid("invalid value for %s: %q", name, text)
	}
	return n, true, nil
}

// filters returns the parameter "filters", in either of its forms: {"label":["a"]} and, from old
// clients, {"label":{"a":true}}.
func (r *request) filters() (engine.Filters, error) {
	text := r.query("filters")
	if text == "" {
		return engine.Filters{}, nil
	}
	lists := map[string][]string{}
	if json.Unmarshal([]byte(text), &lists) == nil {
		return lists, nil
	}
	sets := map[string]map[string]bool{}
	if err := json.Unmarshal([]byte(text), &sets); err != nil {
		return nil, errdefs.New(errdefs.ErrInvalid, "invalid filter: %w", err)
	}
	f := engine.Filters{}
	for field, values := range sets {
		for value, on := range values {
			if on {
				f[field] = append(f[field], value)
			}
		}
	}
	return f, nil
}

// builderVersion is what _ping says of building: 1 is the classic builder, 2 BuildKit.
const builderVersion = "1"

func (s *Server) ping(w http.ResponseWriter, r *request) error {
	h := w.Header()
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Builder-Version", builderVersion)
	h.Set("Swarm", "inactive")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if r.Method == http.MethodHead {
		h.Set("Content-Length", "0")
		return nil
	}
	_, err := io.WriteString(w, "OK")
	return err
}

func (s *Server) versionInfo(w http.ResponseWriter, r *request) error {
	v := s.Engine.System.Version()
	v.APIVersion, v.MinAPIVersion = NewestVersion, OldestVersion
	v.Components[0].Details["ApiVersion"], v.Components[0].Details["MinAPIVersion"] = NewestVersion, OldestVersion
	v.Arch = runtime.GOARCH
	return writeJSON(w, http.StatusOK, v)
}
