package server

import (
	"errors"
	"net/http"
	"time"

	"davit/engine"
	"davit/oci"
	"davit/oci/errdefs"
)

// replaceRequest is the body of POST /davit/containers/<name>/replace; times are nanoseconds, as in the
// rest of the API.
type replaceRequest struct {
	Image     string        `json:"image"` // empty: the name that the container was made from
	Timeout   time.Duration `json:"timeout"`
	Grace     time.Duration `json:"grace"`
	Drain     time.Duration `json:"drain"`
	Keep      bool          `json:"keep"`
	StopFirst bool          `json:"stopFirst"`
	Force     bool          `json:"force"`
}

// replaced is the aux of the last message that answers it.
type replaced struct {
	ID        string     `json:"id,omitempty"`
	ImageID   oci.Digest `json:"imageId,omitempty"`
	Kept      string     `json:"kept,omitempty"`      // name of the old container
	Unchanged string     `json:"unchanged,omitempty"` // why nothing was to be done
}

func (s *Server) replaceContainer(w http.ResponseWriter, r *request) error {
	var q replaceRequest
	if err := r.decode(&q, false); err != nil {
		return err
	}
	m := s.newMessages(w)
	done, err := s.Engine.Containers.Replace(r.Context(), r.vars["id"], engine.ReplaceOptions(q), func(step string) { m.status("", step) })
	switch {
	case errors.Is(err, errdefs.ErrNotModified):
		m.aux(replaced{Unchanged: err.Error()})
		return nil
	case err != nil:
		return m.fail(err)
	}
	m.aux(replaced{ID: done.ID, ImageID: done.Image.ID, Kept: done.Kept})
	return nil
}
