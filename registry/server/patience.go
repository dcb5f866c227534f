package server

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"time"
)

// clientPatience is how long a client may take for its next bytes: to send some of a body, or to take a
// piece of an answer.
const clientPatience = time.Minute

// pieceSize is what a client has to take of a blob within its time: 9 KB a second are enough.
const pieceSize = 512 << 10

// patient moves a connection's deadlines along while bytes flow, so that a large blob may take hours and a
// client that stands still is let go.
type patient struct {
	control  *http.ResponseController
	patience time.Duration
	body     *patientBody // nil: the request has none
}

// patientFor returns the request with a body that has deadlines.
func patientFor(w http.ResponseWriter, r *http.Request, patience time.Duration) (*patient, *http.Request) {
	p := &patient{control: http.NewResponseController(w), patience: patience}
	if r.Body != nil && r.Body != http.NoBody {
		p.body = &patientBody{ReadCloser: r.Body, patient: p}
		r = r.WithContext(r.Context())
		r.Body = p.body
	}
	p.beforeWrite()
	return p, r
}

// beforeWrite gives the client its time for what is written now. What is no connection has no deadlines.
func (p *patient) beforeWrite() { _ = p.control.SetWriteDeadline(time.Now().Add(p.patience)) }

// end leaves time for what net/http does after the handler: to send the rest of the answer, and to read
// some of a body that nobody wanted.
func (p *patient) end() {
	_ = p.control.SetWriteDeadline(time.Now().Add(2 * p.patience)) // the answer is sent when the reading is over
	if p.body != nil && !p.body.over {
		_ = p.control.SetReadDeadline(time.Now().Add(p.patience))
	}
}

type patientBody struct {
	io.ReadCloser
	*patient
	over bool
	read int64
}

// Read implements io.Reader. At the end of the body the deadline goes: from there on net/http reads, to
// learn whether the client is there.
func (b *patientBody) Read(p []byte) (int, error) {
	if b.over {
		return b.ReadCloser.Read(p)
	}
	_ = b.control.SetReadDeadline(time.Now().Add(b.patience))
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	switch {
	case errors.Is(err, io.EOF):
		b.over = true
		_ = b.control.SetReadDeadline(time.Time{})
	case err != nil:
		b.over = true
		err = &bodyError{b.read, b.patience, err}
	}
	return n, err
}

// bodyError is a body that did not come to its end.
type bodyError struct {
	read     int64 // bytes that came
	patience time.Duration
	err      error
}

func (e *bodyError) Error() string {
	if e.slow() {
		return fmt.Sprintf("after %d bytes of the request's body no more came for %s", e.read, e.patience)
	}
	return fmt.Sprintf("the connection ended after %d bytes of the request's body: %v", e.read, e.err)
}

func (e *bodyError) Unwrap() error { return e.err }
func (e *bodyError) slow() bool    { return errors.Is(e.err, os.ErrDeadlineExceeded) }

// failure is what the client is told, if it is there to hear it.
func (e *bodyError) failure() *failure {
	if e.slow() {
		return &failure{"SIZE_INVALID", http.StatusRequestTimeout, e}
	}
	return &failure{"SIZE_INVALID", http.StatusBadRequest, e}
}

// sendPieces copies from r to w, each piece within the client's time. The pieces keep the shape for which
// net/http uses sendfile(2).
func (p *patient) sendPieces(w io.Writer, r io.Reader) (sent int64, err error) {
	rest, ok := r.(*io.LimitedReader)
	if !ok {
		rest = &io.LimitedReader{R: r, N: math.MaxInt64}
	}
	for rest.N > 0 {
		p.beforeWrite()
		size := min(rest.N, pieceSize)
		n, err := io.Copy(w, &io.LimitedReader{R: rest.R, N: size})
		sent += n
		rest.N -= n
		if err != nil || n < size {
			return sent, err
		}
	}
	return sent, nil
}
