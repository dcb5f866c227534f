package wire

import (
	"encoding/json"
	"errors"
	"syscall"

	"davit/oci/errdefs"
)

// Error is a failure as it travels. Class and system error survive, so that errors.Is decides the same
// on both sides.
type Error struct {
	Message string        `json:"message"`
	Class   string        `json:"class,omitempty"` // text of an errdefs class; empty: none
	Errno   syscall.Errno `json:"errno,omitempty"`
}

// classes are those that can travel.
func classes() []error {
	return []error{
		errdefs.ErrInvalid, errdefs.ErrUnauthorized, errdefs.ErrForbidden, errdefs.ErrNotFound,
		errdefs.ErrConflict, errdefs.ErrNotModified, errdefs.ErrNotImplemented, errdefs.ErrUnavailable,
		errdefs.ErrExhausted, errdefs.ErrDataLoss, errdefs.ErrCanceled, errdefs.ErrUnsupported,
	}
}

// EncodeError returns err as the body of a KindError message.
func EncodeError(err error) []byte {
	e := Error{Message: err.Error()}
	for _, class := range classes() {
		if errors.Is(err, class) {
			e.Class = class.Error()
			break
		}
	}
	errors.As(err, &e.Errno)
	body, _ := json.Marshal(e) // strings and a number: cannot fail
	return body
}

// remote is an error that happened on the other side.
type remote struct {
	message string
	causes  []error
}

func (r *remote) Error() string   { return r.message }
func (r *remote) Unwrap() []error { return r.causes }

// DecodeError returns the error that a KindError message carries.
func DecodeError(m *Message) error {
	var e Error
	if err := m.Decode(&e); err != nil {
		return err
	}
	r := &remote{message: e.Message}
	for _, class := range classes() {
		if class.Error() == e.Class {
			r.causes = append(r.causes, class)
		}
	}
	if e.Errno != 0 {
		r.causes = append(r.causes, e.Errno)
	}
	return r
}
