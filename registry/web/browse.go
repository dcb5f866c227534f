package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sync/errgroup"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/registry/files"
)

const (
	mostLayers     = 512 // of an image whose files are shown
	filesPerPage   = 1000
	changesPerPage = 500
)

// waiting says that layers are still being read.
type waiting struct{ ready, all int }

func (w *waiting) Error() string { return fmt.Sprintf("%d of %d layers are read", w.ready, w.all) }

// view returns the files of images; shared layers are the same Index. It fails with *waiting when some
// layers take longer than a visitor waits.
func (v *visit) view(images ...*manifest) ([]files.View, error) {
	found := map[oci.Digest]*files.Index{}
	var missing []oci.Descriptor
	for _, m := range images {
		if len(m.Layers) > mostLayers {
			return nil, errdefs.New(errdefs.ErrExhausted, "the image has %d layers, files are shown of %d at most", len(m.Layers), mostLayers)
		}
		for _, l := range m.Layers {
			if _, seen := found[l.Digest]; !seen {
				found[l.Digest] = nil
				missing = append(missing, l)
			}
		}
	}
	indexes, err := v.indexes(missing)
	if err != nil {
		return nil, err
	}
	for i, l := range missing {
		found[l.Digest] = indexes[i]
	}
	views := make([]files.View, len(images))
	for i, m := range images {
		for _, l := range m.Layers {
			views[i] = append(views[i], found[l.Digest])
		}
	}
	return views, nil
}

// indexes lists the files of layers. A list that is there already proves nothing about who may see it, so
// each layer must be in this repository.
func (v *visit) indexes(layers []oci.Descriptor) ([]*files.Index, error) {
	for _, l := range layers {
		if err := v.p.registry.HasBlob(v.Context(), v.repo, l.Digest); err != nil {
			return nil, absent(err, "the layer %s is not in %s, so its files cannot be shown", l.Digest.Short(), v.repo)
		}
	}
	ctx, cancel := context.WithTimeout(v.Context(), v.p.patience)
	defer cancel()
	indexes, problems := make([]*files.Index, len(layers)), make([]error, len(layers))
	var group errgroup.Group
	for i, l := range layers {
		group.Go(func() error {
			indexes[i], problems[i] = v.p.layers.Get(ctx, l.Digest, func(ctx context.Context) (io.ReadCloser, error) {
				return v.p.registry.OpenBlob(ctx, v.repo, l.Digest)
			})
			return nil
		})
	}
	_ = group.Wait() // problems has the errors
	late := &waiting{all: len(layers)}
	for i, err := range problems {
		switch {
		case err == nil:
			late.ready++
		case !errors.Is(err, errdefs.ErrUnavailable):
			return nil, fmt.Errorf("layer %s: %w", layers[i].Digest.Short(), err)
		}
	}
	if late.ready < late.all {
		return nil, late
	}
	return indexes, nil
}

// wait shows how far reading layers is; the page asks again by itself.
func (v *visit) wait(err error, title string, crumbs []crumb) error {
	var late *waiting
	if !errors.As(err, &late) {
		return err
	}
	v.w.Header().Set("Refresh", "2")
	return v.show(202, waitPage, title, crumbs, map[string]any{"Ready": late.ready, "All": late.all})
}

// fileRow is a line of a directory.
type fileRow struct {
	files.Entry
	Link  string // of a directory
	Total files.Total
}

// IsDir is for the template.
func (r fileRow) IsDir() bool { return r.Kind == files.Dir }

// Permissions is what ls -l shows.
func (r fileRow) Permissions() string { return permissions(r.File) }

func permissions(f files.File) string {
	mode := []byte("?rwxrwxrwx")
	mode[0] = byte(f.Kind)
	if f.Kind == files.Hardlink {
		mode[0] = '-'
	}
	for i := range 9 {
		if f.Mode&(1<<(8-i)) == 0 {
			mode[1+i] = '-'
		}
	}
	for i, bit := range []struct {
		mask uint32
		name byte
	}{{0o4000, 's'}, {0o2000, 's'}, {0o1000, 't'}} {
		at := 3 * (i + 1)
		if f.Mode&bit.mask == 0 {
			continue
		}
		if mode[at] == '-' {
			mode[at] = bit.name - 'a' + 'A'
		} else {
			mode[at] = bit.name
		}
	}
	return string(mode)
}

// files shows a directory of an image.
func (v *visit) files() error {
	d, err := oci.ParseDigest(v.arg)
	if err != nil {
		return errdefs.As(errdefs.ErrInvalid, err)
	}
	m, err := v.load(v.Context(), d)
	if err != nil {
		return err
	}
	if !m.IsImage() {
		return errdefs.NotFound("the manifest %s is not an image and has no files", d)
	}
	where := strings.Trim(v.URL.Query().Get("path"), "/")
	crumbs := []crumb{{"Repositories", "/"}, {v.repo, repoLink(v.repo)}, {d.Short(), manifestLink(v.repo, v.arg)}, {"Files", ""}}
	title := "/" + where + " of " + v.repo + "@" + d.Short()
	views, err := v.view(m)
	if err != nil {
		return v.wait(err, title, crumbs)
	}
	entries, err := views[0].Dir(where)
	if err != nil {
		return err
	}
	totals, err := views[0].Totals(v.Context(), where)
	if err != nil {
		return err
	}
	rows, paging := v.fileRows(entries, totals, where)
	body := map[string]any{
		"Repo": v.repo, "Digest": d, "Rows": rows, "Paging": paging, "Way": v.way(where), "Layers": m.Layers, "Sum": sum(entries, totals),
	}
	return v.show(200, filesPage, title, crumbs, body)
}

// fileRows makes the lines: directories first.
func (v *visit) fileRows(entries []files.Entry, totals map[string]files.Total, where string) ([]fileRow, paging) {
	var rows, others []fileRow
	for _, e := range entries {
		row := fileRow{Entry: e, Total: totals[e.Name]}
		if !row.IsDir() {
			others = append(others, row)
			continue
		}
		row.Link = v.query("files/"+v.arg, "path", strings.TrimPrefix(where+"/"+e.Name, "/"))
		rows = append(rows, row)
	}
	rows = append(rows, others...)
	paging, from, to := v.pageOf(len(rows), filesPerPage)
	return rows[from:to], paging
}

// sum adds up a directory.
func sum(entries []files.Entry, totals map[string]files.Total) (all files.Total) {
	for _, e := range entries {
		if e.Kind != files.Dir {
			all.Files++
			all.Bytes += e.Size
		}
		all.Files += totals[e.Name].Files
		all.Bytes += totals[e.Name].Bytes
	}
	return all
}

// way links each directory above.
func (v *visit) way(where string) []crumb {
	steps := []crumb{{"/", v.query("files/" + v.arg)}}
	if where == "" {
		return steps
	}
	at := ""
	for name := range strings.SplitSeq(where, "/") {
		at = strings.TrimPrefix(at+"/"+name, "/")
		steps = append(steps, crumb{name, v.query("files/"+v.arg, "path", at)})
	}
	return steps
}
