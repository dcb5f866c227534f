package server

import (
	"context"
	"io"
	"net/http"

	"github.com/moby/moby/api/types/build"

	"davit/engine"
	"davit/oci/errdefs"
)

// Builds makes images from Dockerfiles.
type Builds interface {
	// Classic carries out POST /build: the body is the context as a tar, parameters and header are the
	// request's, and messages go to out. An error before the first message becomes a status code.
	Classic(ctx context.Context, body io.Reader, parameters map[string][]string, header http.Header, out Messages) error
	Usage() []build.CacheRecord
	Prune(ctx context.Context, all bool, f engine.Filters, keep int64) (build.CachePruneReport, error)
}

// Messages takes the progress of a build.
type Messages interface {
	Stream(text string) // what the classic builder prints
	Aux(value any)      // {"ID": "sha256:..."}
	Raw(line []byte)    // a JSON message as it is
}

// buildMessages gives a builder the answer's messages.
type buildMessages struct{ m *messages }

func (b buildMessages) Stream(text string) { b.m.stream(text) }
func (b buildMessages) Aux(value any)      { b.m.aux(value) }
func (b buildMessages) Raw(line []byte)    { b.m.raw(line) }

func (s *Server) build(w http.ResponseWriter, r *request) error {
	if s.Builds == nil {
		return errdefs.NotImplemented("this engine does not build images")
	}
	if r.query("version") == "2" {
		return errdefs.Invalid("BuildKit builds need a session over the gRPC API, which is not served here; set DOCKER_BUILDKIT=0")
	}
	m := newMessages(w)
	if err := s.Builds.Classic(r.Context(), r.Body, r.form, r.Header, buildMessages{m}); err != nil {
		return m.fail(err)
	}
	return nil
}

func (s *Server) pruneBuild(w http.ResponseWriter, r *request) error {
	if s.Builds == nil {
		return writeJSON(w, http.StatusOK, build.CachePruneReport{})
	}
	f, err := r.filters()
	if err != nil {
		return err
	}
	keep, _, err := r.number("keep-storage")
	if err != nil {
		return err
	}
	report, err := s.Builds.Prune(r.Context(), r.flag("all"), f, int64(keep))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, report)
}

// cancelBuild has nothing to do: a build ends with the request that asked for it.
func (s *Server) cancelBuild(w http.ResponseWriter, _ *request) error {
	w.WriteHeader(http.StatusOK)
	return nil
}
