package server

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/registry/delta"
	form "davit/store/delta"
)

// deltaHeader tells davit's engine, with a manifest, that it may ask for deltas.
const deltaHeader = "Davit-Delta"

// deltaDelay is how long after the last push chunk lists are made.
const deltaDelay = 500 * time.Millisecond

// MakeDeltas makes what deltas need of the images that are pushed, until ctx ends. Without it there are none.
func (s *Server) MakeDeltas(ctx context.Context) {
	if !s.options.NoDeltas {
		s.deltas.Run(ctx)
	}
}

// offerDeltas tells the engine that it may ask.
func (s *Server) offerDeltas(h http.Header) {
	if !s.options.NoDeltas {
		h.Set(deltaHeader, "1")
	}
}

// getDelta sends of a layer what differs from the layers that the client names as its own.
func (s *Server) getDelta(r request) error {
	want, err := r.digest()
	if err != nil {
		return err
	}
	if s.options.NoDeltas {
		return noDelta(errdefs.NotFound("this registry sends no deltas"))
	}
	query := r.URL.Query()
	var have []oci.Digest
	for _, value := range query["have"] {
		d, err := oci.ParseDigest(value)
		if err != nil {
			return fail("DIGEST_INVALID", "%w", err)
		}
		have = append(have, d)
	}
	most, _ := strconv.Atoi(query.Get("most")) // what is no number has no say
	answer, err := s.deltas.Answer(r.Context(), delta.Question{
		Repository: r.repo.name, Want: want, Have: have, Most: most, Manifest: oci.Digest(query.Get("manifest")),
	})
	if err != nil {
		return noDelta(err)
	}
	end, err := answer.Begin()
	if err != nil {
		return noDelta(err)
	}
	defer end()
	r.w.Header().Set("Content-Type", form.MediaType)
	if err := answer.Send(r.Context(), r.w); err != nil {
		s.log.WarnContext(r.Context(), "delta broke off", "repository", r.repo.name, "layer", want, "error", err)
		panic(http.ErrAbortHandler) // the client sees that it is not whole
	}
	return nil
}

// noDelta says that the client had better ask for the plain layer.
func noDelta(err error) error {
	switch {
	case errors.Is(err, errdefs.ErrNotFound), errors.Is(err, errdefs.ErrUnavailable):
		return &failure{"DELTA_UNAVAILABLE", http.StatusNotFound, err}
	case errors.Is(err, errdefs.ErrInvalid):
		return &failure{"UNSUPPORTED", http.StatusBadRequest, err}
	}
	return err
}

// repositories is the registry as package delta sees it.
type repositories struct{ *Server }

var _ delta.Repositories = repositories{}

// Holds implements delta.Repositories.
func (s repositories) Holds(ctx context.Context, name string, d oci.Digest) (int64, error) {
	return s.repository(name).hasBlob(ctx, d)
}

// Manifest implements delta.Repositories.
func (s repositories) Manifest(ctx context.Context, name string, d oci.Digest) ([]byte, error) {
	if _, err := s.repository(name).manifest(ctx, d); err != nil {
		return nil, err
	}
	return s.manifestContent(ctx, d)
}

// Attach implements delta.Repositories.
func (s repositories) Attach(ctx context.Context, name string, manifest []byte, blobs [][]byte) error {
	doc, e, err := checkManifest(manifest, oci.MediaTypeManifest)
	if err != nil {
		return err
	}
	repo := s.repository(name)
	for _, blob := range blobs {
		d := oci.DigestOf(blob)
		if err := s.store.PutBlob(ctx, d, blob); err != nil {
			return err
		}
		if err := repo.linkBlob(ctx, d); err != nil {
			return err
		}
	}
	if _, err := repo.holds(ctx, e.Blobs); err != nil {
		return err
	}
	return s.storeImage(ctx, repo, oci.DigestOf(manifest), manifest, doc, e)
}

// Detach implements delta.Repositories.
func (s repositories) Detach(ctx context.Context, name string, artifact, subject oci.Digest) error {
	repo := s.repository(name)
	for _, key := range []string{repo.referrerKey(subject, artifact), repo.manifestKey(artifact)} {
		if err := s.store.DeleteRecord(ctx, key); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			return err
		}
	}
	return nil
}

// Kept implements delta.Repositories.
func (s repositories) Kept(ctx context.Context, name string, d oci.Digest) (bool, error) {
	repo := s.repository(name)
	for _, key := range []string{repo.manifestKey(d), repo.deletedKey(d)} {
		_, err := s.store.RecordTime(ctx, key)
		if err == nil || !errors.Is(err, errdefs.ErrNotFound) {
			return err == nil, err
		}
	}
	return false, nil
}
