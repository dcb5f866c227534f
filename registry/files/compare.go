package files

import (
	"context"
	"slices"
)

// Change is a file that differs between two Views. Before is nil for an added file, After for a removed one.
type Change struct {
	Path          string // without leading slash
	Before, After *File
}

// comparison walks two Views side by side.
type comparison struct {
	ctx  context.Context
	a, b View
	emit func(Change)
}

// Compare calls emit for every difference on the way from a to b, in the order of their paths' elements.
// Where both consist of the same layers (the same *Index) it does not look.
func Compare(ctx context.Context, a, b View, emit func(Change)) error {
	c := comparison{ctx, a, b, emit}
	return c.directory("", a.root(), b.root())
}

func (c comparison) directory(name string, a, b []part) error {
	if slices.EqualFunc(a, b, func(a, b part) bool { return a.dir == b.dir }) {
		return nil
	}
	if err := c.ctx.Err(); err != nil {
		return err
	}
	all := append(names(a), names(b)...)
	slices.Sort(all)
	for _, base := range slices.Compact(all) {
		if err := c.file(name, base, a, b); err != nil {
			return err
		}
	}
	return nil
}

func (c comparison) file(parent, base string, a, b []part) error {
	before, inA, hasBefore := c.a.child(a, parent, base)
	after, inB, hasAfter := c.b.child(b, parent, base)
	name := join(parent, base)
	switch {
	case hasBefore && hasAfter:
		if !same(before.File, after.File) {
			c.emit(Change{name, &before.File, &after.File})
		}
	case hasBefore:
		c.emit(Change{name, &before.File, nil})
	case hasAfter:
		c.emit(Change{name, nil, &after.File})
	}
	return c.directory(name, inA, inB)
}

// same says whether nobody could tell two files apart but by their times.
func same(a, b File) bool {
	a.Implied, b.Implied = false, false
	if a.Kind == Regular && b.Kind == Regular {
		a.Target, b.Target = "", "" // which of a file's names was first does not matter
	}
	return a == b
}
