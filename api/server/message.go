package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/jsonstream"

	"davit/build"
	"davit/image"
	"davit/oci/errdefs"
)

// messages is an answer that is sent while the work goes on: one JSON object a line.
type messages struct {
	w       http.ResponseWriter
	explain func(error) error

	mu    sync.Mutex
	begun bool
}

// newMessages begins an answer that is sent while the request's body is still read.
func (s *Server) newMessages(w http.ResponseWriter) *messages {
	_ = http.NewResponseController(w).EnableFullDuplex() // HTTP/2 needs no such thing
	return &messages{w: w, explain: s.Engine.System.Explain}
}

// message is one line. Progress is shown by old clients as it stands, by newer ones from the detail.
type message struct {
	Stream   string               `json:"stream,omitempty"`
	Status   string               `json:"status,omitempty"`
	Detail   *jsonstream.Progress `json:"progressDetail,omitempty"`
	Progress string               `json:"progress,omitempty"`
	ID       string               `json:"id,omitempty"`
	Error    *jsonstream.Error    `json:"errorDetail,omitempty"`
	ErrorOld string               `json:"error,omitempty"`
	Aux      any                  `json:"aux,omitempty"`
}

func (m *messages) send(line message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.begun {
		m.begun = true
		m.w.Header().Set("Content-Type", "application/json")
	}
	b, err := json.Marshal(line)
	if err != nil {
		return
	}
	_, _ = m.w.Write(append(b, '\r', '\n')) // the client may be gone; the work's context ends then
	flush(m.w)
}

func (m *messages) status(id, text string) { m.send(message{ID: id, Status: text}) }
func (m *messages) stream(text string)     { m.send(message{Stream: text}) }
func (m *messages) aux(value any)          { m.send(message{Aux: value}) }

// raw passes on a message that is JSON already.
func (m *messages) raw(line json.RawMessage) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.begun {
		m.begun = true
		m.w.Header().Set("Content-Type", "application/json")
	}
	_, _ = m.w.Write(append(append([]byte{}, line...), '\r', '\n')) // as in send
	flush(m.w)
}

func (m *messages) progress(p image.Progress) {
	line := message{ID: p.ID, Status: p.Status, Detail: &jsonstream.Progress{Current: p.Current, Total: p.Total}}
	if p.Total > 0 {
		line.Progress = bar(p.Current, p.Total)
	}
	m.send(line)
}

// bar draws progress for clients that do not draw it themselves.
func bar(current, total int64) string {
	const width = 50
	done := int(min(current, total) * width / total)
	return "[" + strings.Repeat("=", max(0, done-1)) + ">" + strings.Repeat(" ", width-max(1, done)) + "] " +
		units.HumanSize(float64(current)) + "/" + units.HumanSize(float64(total))
}

// fail ends the answer with an error: as a status code if nothing was sent, else as the last message.
func (m *messages) fail(err error) error {
	m.mu.Lock()
	begun := m.begun
	m.mu.Unlock()
	if !begun {
		return err
	}
	err = m.explain(err)
	detail := &jsonstream.Error{Message: err.Error()}
	if step := (*build.StepError)(nil); errors.As(err, &step) {
		detail.Code = step.Code // the client's exit code
	}
	m.send(message{Error: detail, ErrorOld: err.Error()})
	return nil
}

// fetchTimeout is how long a server may take to answer.
const fetchTimeout = 30 * time.Second

// fetch opens what a URL names.
func fetch(ctx context.Context, url string) (io.ReadCloser, error) {
	if !strings.Contains(url, "://") {
		url = "http://" + url
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, errdefs.As(errdefs.ErrInvalid, err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = fetchTimeout
	answer, err := (&http.Client{Transport: transport}).Do(q)
	if err != nil {
		return nil, errdefs.As(errdefs.ErrInvalid, err)
	}
	if answer.StatusCode != http.StatusOK {
		answer.Body.Close()
		return nil, errdefs.Invalid("fetch %s: %s", url, answer.Status)
	}
	return answer.Body, nil
}
