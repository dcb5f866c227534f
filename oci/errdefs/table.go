package errdefs

import "errors"

// Row is a line of a table of what errors of a class mean somewhere: a status, an exit code.
type Row[T any] struct {
	Class   error
	Meaning T
}

// Find returns the meaning in the first row whose class err has, or other if there is none.
func Find[T any](err error, table []Row[T], other T) T {
	for _, row := range table {
		if errors.Is(err, row.Class) {
			return row.Meaning
		}
	}
	return other
}
