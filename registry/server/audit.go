package server

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"davit/oci"
	"davit/registry/audit"
)

// ruled is a failure that a rule demands.
type ruled struct {
	error
	rule string
}

// Unwrap returns the failure.
func (r ruled) Unwrap() error { return r.error }

// deniedBy is fail with the name of the rule that denies, for the audit log.
func deniedBy(rule, code, format string, args ...any) error {
	return ruled{fail(code, format, args...), rule}
}

// audit writes down what a request did, if it is of the kind that is.
func (s *Server) audit(w *seen, r *http.Request) {
	if s.options.Audit == nil {
		return
	}
	record := audit.Record{Action: w.audited(r), Result: result(w.status), Status: w.status, User: w.by, Bytes: w.bytes}
	switch {
	case record.Result == audit.Denied && w.status == http.StatusUnauthorized && r.Header.Get("Authorization") == "" && w.route != "token":
		return // how every login begins
	case record.Result == audit.Denied:
		record.Action = cmp.Or(record.Action, "list")
	case record.Action == "" || record.Action == "pull" && record.Result == audit.Failed:
		return
	}
	record.Repository, record.Reference, record.Kind = w.about(r)
	record.Digest = w.digest(r)
	if w.err != nil {
		record.Error = w.err.Error()
	}
	if by := (ruled{}); errors.As(w.err, &by) {
		record.Rule = by.rule
	}
	if record.User == "" {
		record.User = triedUser(r)
	}
	record.Address, record.Forwarded, record.Agent = clientAddress(r), r.Header.Get("X-Forwarded-For"), r.UserAgent()
	s.writeAudit(r.Context(), record)
}

func (s *Server) writeAudit(ctx context.Context, record audit.Record) {
	if s.options.Audit == nil {
		return
	}
	record.Time = time.Now().UTC()
	// The client may be gone: what it did is done.
	s.options.Audit.Write(context.WithoutCancel(ctx), record, record.Action != "pull" && record.Action != "list")
}

// about returns what a request is about: repository, tag or digest as it was asked for, and kind.
func (w *seen) about(r *http.Request) (repository, reference, kind string) {
	repository, reference, kind = strings.TrimPrefix(w.repo, "*"), w.arg, kinds[w.route]
	if name, ok := strings.CutSuffix(r.URL.Path, "/-/rollback"); ok && w.route == "page" {
		repository, reference = strings.TrimPrefix(name, "/r/"), r.PostForm.Get("tag")
	}
	if w.route == "upload" {
		reference = ""
	}
	return repository, reference, kind
}

// kinds are what the routes are about.
var kinds = map[string]string{"manifest": "manifest", "blob": "blob", "uploads": "blob", "upload": "blob", "delta": "delta"}

func result(status int) string {
	switch {
	case status < http.StatusBadRequest:
		return audit.OK
	case status == http.StatusUnauthorized, status == http.StatusForbidden, status == http.StatusTooManyRequests:
		return audit.Denied
	}
	return audit.Failed
}

// audited names what a request does, empty for what is not written down unless it is denied.
func (w *seen) audited(r *http.Request) string {
	switch w.route {
	case "manifest", "blob", "delta":
		return w.content(r)
	case "uploads", "upload":
		if r.Method == http.MethodDelete || w.status == http.StatusAccepted || w.status == http.StatusNoContent {
			return "" // of an upload the end alone
		}
		return "push"
	case "rollback":
		return "rollback"
	case "retention":
		if r.Method == http.MethodDelete && w.status >= http.StatusBadRequest {
			return "delete" // what it deletes has records of its own
		}
	case "signIn":
		if w.by != "" {
			return "login"
		}
	case "token":
		if w.by != "" || triedUser(r) != "" || w.status >= http.StatusBadRequest {
			return "login"
		}
	case "ping", "page":
		return w.visit(r)
	}
	return ""
}

func (w *seen) content(r *http.Request) string {
	switch r.Method {
	case http.MethodGet:
		if w.status == http.StatusNotModified {
			return ""
		}
		return "pull"
	case http.MethodPut:
		if w.retagged {
			return "tag"
		}
		return "push"
	case http.MethodDelete:
		return "delete"
	}
	return ""
}

// visit is a login by a password that goes with the request, or what a page was asked to do.
func (w *seen) visit(r *http.Request) string {
	_, _, given := r.BasicAuth()
	switch {
	case w.route == "page" && r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/-/rollback"):
		return "rollback"
	case given && (w.route == "ping" || r.URL.Path == "/login"), r.URL.Path == "/login/callback":
		return "login"
	case r.URL.Path == "/account/make":
		return "token"
	case r.URL.Path == "/account/revoke":
		return "revoke"
	}
	return ""
}

// noteRetag tells the audit log that a manifest is about to be pushed which the repository has.
func (s *Server) noteRetag(r request, d oci.Digest) {
	if out, ok := r.w.(*seen); ok && s.options.Audit != nil {
		_, err := r.repo.manifest(r.Context(), d)
		out.retagged = err == nil
	}
}

// digest is what the request was about: as the answer says, or else as it was asked for.
func (w *seen) digest(r *http.Request) oci.Digest {
	for _, value := range []string{w.Header().Get("Docker-Content-Digest"), w.arg, r.URL.Query().Get("digest"), r.URL.Query().Get("mount"), r.PostForm.Get("digest")} {
		if d, err := oci.ParseDigest(value); err == nil {
			return d
		}
	}
	return ""
}

// triedUser is who a request says it is from, right or wrong.
func triedUser(r *http.Request) string {
	user, _, _ := r.BasicAuth()
	return cmp.Or(user, r.PostForm.Get("username"))
}

// closeAudit gives what is queued a moment.
func (s *Server) closeAudit(ctx context.Context) {
	if s.options.Audit == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := s.options.Audit.Close(ctx); err != nil {
		s.log.Error("the audit log cannot be closed", "error", err)
	}
}

func (s *Server) auditSeries() []series {
	log := s.options.Audit
	if log == nil {
		return nil
	}
	return []series{
		{"davit_registry_audit_records_total", "counter", "Records written to the audit log.", &log.Written},
		{"davit_registry_audit_lost_total", "counter", "Records that could not be written to the audit log.", &log.Lost},
		{"davit_registry_audit_failures_total", "counter", "Attempts to write to the audit log that failed.", &log.Failures},
	}
}
