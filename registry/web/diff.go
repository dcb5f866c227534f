package web

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/registry/files"
)

// side is one of the two images that are compared.
type side struct {
	Reference string // tag or digest, as asked for
	Digest    oci.Digest
	Image     *manifest // what is compared: of an index, the image of the platform
}

// changeRow is a line of the difference of files.
type changeRow struct {
	Path          string
	Sign          string // "+", "−" or "±"
	Word          string // the same for those who do not see it
	Before, After string // size and what else differs
	Grown         int64
}

// diffBody is what the page of a difference shows.
type diffBody struct {
	Repo                     string
	From, To                 side
	Platform                 string
	Platforms                []string
	Tags                     []string // to choose from
	Same                     bool
	Shared                   int // layers, from the lowest up
	Settings                 []settingChange
	Rows                     []changeRow
	Paging                   paging
	Added, Removed, Modified int
	Grown                    int64 // bytes
}

// diff shows what differs between two images of a repository; without a query it asks which.
func (v *visit) diff() error {
	query := v.URL.Query()
	tags, err := v.p.registry.Tags(v.Context(), v.repo)
	if err != nil {
		return absent(err, "there is no repository %s", v.repo)
	}
	slices.SortFunc(tags, func(a, b string) int { return natural(b, a) })
	body := &diffBody{Repo: v.repo, Platform: query.Get("platform"), Tags: tags[:min(len(tags), perPage)]}
	body.From.Reference, body.To.Reference = strings.TrimSpace(query.Get("from")), strings.TrimSpace(query.Get("to"))
	crumbs := []crumb{{"Repositories", "/"}, {v.repo, repoLink(v.repo)}, {"Compare", ""}}
	title := "Compare images of " + v.repo
	if body.From.Reference == "" || body.To.Reference == "" {
		return v.show(200, diffPage, title, crumbs, body)
	}
	if err := v.sides(body); err != nil {
		return err
	}
	if err := v.changes(body); err != nil {
		return v.wait(err, title, crumbs)
	}
	return v.show(200, diffPage, title, crumbs, body)
}

// sides finds the two images.
func (v *visit) sides(body *diffBody) error {
	var err error
	for _, s := range []*side{&body.From, &body.To} {
		if s.Digest, err = v.resolve(s.Reference); err != nil {
			return err
		}
		m, err := v.load(v.Context(), s.Digest)
		if err != nil {
			return err
		}
		for _, child := range m.Manifests {
			if child.Platform == nil || isAttestation(child) {
				continue
			}
			if name := child.Platform.String(); !slices.Contains(body.Platforms, name) {
				body.Platforms = append(body.Platforms, name)
			}
		}
	}
	if body.Platform == "" && len(body.Platforms) > 0 {
		body.Platform = body.Platforms[0]
		if slices.Contains(body.Platforms, "linux/amd64") {
			body.Platform = "linux/amd64"
		}
	}
	for _, s := range []*side{&body.From, &body.To} {
		if s.Image, err = v.image(s.Digest, body.Platform); err != nil {
			return err
		}
		if !s.Image.IsImage() {
			return errdefs.Invalid("only images can be compared, and %s is none", s.Reference)
		}
	}
	return nil
}

// changes compares them.
func (v *visit) changes(body *diffBody) error {
	from, to := body.From.Image, body.To.Image
	body.Same = from.Digest == to.Digest
	for body.Shared < min(len(from.Layers), len(to.Layers)) && from.Layers[body.Shared].Digest == to.Layers[body.Shared].Digest {
		body.Shared++
	}
	if from.Image != nil && to.Image != nil {
		body.Settings = compareSettings(settings(from.Image), settings(to.Image))
	}
	views, err := v.view(from, to)
	if err != nil {
		return err
	}
	// The page's rows are kept as they come by; which page it is, only their number tells in the end.
	page, _, _ := v.pageOf(math.MaxInt32, changesPerPage)
	n := 0
	err = files.Compare(v.Context(), views[0], views[1], func(c files.Change) {
		body.count(c)
		if n/changesPerPage == page.Page-1 {
			body.Rows = append(body.Rows, changeRowOf(c))
		}
		n++
	})
	if body.Paging, _, _ = v.pageOf(n, changesPerPage); err == nil && body.Paging.Page < page.Page {
		return errdefs.NotFound("the difference has %s only", count(body.Paging.Pages, "page"))
	}
	return err
}

func (b *diffBody) count(c files.Change) {
	switch {
	case c.Before == nil:
		b.Added++
	case c.After == nil:
		b.Removed++
	default:
		b.Modified++
	}
	b.Grown += grown(c)
}

func grown(c files.Change) (n int64) {
	if c.After != nil {
		n += c.After.Size
	}
	if c.Before != nil {
		n -= c.Before.Size
	}
	return n
}

func changeRowOf(c files.Change) changeRow {
	row := changeRow{Path: "/" + c.Path, Grown: grown(c)}
	switch {
	case c.Before == nil:
		row.Sign, row.Word, row.After = "+", "added", describe(*c.After)
	case c.After == nil:
		row.Sign, row.Word, row.Before = "−", "removed", describe(*c.Before)
	default:
		row.Sign, row.Word = "±", "changed"
		row.Before, row.After = describe(*c.Before), describe(*c.After)
		switch {
		case row.Before == row.After && row.Grown == 0:
			row.After = "same size, other content"
		case row.Before == row.After:
			row.Before, row.After = fmt.Sprintf("%d bytes", c.Before.Size), fmt.Sprintf("%d bytes", c.After.Size)
		}
	}
	return row
}

// describe says what can be seen of a file in a few words.
func describe(f files.File) string {
	switch f.Kind {
	case files.Regular:
		return size(f.Size) + " " + permissions(f)
	case files.Symlink, files.Hardlink:
		return "link to " + f.Target
	}
	return permissions(f)
}

// settingChange is a value of the configuration that differs; empty where it is not there.
type settingChange struct{ Group, Name, Before, After string }

// compareSettings pairs two lists of settings by group and name.
func compareSettings(a, b []setting) []settingChange {
	type key struct{ group, name string }
	byKey := map[key]*settingChange{}
	var order []key
	at := func(s setting) *settingChange {
		k := key{s.Group, s.Name}
		if byKey[k] == nil {
			byKey[k] = &settingChange{Group: s.Group, Name: s.Name}
			order = append(order, k)
		}
		return byKey[k]
	}
	for _, s := range a {
		at(s).Before = s.Value
	}
	for _, s := range b {
		at(s).After = s.Value
	}
	maps.DeleteFunc(byKey, func(_ key, c *settingChange) bool { return c.Before == c.After })
	var changes []settingChange
	for _, k := range order {
		if c := byKey[k]; c != nil {
			changes = append(changes, *c)
		}
	}
	return changes
}
