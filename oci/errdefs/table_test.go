package errdefs

import (
	"errors"
	"fmt"
	"testing"
)

func TestFind(t *testing.T) {
	table := []Row[int]{{ErrNotFound, 1}, {ErrInvalid, 2}, {ErrNotFound, 3}}
	for _, c := range []struct {
		err  error
		want int
	}{
		{NotFound("x"), 1},
		{fmt.Errorf("look up: %w", Invalid("x")), 2},
		{Conflict("x"), 9},
		{errors.New("x"), 9},
		{nil, 9},
	} {
		if got := Find(c.err, table, 9); got != c.want {
			t.Errorf("%v means %d, want %d", c.err, got, c.want)
		}
	}
}
