// Package errdefs sorts errors into the few classes that callers decide by. A class is an error value
// for errors.Is; a message is written once, where the failure is understood, and reaches the user
// unchanged:
//
//	return errdefs.NotFound("No such container: %s", name)
//	...
//	if errors.Is(err, errdefs.ErrNotFound) { ... }
//
// Wrapping with fmt.Errorf("verb object: %w", err) keeps the class. One table per protocol maps
// classes to HTTP status codes, exit codes and registry error codes; it lives beside that protocol.
package errdefs

import (
	"errors"
	"fmt"
	"syscall"
)

// The classes. An error in none of them is internal: davit's or the system's own failure.
var (
	ErrInvalid        = errors.New("invalid argument")      // the request is wrong; 400
	ErrUnauthorized   = errors.New("unauthorized")          // no or wrong credentials; 401
	ErrForbidden      = errors.New("forbidden")             // known, and not allowed; 403
	ErrNotFound       = errors.New("not found")             // 404
	ErrConflict       = errors.New("conflict")              // the present state forbids it; 409
	ErrNotModified    = errors.New("not modified")          // it is already so; 304
	ErrNotImplemented = errors.New("not implemented")       // 501
	ErrUnavailable    = errors.New("unavailable")           // try later; 503
	ErrExhausted      = errors.New("resource exhausted")    // disk, addresses, quota; 500 or 507
	ErrDataLoss       = errors.New("data loss")             // bytes are not what was promised; 500
	ErrCanceled       = errors.New("canceled")              // by the caller
	ErrTooManyRequest = errors.New("too many requests")     // 429
	ErrUnsupported    = errors.New("unsupported by kernel") // this host cannot; 500
)

// classed is a message with a class, and perhaps a cause.
type classed struct {
	class error
	err   error
}

func (c *classed) Error() string   { return c.err.Error() }
func (c *classed) Unwrap() []error { return []error{c.class, c.err} }

// As gives err the class, keeping its message and cause; nil stays nil.
func As(class, err error) error {
	if err == nil {
		return nil
	}
	return &classed{class, err}
}

// New returns an error of the class; format may hold %w.
func New(class error, format string, args ...any) error {
	return &classed{class, fmt.Errorf(format, args...)}
}

// NotFound returns an ErrNotFound error with the given message.
func NotFound(format string, args ...any) error { return New(ErrNotFound, format, args...) }

// Invalid returns an ErrInvalid error with the given message.
func Invalid(format string, args ...any) error { return New(ErrInvalid, format, args...) }

// Conflict returns an ErrConflict error with the given message.
func Conflict(format string, args ...any) error { return New(ErrConflict, format, args...) }

// Forbidden returns an ErrForbidden error with the given message.
func Forbidden(format string, args ...any) error { return New(ErrForbidden, format, args...) }

// Unauthorized returns an ErrUnauthorized error with the given message.
func Unauthorized(format string, args ...any) error { return New(ErrUnauthorized, format, args...) }

// Unavailable returns an ErrUnavailable error with the given message.
func Unavailable(format string, args ...any) error { return New(ErrUnavailable, format, args...) }

// NotModified returns an ErrNotModified error with the given message.
func NotModified(format string, args ...any) error { return New(ErrNotModified, format, args...) }

// NotImplemented returns an ErrNotImplemented error with the given message.
func NotImplemented(format string, args ...any) error {
	return New(ErrNotImplemented, format, args...)
}

// NoSpace says whether err comes of a full disk, or of a quota that is used up.
func NoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
