package server

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	wire "github.com/moby/moby/api/types/container"
	"golang.org/x/net/websocket"

	"davit/engine"
	"davit/oci/errdefs"
	"davit/store/logs"
)

func (s *Server) attach(w http.ResponseWriter, r *request) error {
	at, keys, err := s.attachment(r)
	if err != nil {
		return err
	}
	past, err := s.pastOutput(r)
	if err != nil {
		return err
	}
	c, err := takeOver(w, r, streamKind(r, at.Tty), nil)
	if err != nil {
		return err
	}
	defer c.Close()
	if past.Entries != nil {
		if err := writeLog(c.Conn, past, false); err != nil {
			return nil // the client is gone
		}
	}
	if !r.flag("stream") {
		return nil
	}
	stream, err := at.Open(gone(r))
	if err != nil || stream == nil {
		s.complain(c, err)
		return nil
	}
	if errors.Is(bridge(c, stream, at.Stdin, keys), errDetached) {
		at.Detached()
	}
	return nil
}

// pastOutput is what a client with logs=1 gets before what is new; empty without.
func (s *Server) pastOutput(r *request) (engine.Log, error) {
	if !r.flag("logs") {
		return engine.Log{}, nil
	}
	return s.Engine.Views.Logs(gone(r), r.vars["id"], logs.Options{Stdout: r.flag("stdout"), Stderr: r.flag("stderr")})
}

// complain writes an error where the output would be: it is too late for a status code.
func (s *Server) complain(c io.Writer, err error) {
	if err != nil {
		_, _ = fmt.Fprintf(c, "Error attaching: %s\r\n", err) // the client may be gone
	}
}

// attachment registers the client of an attach request. Keys are those that detach it, if it has a
// terminal.
func (s *Server) attachment(r *request) (*engine.Attachment, []byte, error) {
	keys, err := detachKeys(r.query("detachKeys"))
	if err != nil {
		return nil, nil, err
	}
	at, err := s.Engine.Streams.Attach(r.vars["id"], engine.AttachOptions{
		Stdin: r.flag("stdin"), Stdout: r.flag("stdout"), Stderr: r.flag("stderr"),
	})
	if err != nil {
		return nil, nil, err
	}
	if !at.Tty {
		keys = nil
	}
	return at, keys, nil
}

// attachWebSocket is attach over a WebSocket, whose frames carry raw bytes.
func (s *Server) attachWebSocket(w http.ResponseWriter, r *request) error {
	at, _, err := s.attachment(r)
	if err != nil {
		return err
	}
	past, err := s.pastOutput(r)
	if err != nil {
		return err
	}
	server := websocket.Server{Handler: func(ws *websocket.Conn) {
		defer ws.Close()
		ws.PayloadType = websocket.BinaryFrame
		if past.Entries != nil {
			for e, err := range past.Entries {
				if err != nil {
					return
				}
				if _, err := ws.Write(e.Line); err != nil {
					return
				}
			}
		}
		if !r.flag("stream") {
			return
		}
		stream, err := at.Open(gone(r))
		if err != nil || stream == nil {
			return
		}
		defer stream.Close()
		go func() {
			_, _ = io.Copy(stream, ws) // ends with either side
			_ = stream.CloseWrite()
		}()
		if at.Tty {
			_, _ = io.Copy(ws, stream)
			return
		}
		_ = engine.Demultiplex(stream, ws, ws)
	}}
	server.ServeHTTP(w, r.Request)
	return nil
}

func (s *Server) createExec(w http.ResponseWriter, r *request) error {
	q := wire.ExecCreateRequest{}
	if err := r.decode(&q, false); err != nil {
		return err
	}
	if _, err := detachKeys(q.DetachKeys); err != nil {
		return err
	}
	id, err := s.Engine.Execs.Create(r.Context(), r.vars["id"], q)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, wire.ExecCreateResponse{ID: id})
}

// execPatience is how long after the end of an exec's output its exit code may take: a program that
// closes its output and goes on holds up no client.
const execPatience = 2 * time.Second

func (s *Server) startExec(w http.ResponseWriter, r *request) error {
	q := wire.ExecStartRequest{}
	if err := r.decode(&q, true); err != nil {
		return err
	}
	o := engine.StartOptions{Detach: q.Detach}
	if q.ConsoleSize != nil {
		o.Rows, o.Cols = q.ConsoleSize[0], q.ConsoleSize[1]
	}
	id := r.vars["id"]
	request, err := s.Engine.Execs.Request(id)
	if err != nil {
		return err
	}
	if q.Detach {
		_, err := s.Engine.Execs.Start(r.Context(), id, o)
		return err
	}
	return s.runExec(w, r, id, request, o)
}

// runExec starts an exec for a client that stays connected until the exit code can be asked for. The
// client has its connection first: why a program cannot be executed is told as if it were output.
func (s *Server) runExec(w http.ResponseWriter, r *request, id string, q wire.ExecCreateRequest, o engine.StartOptions) error {
	var keys []byte
	var err error
	if q.Tty {
		if keys, err = detachKeys(q.DetachKeys); err != nil {
			return err
		}
	}
	c, err := takeOver(w, r, streamKind(r, q.Tty), nil)
	if err != nil {
		return err
	}
	defer c.Close()
	stream, err := s.Engine.Execs.Start(gone(r), id, o)
	if err != nil {
		message := []byte(err.Error() + "\r\n")
		if q.Tty {
			_, _ = c.Write(message) // the client may be gone
		} else {
			_ = frame(c.Conn, 1, message)
		}
		return nil
	}
	if err := bridgeUntil(c, stream, q.AttachStdin, keys, s.execDone(id)); errors.Is(err, errDetached) {
		s.Engine.Execs.Detached(id)
	}
	return nil
}

func (s *Server) execDone(id string) func() {
	return func() {
		done, err := s.Engine.Execs.Done(id)
		if err != nil {
			return
		}
		select {
		case <-done:
		case <-time.After(execPatience):
		}
	}
}

func (s *Server) resizeExec(w http.ResponseWriter, r *request) error {
	rows, cols, err := size(r)
	if err != nil {
		return err
	}
	return s.Engine.Execs.Resize(r.Context(), r.vars["id"], rows, cols)
}

func (s *Server) inspectExec(w http.ResponseWriter, r *request) error {
	i, err := s.Engine.Execs.Inspect(r.vars["id"])
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, i)
}

func (s *Server) logs(w http.ResponseWriter, r *request) error {
	o := logs.Options{Stdout: r.flag("stdout"), Stderr: r.flag("stderr"), Follow: r.flag("follow"), Details: r.flag("details")}
	if tail, given, err := r.number("tail"); given && err == nil && tail >= 0 {
		o.Tail = &tail
	}
	var err error
	if o.Since, err = engine.ParseTime(r.query("since"), s.Engine.Now()); err != nil {
		return errdefs.New(errdefs.ErrInvalid, "invalid value for \"since\": %w", err)
	}
	if until := r.query("until"); until != "" && until != "0" {
		if o.Until, err = engine.ParseTime(until, s.Engine.Now()); err != nil {
			return errdefs.New(errdefs.ErrInvalid, "invalid value for \"until\": %w", err)
		}
	}
	log, err := s.Engine.Views.Logs(r.Context(), r.vars["id"], o)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", streamKind(r, log.Tty))
	if log.Lost != "" {
		w.Header().Set("Davit-Lost", log.Lost)
	}
	w.WriteHeader(http.StatusOK)
	flush(w)
	if err := writeLog(flushing{w}, log, r.flag("timestamps")); err != nil {
		s.Log.Debug("send log", "container", r.vars["id"], "error", err)
	}
	return nil
}

// writeLog writes entries as they were, or with their times before each line.
func writeLog(w io.Writer, log engine.Log, timestamps bool) error {
	for e, err := range log.Entries {
		if err != nil {
			return err
		}
		line := e.Line
		if details := logDetails(e.Attrs); details != "" {
			line = append([]byte(details+" "), line...)
		}
		if timestamps {
			line = append(append(e.Time.UTC().AppendFormat(nil, "2006-01-02T15:04:05.000000000Z07:00"), ' '), line...)
		}
		if log.Tty {
			_, err = w.Write(line)
		} else {
			err = frame(w, streamNumber(e.Stream), line)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// logDetails writes the attributes of an entry as docker logs --details shows them: k=v,k=v.
func logDetails(attributes map[string]string) string {
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		pairs = append(pairs, url.QueryEscape(name)+"="+url.QueryEscape(attributes[name]))
	}
	return strings.Join(pairs, ",")
}

func streamNumber(s logs.Stream) byte {
	if s == logs.Stderr {
		return 2
	}
	return 1
}

// flushing sends what is written at once.
type flushing struct{ http.ResponseWriter }

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.ResponseWriter.Write(p)
	flush(f.ResponseWriter)
	return n, err
}
