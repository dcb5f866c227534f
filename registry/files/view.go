package files

import (
	"context"
	"slices"
	"strings"

	"davit/oci/errdefs"
)

// View is what a container sees of layers, the lowest first.
type View []*Index

// Entry is a file of a View.
type Entry struct {
	File
	Layer int // the number of the layer that it comes from, the lowest is 0
}

// part is what one layer adds to a directory of a View.
type part struct {
	layer int
	dir   *directory
}

// root returns the parts of the root directory, the uppermost first.
func (v View) root() []part {
	var parts []part
	for i := len(v) - 1; i >= 0; i-- {
		dir := v[i].dirs[""]
		parts = append(parts, part{i, dir})
		if dir.opaque {
			break
		}
	}
	return parts
}

// child finds a name in a directory: the uppermost layer that has it decides, whiteouts hide what lies
// below them, and directories are merged.
func (v View) child(in []part, parent, name string) (e Entry, below []part, found bool) {
	for _, p := range in {
		at, ok := p.dir.find(name)
		if ok {
			f := p.dir.files[at]
			if f.Kind != Dir && found {
				return e, below, true // a directory above hides it
			}
			if !found || e.Implied && !f.Implied {
				e = Entry{f, p.layer}
			}
			if found = true; f.Kind != Dir {
				return e, nil, true
			}
			dir := v[p.layer].dirs[join(parent, name)]
			below = append(below, part{p.layer, dir})
			if dir.opaque {
				return e, below, true
			}
		}
		if p.dir.hides(name) {
			return e, below, found
		}
	}
	return e, below, found
}

// open returns the parts of a directory.
func (v View) open(name string) ([]part, error) {
	parts, at := v.root(), ""
	if name == "" {
		return parts, nil
	}
	for base := range strings.SplitSeq(name, "/") {
		e, below, found := v.child(parts, at, base)
		if !found || e.Kind != Dir {
			return nil, errdefs.NotFound("the image has no directory /%s", name)
		}
		parts, at = below, join(at, base)
	}
	return parts, nil
}

// names are those in any of the parts, sorted, hidden ones too.
func names(parts []part) []string {
	var all []string
	for _, p := range parts {
		for _, f := range p.dir.files {
			all = append(all, f.Name)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Dir lists a directory by name. It fails with ErrNotFound when there is none.
func (v View) Dir(name string) ([]Entry, error) {
	name = clean(name)
	parts, err := v.open(name)
	if err != nil {
		return nil, err
	}
	var entries []Entry
	for _, base := range names(parts) {
		if e, _, found := v.child(parts, name, base); found {
			entries = append(entries, e)
		}
	}
	return entries, nil
}

// Total is what lies in a directory, at any depth: the files that are not directories, and their bytes.
type Total struct {
	Files int
	Bytes int64
}

// Totals adds up each directory inside a directory.
func (v View) Totals(ctx context.Context, name string) (map[string]Total, error) {
	name = clean(name)
	parts, err := v.open(name)
	if err != nil {
		return nil, err
	}
	totals := map[string]Total{}
	for _, base := range names(parts) {
		e, below, found := v.child(parts, name, base)
		if !found || e.Kind != Dir {
			continue
		}
		var t Total
		if err := v.add(ctx, &t, join(name, base), below); err != nil {
			return nil, err
		}
		totals[base] = t
	}
	return totals, nil
}

func (v View) add(ctx context.Context, t *Total, name string, parts []part) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(parts) == 1 {
		return v.addOne(ctx, t, name, parts[0])
	}
	for _, base := range names(parts) {
		e, below, found := v.child(parts, name, base)
		switch {
		case !found:
		case e.Kind == Dir:
			if err := v.add(ctx, t, join(name, base), below); err != nil {
				return err
			}
		default:
			t.Files++
			t.Bytes += e.Size
		}
	}
	return nil
}

// addOne is add for what is in one layer alone, as most directories are: there is nothing to merge.
func (v View) addOne(ctx context.Context, t *Total, name string, p part) error {
	for _, f := range p.dir.files {
		if f.Kind != Dir {
			t.Files++
			t.Bytes += f.Size
			continue
		}
		below := join(name, f.Name)
		if err := v.add(ctx, t, below, []part{{p.layer, v[p.layer].dirs[below]}}); err != nil {
			return err
		}
	}
	return nil
}
