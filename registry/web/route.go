package web

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	"davit/oci/ref"
)

var errNotAllowed = errors.New("method not allowed")

// route is what a path asks for.
type route struct {
	show   func(*visit) error
	post   bool // POST, rather than GET and HEAD
	inside bool // of a repository, which the visitor must be allowed to pull
	asset  bool // part of every page, and open to all
	signIn bool // there only where people sign in at a provider
	member bool // for those who did
}

var (
	repositoriesRoute = &route{show: (*visit).repositories}
	loginRoute        = &route{show: (*visit).login}
	beginRoute        = &route{show: (*visit).begin, signIn: true}
	finishRoute       = &route{show: (*visit).finish, signIn: true}
	logoutRoute       = &route{show: (*visit).logout, signIn: true, member: true, post: true}
	accountRoute      = &route{show: (*visit).account, signIn: true, member: true}
	makeTokenRoute    = &route{show: (*visit).makeToken, signIn: true, member: true, post: true}
	revokeTokenRoute  = &route{show: (*visit).revokeToken, signIn: true, member: true, post: true}
	staticRoute       = &route{show: (*visit).static, asset: true}
	tagsRoute         = &route{show: (*visit).tags, inside: true}
	tagRoute          = &route{show: (*visit).tag, inside: true}
	manifestRoute     = &route{show: (*visit).manifest, inside: true}
	filesRoute        = &route{show: (*visit).files, inside: true}
	diffRoute         = &route{show: (*visit).diff, inside: true}
	rollbackRoute     = &route{show: (*visit).rollback, inside: true, post: true}
)

// Owns says whether a path is for these pages.
func Owns(path string) bool {
	return fixed[path] != nil || strings.HasPrefix(path, "/r/") || strings.HasPrefix(path, "/static/")
}

// fixed are the pages that belong to no repository.
var fixed = map[string]*route{
	"/":               repositoriesRoute,
	"/login":          loginRoute,
	"/login/begin":    beginRoute,
	"/login/callback": finishRoute,
	"/logout":         logoutRoute,
	"/account":        accountRoute,
	"/account/make":   makeTokenRoute,
	"/account/revoke": revokeTokenRoute,
}

// parse finds the route of a path, the repository's name and the argument in it.
func parse(path string) (found *route, name, arg string) {
	if found = fixed[path]; found != nil {
		return found, "", ""
	}
	if strings.HasPrefix(path, "/static/") {
		return staticRoute, "", ""
	}
	rest, ok := strings.CutPrefix(path, "/r/")
	if !ok {
		return nil, "", ""
	}
	name, rest, sub := strings.Cut(strings.TrimSuffix(rest, "/"), "/-/")
	if ref.CheckPath(name) != nil {
		return nil, "", ""
	}
	if !sub {
		return tagsRoute, name, ""
	}
	what, arg, _ := strings.Cut(rest, "/")
	return map[string]*route{
		"tag": tagRoute, "manifest": manifestRoute, "files": filesRoute, "diff": diffRoute, "rollback": rollbackRoute,
	}[what], name, arg
}

func (v *visit) allows(found *route) bool {
	methods := []string{http.MethodGet, http.MethodHead}
	if found.post {
		methods = []string{http.MethodPost}
	}
	if slices.Contains(methods, v.Method) {
		return true
	}
	v.w.Header().Set("Allow", strings.Join(methods, ", "))
	return false
}

// The addresses of pages. What goes in them is escaped by the template that they are put into, but for
// queries, which are built with url.Values.

func repoLink(repo string) string             { return "/r/" + repo }
func tagLink(repo, tag string) string         { return "/r/" + repo + "/-/tag/" + tag }
func manifestLink(repo, digest string) string { return "/r/" + repo + "/-/manifest/" + digest }
func filesLink(repo, digest string) string    { return "/r/" + repo + "/-/files/" + digest }
