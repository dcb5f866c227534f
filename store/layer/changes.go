package layer

import (
	"context"

	"davit/oci/errdefs"
)

// Kind is what happened to a path; the values are those of the Engine API's ContainerChange.
type Kind int

// The kinds of change.
const (
	Modified Kind = 0 // C
	Added    Kind = 1 // A
	Deleted  Kind = 2 // D
)

// Change is one line of docker diff. Path is absolute in the container.
type Change struct {
	Path string
	Kind Kind
}

// Changes compares an overlay's upper directory with the directories below it, lowest first, and
// returns what differs, sorted by path. A directory that was merely copied up is listed as Modified when
// something in it changed.
func Changes(ctx context.Context, upper string, lowers []string) ([]Change, error) {
	return nil, errdefs.NotImplemented("layer.Changes")
}
