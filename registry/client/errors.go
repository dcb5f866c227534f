package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"davit/oci/errdefs"
	"davit/oci/ref"
)

// Error is a registry's refusal: the HTTP status, and code and message of the first entry of its JSON
// error body (distribution-spec, "Error codes") where it sent one.
type Error struct {
	Status     int
	Code       string // "MANIFEST_UNKNOWN", or empty
	Message    string
	RetryAfter time.Duration
}

// Error speaks as Docker does: "manifest unknown: manifest unknown".
func (e *Error) Error() string {
	code := strings.ToLower(strings.ReplaceAll(e.Code, "_", " "))
	switch {
	case code != "" && e.Message != "":
		return code + ": " + e.Message
	case code != "":
		return code
	case e.Message != "":
		return fmt.Sprintf("%d %s: %s", e.Status, http.StatusText(e.Status), e.Message)
	}
	return fmt.Sprintf("%d %s", e.Status, http.StatusText(e.Status))
}

// Unwrap returns the class of the status.
func (e *Error) Unwrap() error {
	switch {
	case e.Status == http.StatusUnauthorized:
		return errdefs.ErrUnauthorized
	case e.Status == http.StatusForbidden:
		return errdefs.ErrForbidden
	case e.Status == http.StatusNotFound:
		return errdefs.ErrNotFound
	case e.Status == http.StatusTooManyRequests:
		return errdefs.ErrTooManyRequest
	case e.Status >= 500:
		return errdefs.ErrUnavailable
	}
	return errdefs.ErrInvalid
}

// temporary says whether the same request may succeed a little later.
func (e *Error) temporary() bool {
	return e.Status >= 500 && e.Status != http.StatusNotImplemented || e.Status == http.StatusTooManyRequests || e.Status == http.StatusRequestTimeout
}

// maxErrorBody bounds what is read of a refusal, in bytes.
const maxErrorBody = 64 << 10

// readError makes an Error of a response that is not the expected one. It leaves the body open.
func readError(resp *http.Response) *Error {
	e := &Error{Status: resp.StatusCode, RetryAfter: retryAfter(resp.Header)}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err != nil {
		return e // the status alone has to do
	}
	var reply struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
		Details string `json:"details"`
	}
	if json.Unmarshal(body, &reply) != nil {
		if text := strings.TrimSpace(string(body)); len(text) < 200 && !strings.HasPrefix(text, "<") {
			e.Message = text
		}
		return e
	}
	e.Message = reply.Details
	if len(reply.Errors) > 0 {
		e.Code, e.Message = reply.Errors[0].Code, reply.Errors[0].Message
	}
	return e
}

// retryAfter reads the header of that name: seconds or a date (RFC 9110, section 10.2.3).
func retryAfter(h http.Header) time.Duration {
	value := h.Get("Retry-After")
	if seconds, err := strconv.Atoi(value); err == nil && seconds > 0 {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(time.Until(at), 0)
	}
	return 0
}

// unreachable names the registry and the cause in one sentence.
func unreachable(host string, err error) error {
	var decorated *url.Error
	if errors.As(err, &decorated) {
		err = decorated.Err
	}
	var unknown x509.UnknownAuthorityError
	switch {
	case err == nil || errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &unknown):
		return errdefs.Unavailable("registry %s is not trusted: %w (put its authority's certificate in /etc/davit/certs.d/%s/ca.crt, or list it as insecure registry)", host, err, host)
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return errdefs.Unavailable("registry %s speaks plain HTTP: %w (list it as insecure registry to allow that)", host, err)
	}
	return errdefs.Unavailable("registry %s cannot be reached: %w", host, err)
}

// retryable says whether a failure may pass by itself. Refusals do not, nor does what the caller or a
// certificate stops.
func retryable(err error) bool {
	var refusal *Error
	var certificate *tls.CertificateVerificationError
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return false
	case errors.As(err, &refusal):
		return refusal.temporary()
	case errors.As(err, &certificate), errors.Is(err, errdefs.ErrUnauthorized), errors.Is(err, errdefs.ErrDataLoss):
		return false
	}
	return !firstContactFailed(err)
}

// firstContactFailed says whether nobody answered at the address at all: not worth a wait. The resolver has
// made its own attempts before it reports a failure.
func firstContactFailed(err error) bool {
	var dns *net.DNSError
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH) ||
		errors.As(err, &dns)
}

// explainPull turns a refusal to read r into Docker's sentence.
func explainPull(r ref.Ref, err error) error {
	var refusal *Error
	if !errors.As(err, &refusal) {
		if errors.Is(err, errdefs.ErrUnauthorized) {
			return errdefs.NotFound("pull access denied for %s, repository does not exist or may require 'docker login': %w", r.FamiliarName(), err)
		}
		return err
	}
	switch {
	case refusal.Status == http.StatusUnauthorized || refusal.Status == http.StatusForbidden:
		return errdefs.NotFound("pull access denied for %s, repository does not exist or may require 'docker login': %w", r.FamiliarName(), err)
	case refusal.Code == "NAME_UNKNOWN":
		return errdefs.NotFound("repository %s not found: %w", r.FamiliarName(), err)
	case refusal.Status == http.StatusNotFound && refusal.Code == "":
		return errdefs.NotFound("manifest for %s not found: manifest unknown: manifest unknown: %w", r.Familiar(), err)
	case refusal.Status == http.StatusNotFound:
		return errdefs.NotFound("manifest for %s not found: %w", r.Familiar(), err)
	case refusal.Status == http.StatusTooManyRequests:
		return fmt.Errorf("toomanyrequests: registry %s asks to pull less often: %w", r.Domain, err)
	}
	return fmt.Errorf("pull %s from registry %s: %w", r.Familiar(), r.Domain, err)
}

// explainPush turns a refusal to write r into one sentence.
func explainPush(r ref.Ref, err error) error {
	var refusal *Error
	switch {
	case errors.As(err, &refusal) && (refusal.Status == http.StatusUnauthorized || refusal.Status == http.StatusForbidden),
		refusal == nil && errors.Is(err, errdefs.ErrUnauthorized):
		return fmt.Errorf("push access denied for %s, it may require 'docker login': %w", r.FamiliarName(), err)
	case refusal != nil:
		return fmt.Errorf("push %s to registry %s: %w", r.Familiar(), r.Domain, err)
	}
	return err
}
