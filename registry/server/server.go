// Package server is davit's registry: the OCI distribution specification 1.1 over a storage.Store, with
// what clients expect beyond it (catalog, Docker's schema 2, chunked and resumed uploads).
//
//	GET|HEAD   /v2/                                       ping
//	GET        /v2/_catalog                               repositories
//	GET|HEAD   /v2/<name>/blobs/<digest>                  DELETE too
//	POST       /v2/<name>/blobs/uploads/                  start, single-shot, or mount
//	*          /v2/<name>/blobs/uploads/<id>              PATCH, PUT, GET, DELETE
//	GET|HEAD   /v2/<name>/manifests/<tag or digest>       PUT, DELETE too
//	GET        /v2/<name>/tags/list
//	GET        /v2/<name>/referrers/<digest>
//	GET        /metrics, /healthz, /readyz
//	GET|POST   /token                                     with a Policy: Docker's Bearer flow
//	GET        /davit/v1/<name>/history                   the logs of all tags, deleted ones too
//	GET        /davit/v1/<name>/tags/<tag>/history        the log of one
//	POST       /davit/v1/<name>/tags/<tag>/rollback       ?digest=: name again what the log has
//	GET        /davit/v1/<name>/quota                     quotas, and what is used of them
//	GET|DELETE /davit/v1/<name>/retention                 what the rules let go; DELETE: now
//	GET        /davit/v1/<name>/delta/<digest>            ?have=...&most=%: of a layer, what others do not have
//	POST       /davit/v1/signin                          people who sign in on another device, see signIn
//	GET        /, /r/, /login, /account, /static/        pages for people, see registry/web
//
// What the specification leaves open: a manifest's config and layers must be in the repository, the
// manifests of an index need not be (sparse indexes); a repository's blobs are visible only in
// repositories that they were pushed to or mounted in.
package server

import (
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"davit/internal/turn"
	"davit/oci/ref"
	"davit/registry/audit"
	"davit/registry/cache"
	"davit/registry/delta"
	"davit/registry/people"
	"davit/registry/quota"
	"davit/registry/storage"
	"davit/registry/web"
	"davit/registry/webhook"
)

const (
	// manifestLimit is the largest manifest accepted, in bytes; the specification asks for 4 MiB at least.
	manifestLimit  = 16 << 20
	defaultRefresh = 10 * time.Minute
)

// Server answers the registry protocol. It is an http.Handler.
type Server struct {
	store     storage.Store
	log       *slog.Logger
	auth      Authorizer
	patience  time.Duration // with clients, see clientPatience
	refresh   time.Duration // age above which looking at a blob makes its link young again
	manifests *manifestCache
	options   Options
	turns     turn.Turns[string] // of tags that move, by key
	metrics   metrics
	deltas    *delta.Service
	quotas    *quota.Ledger
	cache     *cache.Cache // nil: no upstreams
	eviction  eviction
	readiness atomic.Pointer[readiness]
	pages     *web.Pages // nil: none
	origins   http.CrossOriginProtection
}

// Options are the rules of a registry. The zero value keeps no deleted manifest and has no immutable tag.
type Options struct {
	Auth          Authorizer    // nil: everybody may do everything
	HistoryKeep   time.Duration // how long a tag's former digests and deleted manifests can be brought back
	Immutable     []string      // patterns TAG or REPOSITORY:TAG, with * for any characters
	Audit         *audit.Log    // of who did what; nil: none
	AccessLog     *slog.Logger  // gets a record for every request; nil: none
	RedirectBlobs bool          // send clients to the store itself for blobs, where it has addresses for them
	NoPages       bool          // serve programs only
	Quota         quota.Rule    // of repositories for which the Policy has none; its name and repositories do not matter
	Events        *webhook.Hub  // is told what happens; nil: nobody is
	NoDeltas      bool          // make no chunk lists, and send layers whole
}

// Authorizer decides whether a request may do an action to a repository.
type Authorizer interface {
	// Authorize returns the user, empty for an anonymous one, or an error for the client. action is
	// "pull", "push" or "delete"; name is empty for the ping and "*" for the catalog. It may set the
	// challenge header.
	Authorize(w http.ResponseWriter, r *http.Request, name, action string) (user string, err error)
	// Visit returns who looks at pages: an anonymous visitor when the request has no credentials, an error
	// when it has wrong ones.
	Visit(r *http.Request) (web.Visitor, error)
}

// New returns a registry over the store. Close ends what it does in the background.
func New(store storage.Store, log *slog.Logger, o Options) *Server {
	s := &Server{store: store, log: log, auth: o.Auth, options: o, refresh: defaultRefresh, patience: clientPatience, manifests: newManifestCache(256)}
	if policy, ok := o.Auth.(*Policy); ok {
		policy.people.store = people.New(store)
	}
	s.deltas = delta.New(store, repositories{s}, deltaDelay, log)
	s.quotas = s.newLedger()
	if !o.NoPages {
		s.pages = web.New(pageSource{s}, log)
	}
	return s
}

// Close ends what the registry does in the background. It must not be serving any more.
func (s *Server) Close() {
	if s.options.Events != nil {
		if err := s.options.Events.Close(); err != nil {
			s.log.Error("the queues of webhooks are not closed well", "error", err)
		}
	}
	if s.pages != nil {
		s.pages.Close()
	}
}

func (s *Server) repository(name string) repository { return repository{name, s.store, s.refresh} }

// request is one request, taken apart.
type request struct {
	*http.Request
	w    http.ResponseWriter
	repo repository
	arg  string // digest, tag, upload id
	by   string // user or address
}

type handler func(*Server, request) error

// route is what a path asks for: which handler each method has. The metrics count by its name.
type route struct {
	name    string
	methods map[string]handler
	open    bool // to everybody, without asking the Authorizer
}

var (
	pingRoute      = &route{name: "ping", methods: map[string]handler{"GET": (*Server).ping, "HEAD": (*Server).ping}}
	catalogRoute   = &route{name: "catalog", methods: map[string]handler{"GET": (*Server).catalog}}
	blobRoute      = &route{name: "blob", methods: map[string]handler{"GET": (*Server).getBlob, "HEAD": (*Server).getBlob, "DELETE": (*Server).deleteBlob}}
	uploadsRoute   = &route{name: "uploads", methods: map[string]handler{"POST": (*Server).startUpload}}
	uploadRoute    = &route{name: "upload", methods: map[string]handler{"GET": (*Server).uploadStatus, "PATCH": (*Server).patchUpload, "PUT": (*Server).finishUpload, "DELETE": (*Server).cancelUpload}}
	manifestRoute  = &route{name: "manifest", methods: map[string]handler{"GET": (*Server).getManifest, "HEAD": (*Server).getManifest, "PUT": (*Server).putManifest, "DELETE": (*Server).deleteManifest}}
	tagsRoute      = &route{name: "tags", methods: map[string]handler{"GET": (*Server).listTags}}
	referrersRoute = &route{name: "referrers", methods: map[string]handler{"GET": (*Server).listReferrers}}
	historyRoute   = &route{name: "history", methods: map[string]handler{"GET": (*Server).listHistory}}
	tagLogRoute    = &route{name: "tagLog", methods: map[string]handler{"GET": (*Server).tagHistory}}
	rollbackRoute  = &route{name: "rollback", methods: map[string]handler{"POST": (*Server).rollback}}
	deltaRoute     = &route{name: "delta", methods: map[string]handler{"GET": (*Server).getDelta}}
	quotaRoute     = &route{name: "quota", methods: map[string]handler{"GET": (*Server).showQuota}}
	retentionRoute = &route{name: "retention", methods: map[string]handler{"GET": (*Server).showRetention, "DELETE": (*Server).applyRetention}}
	metricsRoute   = &route{name: "metrics", methods: map[string]handler{"GET": (*Server).serveMetrics}}
	tokenRoute     = &route{name: "token", methods: map[string]handler{"GET": (*Server).token, "POST": (*Server).token}, open: true}
	healthRoute    = &route{name: "health", methods: map[string]handler{"GET": (*Server).health, "HEAD": (*Server).health}, open: true}
	pageRoute      = &route{name: "page", methods: map[string]handler{"GET": (*Server).page, "HEAD": (*Server).page, "POST": (*Server).page}, open: true}
	signInRoute    = &route{name: "signIn", methods: map[string]handler{"POST": (*Server).signIn}, open: true}
	readyRoute     = &route{name: "ready", methods: map[string]handler{"GET": (*Server).ready, "HEAD": (*Server).ready}, open: true}
)

// parse finds the route of a path and the repository name and argument in it. Names may hold slashes, so
// the path is read from its end.
func parse(path string) (found *route, name, arg string, ok bool) {
	if rest, ok := strings.CutPrefix(path, "/davit/v1/"); ok {
		return parseOwn(rest)
	}
	rest, ok := strings.CutPrefix(path, "/v2")
	switch {
	case path == "/metrics":
		return metricsRoute, "*", "", true
	case path == "/token":
		return tokenRoute, "", "", true
	case path == "/healthz":
		return healthRoute, "", "", true
	case path == "/readyz":
		return readyRoute, "", "", true
	case web.Owns(path):
		return pageRoute, "", "", true
	case !ok:
		return nil, "", "", false
	case rest == "" || rest == "/":
		return pingRoute, "", "", true
	case rest == "/_catalog":
		return catalogRoute, "*", "", true
	}
	rest = rest[1:]
	if name, ok := strings.CutSuffix(rest, "/tags/list"); ok {
		return tagsRoute, name, "", true
	}
	if name, ok := strings.CutSuffix(strings.TrimSuffix(rest, "/"), "/blobs/uploads"); ok {
		return uploadsRoute, name, "", true
	}
	for _, candidate := range []struct {
		infix string
		route *route
	}{{"/blobs/uploads/", uploadRoute}, {"/blobs/", blobRoute}, {"/manifests/", manifestRoute}, {"/referrers/", referrersRoute}} {
		if i := strings.LastIndex(rest, candidate.infix); i >= 0 {
			return candidate.route, rest[:i], rest[i+len(candidate.infix):], true
		}
	}
	return nil, "", "", false
}

// parseOwn is parse for what the specification does not have.
func parseOwn(rest string) (found *route, name, arg string, ok bool) {
	if rest == "signin" {
		return signInRoute, "", "", true
	}
	for _, candidate := range []struct {
		suffix string
		route  *route
	}{{"/history", tagLogRoute}, {"/rollback", rollbackRoute}} {
		if path, ok := strings.CutSuffix(rest, candidate.suffix); ok {
			if i := strings.LastIndex(path, "/tags/"); i >= 0 {
				return candidate.route, path[:i], path[i+len("/tags/"):], true
			}
		}
	}
	if i := strings.LastIndex(rest, "/delta/"); i >= 0 {
		return deltaRoute, rest[:i], rest[i+len("/delta/"):], true
	}
	if name, ok = strings.CutSuffix(rest, "/retention"); ok {
		return retentionRoute, name, "", true
	}
	if name, ok = strings.CutSuffix(rest, "/quota"); ok {
		return quotaRoute, name, "", true
	}
	name, ok = strings.CutSuffix(rest, "/history")
	return historyRoute, name, "", ok
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	s.metrics.inFlight.Add(1)
	patient, r := patientFor(w, r, s.patience)
	defer patient.end()
	out := &seen{ResponseWriter: w, patient: patient, route: "none"}
	defer func() {
		s.metrics.inFlight.Add(-1)
		s.observe(out, r, began)
	}()
	w.Header().Set("Docker-Distribution-API-Version", "registry/2.0")
	if out.err = s.serve(out, r); out.err != nil {
		writeError(out, r, s.log, out.err)
	}
}

func (s *Server) serve(w *seen, r *http.Request) error {
	found, name, arg, ok := parse(r.URL.Path)
	if !ok || found == pageRoute && s.pages == nil {
		return &failure{"NOT_FOUND", http.StatusNotFound, errNoSuchPath}
	}
	w.route = found.name
	if name != "" && name != "*" {
		if err := ref.CheckPath(name); err != nil {
			return fail("NAME_INVALID", "invalid repository name %q: %w", name, err)
		}
	}
	handle, ok := found.methods[r.Method]
	if !ok {
		w.Header().Set("Allow", found.allowed())
		return fail("UNSUPPORTED", "%s is not possible here", r.Method)
	}
	if err := s.checkOrigin(r); err != nil && found != pageRoute {
		return err
	}
	upstream, copied := s.target(found, r, name)
	if copied {
		name = upstream.Name
	}
	w.repo, w.arg = name, arg
	if s.auth != nil && !found.open {
		user, err := s.auth.Authorize(w, r, name, action(r.Method))
		if w.by = user; err != nil {
			return err
		}
	}
	asked := request{s.withOrigin(r, w), w, s.repository(name), arg, author(w.by, r)}
	if copied {
		return s.fill(asked, found, upstream)
	}
	return s.exceeded(handle(s, asked))
}

// checkOrigin refuses what a browser sends on behalf of another site: it sends the password that it knows
// with any form. Programs name no origin.
func (s *Server) checkOrigin(r *http.Request) error {
	if err := s.origins.Check(r); err != nil {
		return fail("DENIED", "%w", err)
	}
	return nil
}

func action(method string) string {
	switch method {
	case "GET", "HEAD":
		return "pull"
	case "DELETE":
		return "delete"
	}
	return "push"
}

func (r *route) allowed() string {
	var methods []string
	for _, method := range []string{"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE"} {
		if r.methods[method] != nil {
			methods = append(methods, method)
		}
	}
	return strings.Join(methods, ", ")
}

func (s *Server) ping(r request) error {
	r.w.Header().Set("Content-Type", "application/json")
	_, _ = r.w.Write([]byte("{}"))
	return nil
}
