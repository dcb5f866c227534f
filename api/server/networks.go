package server

import (
	"net/http"

	wire "github.com/moby/moby/api/types/network"

	"davit/oci/errdefs"
)

func (s *Server) listNetworks(w http.ResponseWriter, r *request) error {
	f, err := r.filters()
	if err != nil {
		return err
	}
	list, err := s.Engine.Networks.List(f)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list)
}

func (s *Server) inspectNetwork(w http.ResponseWriter, r *request) error {
	i, err := s.Engine.Networks.Inspect(r.vars["id"])
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, i)
}

func (s *Server) createNetwork(w http.ResponseWriter, r *request) error {
	q := struct {
		wire.CreateRequest
		Scope string
	}{}
	if err := r.decode(&q, false); err != nil {
		return err
	}
	if q.Scope != "" && q.Scope != "local" {
		return errdefs.Forbidden("cannot create a %s scoped network: davit's networks are local to the host", q.Scope)
	}
	made, err := s.Engine.Networks.Create(r.Context(), q.CreateRequest)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, made)
}

func (s *Server) removeNetwork(w http.ResponseWriter, r *request) error {
	return noContent(w, s.Engine.Networks.Remove(r.Context(), r.vars["id"]))
}

func (s *Server) pruneNetworks(w http.ResponseWriter, r *request) error {
	f, err := r.filters()
	if err != nil {
		return err
	}
	report, err := s.Engine.Networks.Prune(r.Context(), f)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, report)
}

func (s *Server) connectNetwork(_ http.ResponseWriter, r *request) error {
	q := wire.ConnectRequest{}
	if err := r.decode(&q, false); err != nil {
		return err
	}
	return s.Engine.Networks.Connect(r.Context(), r.vars["id"], q)
}

func (s *Server) disconnectNetwork(_ http.ResponseWriter, r *request) error {
	q := wire.DisconnectRequest{}
	if err := r.decode(&q, false); err != nil {
		return err
	}
	return s.Engine.Networks.Disconnect(r.Context(), r.vars["id"], q)
}
