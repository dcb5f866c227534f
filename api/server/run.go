package server

import (
	"encoding/json"
	"net/http"

	wire "github.com/moby/moby/api/types/container"

	"davit/engine"
)

// containerHeader names the container that a run has made, also when it could not be started.
const containerHeader = "Container-Id"

// warningsHeader holds a JSON array of texts.
const warningsHeader = "Container-Warnings"

// exitStream is the number of a stream's last frame, with a JSON wire.WaitResponse: how the container
// ended. Numbers 1 and 2 are its outputs.
const exitStream = 3

// run is POST /davit/run: create, attach, wait and start in one exchange, with the queries of the first
// two and the body of the first. Asked for no stream it answers as create does, once the container runs.
// Else the connection becomes a multiplexed stream that ends with an exitStream frame; of containers that
// are removed when they end, after that.
func (s *Server) run(w http.ResponseWriter, r *request) error {
	q, err := createRequest(r)
	if err != nil {
		return err
	}
	made, err := s.Engine.Containers.Create(r.Context(), q)
	if err != nil {
		return err
	}
	w.Header().Set(containerHeader, made.ID)
	if !r.flag("stdin") && !r.flag("stdout") && !r.flag("stderr") {
		if err := s.Engine.Containers.Start(r.Context(), made.ID); err != nil {
			return err
		}
		return writeJSON(w, http.StatusCreated, made)
	}
	return s.runAttached(w, r, q, made)
}

func (s *Server) runAttached(w http.ResponseWriter, r *request, q engine.CreateRequest, made wire.CreateResponse) error {
	at, err := s.Engine.Streams.Attach(made.ID, engine.AttachOptions{
		Stdin: r.flag("stdin"), Stdout: r.flag("stdout"), Stderr: r.flag("stderr"),
	})
	if err != nil {
		return err
	}
	condition := wire.WaitConditionNextExit
	if q.HostConfig != nil && q.HostConfig.AutoRemove {
		condition = wire.WaitConditionRemoved
	}
	wait, err := s.Engine.Containers.Wait(made.ID, condition)
	if err != nil {
		return err
	}
	if err := s.Engine.Containers.Start(r.Context(), made.ID); err != nil {
		return err
	}
	header := http.Header{containerHeader: {made.ID}}
	if len(made.Warnings) > 0 {
		text, err := json.Marshal(made.Warnings)
		if err != nil {
			return err
		}
		header.Set(warningsHeader, string(text))
	}
	c, err := takeOver(w, r, multiplexed, header)
	if err != nil {
		return err
	}
	defer c.Close()
	stream, err := at.Open(gone(r))
	if err != nil || stream == nil {
		s.complain(c, err)
		return nil
	}
	_ = bridgeUntil(c, stream, at.Stdin, nil, func() { // it ends with its client, whatever the reason
		outcome, err := wait(gone(r))
		if err != nil {
			return
		}
		if text, err := json.Marshal(outcome); err == nil {
			_ = frame(c.Conn, exitStream, text) // the client may be gone
		}
	})
	return nil
}
