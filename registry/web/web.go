// Package web serves a registry's pages for people: repositories, tags with their logs and rollback, images
// with platforms, layers and files, the difference between two images, referrers.
//
//	/                                    repositories            ?q=&page=
//	/r/<name>                            tags                    ?q=&sort=&page=, ?deleted=1
//	/r/<name>/-/tag/<tag>                what the tag names, and its log
//	/r/<name>/-/manifest/<digest>        an image, an index or another artifact
//	/r/<name>/-/files/<digest>           the files of an image   ?path=
//	/r/<name>/-/diff                     of two images           ?from=&to=&platform=&page=
//	/r/<name>/-/rollback                 POST: tag, digest
//	/login                               asks for user and password (Basic), or leads to a provider
//	/login/begin, /login/callback        the way to the provider, and back
//	/logout                              POST
//	/account                             a person's tokens
//	/account/make, /account/revoke       POST: label, days; id
//	/static/                             style, script and icon
//
// No component of a repository's name begins with "-", so "/-/" ends the name.
//
// Everything but the style is somebody else's text: names, labels, commands, files. It reaches a page only
// through html/template, under a Content-Security-Policy that runs no script but our own. Pages work without
// scripts; with them there are buttons to copy and a filter that answers while one types.
package web

import (
	"context"
	"log/slog"
	"net/http"
	"runtime"
	"time"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/registry/files"
	"davit/registry/storage"
)

// Registry is what the pages show. A repository, tag or manifest that is not there is an
// errdefs.ErrNotFound. Nothing here asks who may see it: that is the Visitor's part.
type Registry interface {
	Catalog
	Names
	Content
	Moves
	// Explain returns the HTTP status of an error and what to tell people; the registry's own trouble it
	// logs, and tells none of it.
	Explain(r *http.Request, err error) (status int, message string)
}

// Catalog is what there is.
type Catalog interface {
	// Repositories returns all names, sorted.
	Repositories(ctx context.Context) ([]string, error)
	// Tags returns a repository's tags, sorted.
	Tags(ctx context.Context, repo string) ([]string, error)
}

// Names is what tags stand for now.
type Names interface {
	// Tag returns what a tag names, and since when.
	Tag(ctx context.Context, repo, tag string) (oci.Digest, time.Time, error)
	// Since is Tag for those who want the time alone, which may be cheaper.
	Since(ctx context.Context, repo, tag string) (time.Time, error)
}

// Content is what tags name. A repository has only what was pushed to it.
type Content interface {
	Manifest(ctx context.Context, repo string, d oci.Digest) (mediaType string, content []byte, err error)
	// HasBlob fails with ErrNotFound unless the repository holds the blob.
	HasBlob(ctx context.Context, repo string, d oci.Digest) error
	// OpenBlob opens a blob of the repository.
	OpenBlob(ctx context.Context, repo string, d oci.Digest) (storage.Blob, error)
	// Referrers returns the manifests whose subject is d.
	Referrers(ctx context.Context, repo string, d oci.Digest) ([]oci.Descriptor, error)
}

// Move is one entry of a tag's log: from then on the tag named Digest, or nothing where it was deleted.
type Move struct {
	Digest oci.Digest
	Time   time.Time
	By     string
}

// Moves are the logs of tags.
type Moves interface {
	// Logged returns the tags that have a log, sorted; some may be gone.
	Logged(ctx context.Context, repo string) ([]string, error)
	// History returns a tag's log, the latest move first.
	History(ctx context.Context, repo, tag string) ([]Move, error)
	// Rollback lets a tag name again what its log has.
	Rollback(r *http.Request, user, repo, tag string, d oci.Digest) error
	// Immutable says whether a tag stays as it is once it is there.
	Immutable(repo, tag string) bool
}

// Visitor is who asks, as the registry's rules know them.
type Visitor struct {
	User string // empty for somebody who gave no name
	Open bool   // there are no users: nobody can log in
	// Proof is for the forms of who signed in at the provider: they bring it back. Empty: who did not.
	Proof string
	// May says whether the visitor may do "pull", "push" or "delete" in a repository.
	May func(repo, action string) bool
}

// Pages serves the pages of one registry.
type Pages struct {
	registry Registry
	accounts Accounts // nil: none
	log      *slog.Logger
	layers   *files.Cache
	patience time.Duration // how long a request waits for layers to be read
}

// What reading layers may take, all in all. A visitor can ask for any layer that they may pull.
const (
	mostFiles   = 300_000
	mostMemory  = 48 << 20
	totalMemory = 96 << 20
	longestRead = 2 * time.Minute
	longestLine = 64
)

// New returns the pages. Close ends what they do in the background.
func New(registry Registry, log *slog.Logger) *Pages {
	accounts, _ := registry.(Accounts)
	return &Pages{
		registry: registry, accounts: accounts, log: log, patience: 3 * time.Second,
		layers: files.NewCache(files.Bounds{
			Limits: files.Limits{Entries: mostFiles, Memory: mostMemory},
			Total:  totalMemory, Time: longestRead, AtOnce: max(2, runtime.GOMAXPROCS(0)/2), Queue: longestLine,
		}),
	}
}

// Close ends the reading of layers.
func (p *Pages) Close() { p.layers.Close() }

// Serve answers a request for a path that Owns accepts. denied is why the request's credentials are not
// taken, if they are not.
func (p *Pages) Serve(w http.ResponseWriter, r *http.Request, visitor Visitor, denied error) {
	setHeaders(w.Header())
	v := &visit{p: p, w: w, Request: r, visitor: visitor}
	found, name, arg := parse(r.URL.Path)
	if found == nil {
		v.fail(errdefs.NotFound("there is no page at this address"))
		return
	}
	if denied != nil && !found.asset {
		v.fail(denied)
		return
	}
	v.repo, v.arg = name, arg
	v.done(v.run(found))
}

// visit is one request.
type visit struct {
	*http.Request
	p         *Pages
	w         http.ResponseWriter
	visitor   Visitor
	repo, arg string
}

// run shows a page if the visitor may see it.
func (v *visit) run(found *route) error {
	if !v.allows(found) {
		return errdefs.New(errNotAllowed, "%s is not possible here", v.Method)
	}
	if err := v.member(found); err != nil {
		return err
	}
	if found.inside && !v.visitor.May(v.repo, "pull") {
		return v.hidden()
	}
	return found.show(v)
}

// hidden is the answer for a repository that the visitor may not see: the same whether it is there or not.
func (v *visit) hidden() error {
	if v.visitor.User == "" && !v.visitor.Open {
		return errdefs.Unauthorized("log in to see this repository")
	}
	return errdefs.NotFound("there is no repository %s, or you may not see it", v.repo)
}

func (v *visit) done(err error) {
	if err != nil && v.Context().Err() == nil {
		v.fail(err)
	}
}
