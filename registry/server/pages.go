package server

import (
	"context"
	"net/http"
	"time"

	"davit/oci"
	"davit/oci/ref"
	"davit/registry/storage"
	"davit/registry/web"
)

// page lets registry/web answer, for a visitor as the Authorizer knows it.
func (s *Server) page(r request) error {
	visitor, err := s.visitor(r.Request)
	if out, ok := r.w.(*seen); ok {
		out.by = visitor.User
	}
	if err == nil {
		err = s.checkOrigin(r.Request)
	}
	s.pages.Serve(r.w, r.Request, visitor, err)
	return nil
}

func (s *Server) visitor(r *http.Request) (web.Visitor, error) {
	if s.auth == nil {
		return web.Visitor{Open: true, May: func(string, string) bool { return true }}, nil
	}
	visitor, err := s.auth.Visit(r)
	if err != nil {
		visitor = web.Visitor{May: func(string, string) bool { return false }}
	}
	return visitor, err
}

// pageSource is the registry as its pages see it. It implements web.Registry.
type pageSource struct{ *Server }

// Repositories implements web.Catalog.
func (s pageSource) Repositories(ctx context.Context) ([]string, error) { return s.repositories(ctx) }

// Tags implements web.Catalog.
func (s pageSource) Tags(ctx context.Context, repo string) ([]string, error) {
	r := s.repository(repo)
	if err := r.exists(ctx); err != nil {
		return nil, err
	}
	return s.store.ListRecords(ctx, r.key("_tags"))
}

// Tag implements web.Names.
func (s pageSource) Tag(ctx context.Context, repo, tag string) (oci.Digest, time.Time, error) {
	r := s.repository(repo)
	if err := ref.CheckTag(tag); err != nil {
		return "", time.Time{}, err
	}
	d, err := r.tag(ctx, tag)
	if err != nil {
		return "", time.Time{}, err
	}
	since, err := s.Since(ctx, repo, tag)
	return d, since, err
}

// Since implements web.Names.
func (s pageSource) Since(ctx context.Context, repo, tag string) (time.Time, error) {
	return s.store.RecordTime(ctx, s.repository(repo).tagKey(tag))
}

// Manifest implements web.Content.
func (s pageSource) Manifest(ctx context.Context, repo string, d oci.Digest) (string, []byte, error) {
	e, err := s.repository(repo).manifest(ctx, d)
	if err != nil {
		return "", nil, err
	}
	content, err := s.manifestContent(ctx, d)
	return e.MediaType, content, err
}

// HasBlob implements web.Content.
func (s pageSource) HasBlob(ctx context.Context, repo string, d oci.Digest) error {
	if _, err := oci.ParseDigest(string(d)); err != nil {
		return fail("DIGEST_INVALID", "%w", err)
	}
	_, err := s.repository(repo).hasBlob(ctx, d)
	return err
}

// OpenBlob implements web.Content.
func (s pageSource) OpenBlob(ctx context.Context, repo string, d oci.Digest) (storage.Blob, error) {
	if err := s.HasBlob(ctx, repo, d); err != nil {
		return nil, err
	}
	return s.store.OpenBlob(ctx, d)
}

// Referrers implements web.Content.
func (s pageSource) Referrers(ctx context.Context, repo string, d oci.Digest) ([]oci.Descriptor, error) {
	return s.repository(repo).referrers(ctx, d)
}

// Logged implements web.Moves.
func (s pageSource) Logged(ctx context.Context, repo string) ([]string, error) {
	return s.store.ListRecords(ctx, s.repository(repo).key("_history"))
}

// History implements web.Moves.
func (s pageSource) History(ctx context.Context, repo, tag string) ([]web.Move, error) {
	if err := ref.CheckTag(tag); err != nil {
		return nil, err
	}
	log, _, err := s.repository(repo).history(ctx, tag)
	moves := make([]web.Move, len(log))
	for i, move := range log {
		moves[i] = web.Move(move)
	}
	return moves, err
}

// Rollback implements web.Moves.
func (s pageSource) Rollback(r *http.Request, user, repo, tag string, d oci.Digest) error {
	return s.rollbackTo(request{Request: r, repo: s.repository(repo), arg: tag, by: author(user, r)}, d)
}

// Immutable implements web.Moves.
func (s pageSource) Immutable(repo, tag string) bool { return s.immutable(repo, tag) }

// Explain implements web.Registry.
func (s pageSource) Explain(r *http.Request, err error) (int, string) {
	f := explain(r, s.log, err)
	return f.status, f.Error()
}
