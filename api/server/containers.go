package server

import (
	"encoding/json"
	"net/http"
	"strings"

	wire "github.com/moby/moby/api/types/container"

	"davit/engine"
	"davit/image"
	"davit/oci"
	"davit/oci/errdefs"
)

func (s *Server) listContainers(w http.ResponseWriter, r *request) error {
	filters, err := r.filters()
	if err != nil {
		return err
	}
	limit, _, err := r.number("limit")
	if err != nil {
		return err
	}
	list, err := s.Engine.Views.List(r.Context(), engine.ListOptions{All: r.flag("all"), Limit: max(limit, 0), Size: r.flag("size"), Filters: filters})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list)
}

func (s *Server) createContainer(w http.ResponseWriter, r *request) error {
	q, err := createRequest(r)
	if err != nil {
		return err
	}
	made, err := s.Engine.Containers.Create(r.Context(), q)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, made)
}

func createRequest(r *request) (engine.CreateRequest, error) {
	body := wire.CreateRequest{}
	if err := r.decode(&body, false); err != nil {
		return engine.CreateRequest{}, err
	}
	platform, err := platformOf(r.query("platform"))
	return engine.CreateRequest{
		Name: r.query("name"), Platform: platform, Config: body.Config, HostConfig: body.HostConfig, Networking: body.NetworkingConfig,
	}, err
}

// platformOf reads a platform: os/arch[/variant], or as newer clients send it, JSON.
func platformOf(text string) (*oci.Platform, error) {
	if text == "" {
		return nil, nil
	}
	if strings.HasPrefix(text, "{") {
		p := &oci.Platform{}
		if err := json.Unmarshal([]byte(text), p); err != nil {
			return nil, errdefs.New(errdefs.ErrInvalid, "invalid platform: %w", err)
		}
		return p, nil
	}
	p, err := image.ParsePlatform(text)
	return &p, err
}

func (s *Server) inspectContainer(w http.ResponseWriter, r *request) error {
	i, err := s.Engine.Views.Inspect(r.Context(), r.vars["id"], r.flag("size"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, inspected(i))
}

func (s *Server) start(w http.ResponseWriter, r *request) error {
	return noContent(w, s.Engine.Containers.Start(r.Context(), r.vars["id"]))
}

// noContent answers 204 if all went well.
func noContent(w http.ResponseWriter, err error) error {
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}

func stopOptions(r *request) (engine.StopOptions, error) {
	o := engine.StopOptions{Signal: r.query("signal")}
	seconds, given, err := r.number("t")
	if given {
		o.Timeout = &seconds
	}
	return o, err
}

func (s *Server) stop(w http.ResponseWriter, r *request) error {
	o, err := stopOptions(r)
	if err != nil {
		return err
	}
	return noContent(w, s.Engine.Containers.Stop(r.Context(), r.vars["id"], o))
}

func (s *Server) restart(w http.ResponseWriter, r *request) error {
	o, err := stopOptions(r)
	if err != nil {
		return err
	}
	return noContent(w, s.Engine.Containers.Restart(r.Context(), r.vars["id"], o))
}

func (s *Server) kill(w http.ResponseWriter, r *request) error {
	return noContent(w, s.Engine.Containers.Kill(r.Context(), r.vars["id"], r.query("signal")))
}

func (s *Server) pause(w http.ResponseWriter, r *request) error {
	return noContent(w, s.Engine.Containers.Pause(r.Context(), r.vars["id"]))
}

func (s *Server) unpause(w http.ResponseWriter, r *request) error {
	return noContent(w, s.Engine.Containers.Unpause(r.Context(), r.vars["id"]))
}

// wait sends its header at once, so that a client knows that it waits before it starts the container.
func (s *Server) wait(w http.ResponseWriter, r *request) error {
	wait, err := s.Engine.Containers.Wait(r.vars["id"], wire.WaitCondition(r.query("condition")))
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	flush(w)
	outcome, err := wait(r.Context())
	if err != nil {
		return nil // the client went away
	}
	return json.NewEncoder(w).Encode(outcome)
}

func flush(w http.ResponseWriter) {
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
}

func (s *Server) removeContainer(w http.ResponseWriter, r *request) error {
	return noContent(w, s.Engine.Containers.Remove(r.Context(), r.vars["id"], engine.RemoveOptions{
		Force: r.flag("force"), Volumes: r.flag("v"), Link: r.flag("link"),
	}))
}

func (s *Server) pruneContainers(w http.ResponseWriter, r *request) error {
	f, err := r.filters()
	if err != nil {
		return err
	}
	if err := f.Only("label", "label!", "until"); err != nil {
		return err
	}
	until, err := f.Until(s.Engine.Now())
	if err != nil {
		return err
	}
	report, err := s.Engine.Containers.Prune(r.Context(), engine.PruneFilter{Until: until, Match: f.Labels})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, report)
}

func (s *Server) rename(w http.ResponseWriter, r *request) error {
	return noContent(w, s.Engine.Containers.Rename(r.Context(), r.vars["id"], r.query("name")))
}

func (s *Server) update(w http.ResponseWriter, r *request) error {
	u := wire.UpdateConfig{}
	if err := r.decode(&u, false); err != nil {
		return err
	}
	answer, err := s.Engine.Containers.Update(r.Context(), r.vars["id"], u)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, answer)
}

func (s *Server) top(w http.ResponseWriter, r *request) error {
	top, err := s.Engine.Views.Top(r.Context(), r.vars["id"], r.query("ps_args"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, top)
}

func (s *Server) changes(w http.ResponseWriter, r *request) error {
	list, err := s.Engine.Views.Changes(r.Context(), r.vars["id"])
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list)
}

func (s *Server) resize(w http.ResponseWriter, r *request) error {
	rows, cols, err := size(r)
	if err != nil {
		return err
	}
	return s.Engine.Streams.Resize(r.Context(), r.vars["id"], rows, cols)
}

// size reads the parameters of a terminal's size.
func size(r *request) (rows, cols uint16, err error) {
	h, okH, err := r.number("h")
	if err != nil {
		return 0, 0, err
	}
	c, okC, err := r.number("w")
	if err != nil {
		return 0, 0, err
	}
	if !okH || !okC || h < 0 || c < 0 || h > 1<<16-1 || c > 1<<16-1 {
		return 0, 0, errdefs.Invalid("invalid resize height or width")
	}
	return uint16(h), uint16(c), nil
}

func (s *Server) clearLogs(w http.ResponseWriter, r *request) error {
	return noContent(w, s.Engine.Views.ClearLogs(r.vars["id"]))
}

func (s *Server) commit(w http.ResponseWriter, r *request) error {
	o := engine.CommitOptions{
		Repo: r.query("repo"), Tag: r.query("tag"), Author: r.query("author"), Comment: r.query("comment"),
		Pause: r.flagOr("pause", true), Changes: r.form["changes"],
	}
	config := wire.Config{}
	if err := r.decode(&config, true); err != nil {
		return err
	}
	if r.ContentLength > 4 { // a body of "null" or nothing asks for the container's own
		o.Config = &config
	}
	id, err := s.Engine.Archives.Commit(r.Context(), r.query("container"), o)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, wire.CommitResponse{ID: id})
}
