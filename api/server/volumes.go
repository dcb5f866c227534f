package server

import (
	"net/http"

	wire "github.com/moby/moby/api/types/volume"
)

func (s *Server) listVolumes(w http.ResponseWriter, r *request) error {
	f, err := r.filters()
	if err != nil {
		return err
	}
	if err := f.Only("dangling", "driver", "label", "label!", "name"); err != nil {
		return err
	}
	dangling, given, err := f.Flag("dangling")
	if err != nil {
		return err
	}
	list := s.Engine.Volumes.List(r.Context(), func(v wire.Volume, used bool) bool {
		return (!given || dangling == !used) && f.Exact("driver", v.Driver) && f.Labels(v.Labels) && f.Match("name", v.Name)
	})
	return writeJSON(w, http.StatusOK, wire.ListResponse{Volumes: list, Warnings: []string{}})
}

func (s *Server) inspectVolume(w http.ResponseWriter, r *request) error {
	v, err := s.Engine.Volumes.Get(r.Context(), r.vars["name"])
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, v)
}

func (s *Server) createVolume(w http.ResponseWriter, r *request) error {
	q := wire.CreateRequest{}
	if err := r.decode(&q, true); err != nil {
		return err
	}
	v, err := s.Engine.Volumes.Create(r.Context(), q)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, v)
}

func (s *Server) removeVolume(w http.ResponseWriter, r *request) error {
	return noContent(w, s.Engine.Volumes.Remove(r.Context(), r.vars["name"], r.flag("force")))
}

// pruneVolumes removes anonymous volumes only, unless told otherwise; before 1.42, all of them.
func (s *Server) pruneVolumes(w http.ResponseWriter, r *request) error {
	f, err := r.filters()
	if err != nil {
		return err
	}
	if err := f.Only("all", "label", "label!"); err != nil {
		return err
	}
	all, _, err := f.Flag("all")
	if err != nil {
		return err
	}
	report, err := s.Engine.Volumes.Prune(r.Context(), all || r.version.before(42), f.Labels)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, report)
}
