package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"syscall"

	"davit/oci/errdefs"
)

// failure is an error in the registry's own terms (distribution-spec, "Error Codes").
type failure struct {
	code   string
	status int
	err    error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// The codes of the specification with the status each is sent with.
func fail(code string, format string, args ...any) error {
	status := map[string]int{
		"BLOB_UNKNOWN":          http.StatusNotFound,
		"BLOB_UPLOAD_INVALID":   http.StatusBadRequest,
		"BLOB_UPLOAD_UNKNOWN":   http.StatusNotFound,
		"DIGEST_INVALID":        http.StatusBadRequest,
		"MANIFEST_BLOB_UNKNOWN": http.StatusNotFound,
		"MANIFEST_INVALID":      http.StatusBadRequest,
		"MANIFEST_UNKNOWN":      http.StatusNotFound,
		"NAME_INVALID":          http.StatusBadRequest,
		"NAME_UNKNOWN":          http.StatusNotFound,
		"RANGE_INVALID":         http.StatusRequestedRangeNotSatisfiable,
		"SIZE_INVALID":          http.StatusRequestEntityTooLarge,
		"PAGINATION_INVALID":    http.StatusBadRequest,
		"UNAUTHORIZED":          http.StatusUnauthorized,
		"DENIED":                http.StatusForbidden,
		"UNSUPPORTED":           http.StatusMethodNotAllowed,
	}[code]
	return &failure{code, status, fmt.Errorf(format, args...)}
}

// unknown turns a missing thing into the given code and leaves other errors alone.
func unknown(err error, code string) error {
	if errors.Is(err, errdefs.ErrNotFound) {
		return fail(code, "%w", err)
	}
	return err
}

var errDiskFull = errors.New("the registry's disk is full; push again when there is room")

// explain returns what to tell a client. What is not a failure is the registry's own trouble: it is logged,
// and the client is told no path or system error.
func explain(r *http.Request, log *slog.Logger, err error) *failure {
	var f *failure
	var body *bodyError
	switch {
	case errors.As(err, &body) && (body.slow() || !errors.As(err, &f)):
		f = body.failure()
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		log.Error("the disk is full: free some of it, or let the registry collect what nobody names", "method", r.Method, "path", r.URL.Path, "error", err)
		f = &failure{"UNAVAILABLE", http.StatusInsufficientStorage, errDiskFull}
	case !errors.As(err, &f):
		log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
		f = &failure{"UNKNOWN", http.StatusInternalServerError, errors.New("internal error, see the registry's log")}
	}
	return f
}

// writeError sends {"errors":[{"code","message","detail"}]}.
func writeError(w http.ResponseWriter, r *http.Request, log *slog.Logger, err error) {
	f := explain(r, log, err)
	if r.Context().Err() != nil && f.status != http.StatusRequestTimeout { // else that is for the slow body
		return
	}
	body, _ := json.Marshal(map[string]any{"errors": []map[string]any{{"code": f.code, "message": f.Error()}}})
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(f.status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(append(body, '\n')) // the client is gone when this fails
	}
}
