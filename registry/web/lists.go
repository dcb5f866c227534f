package web

import (
	"cmp"
	"context"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"davit/oci"
	"davit/oci/errdefs"
)

const (
	perPage = 100 // rows of repositories, tags and logs on a page
	atOnce  = 16  // records read at the same time
	// eagerTags is up to how many tags are ordered by time without being asked: each costs a look at its record.
	eagerTags = 300
)

// paging says which part of a list a page shows.
type paging struct {
	Query                string // what the names must contain
	Page, Pages          int
	First, Last, Matches int // numbers of the first and last row shown, from 1; rows that match
	All                  int // rows without the query
	Previous, Next       string
}

// pageOf cuts the page that the query asks for out of n rows.
func (v *visit) pageOf(n, size int) (paging, int, int) {
	query := v.URL.Query()
	p := paging{Matches: n, All: n, Pages: max(1, (n+size-1)/size), Query: query.Get("q")}
	at, _ := strconv.Atoi(query.Get("page")) // what is no number is the first page
	p.Page = min(max(1, at), p.Pages)
	from, to := (p.Page-1)*size, min(n, p.Page*size)
	p.First, p.Last = min(from+1, n), to
	if p.Page > 1 {
		p.Previous = v.pageLink(p.Page - 1)
	}
	if p.Page < p.Pages {
		p.Next = v.pageLink(p.Page + 1)
	}
	return p, from, to
}

// pageLink is this page's address with another page number.
func (v *visit) pageLink(page int) string {
	query := v.URL.Query()
	query.Set("page", strconv.Itoa(page))
	return "?" + query.Encode()
}

// containing keeps the names that have every word of the query in them.
func containing(names []string, query string) []string {
	words := strings.Fields(strings.ToLower(query))
	if len(words) == 0 {
		return names
	}
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		name = strings.ToLower(name)
		return slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(name, word) })
	})
}

// repositoryRow is a line of the list of repositories.
type repositoryRow struct {
	Name string
	Tags int
}

// repositories lists those that the visitor may pull.
func (v *visit) repositories() error {
	all, err := v.p.registry.Repositories(v.Context())
	if err != nil {
		return err
	}
	visible := slices.DeleteFunc(all, func(name string) bool { return !v.visitor.May(name, "pull") })
	if len(visible) == 0 && v.visitor.User == "" && !v.visitor.Open {
		return errdefs.Unauthorized("log in to see repositories")
	}
	matching := containing(visible, v.URL.Query().Get("q"))
	paging, from, to := v.pageOf(len(matching), perPage)
	paging.All = len(visible)
	rows := make([]repositoryRow, to-from)
	group, ctx := errgroup.WithContext(v.Context())
	group.SetLimit(atOnce)
	for i, name := range matching[from:to] {
		group.Go(func() error {
			tags, err := v.p.registry.Tags(ctx, name)
			rows[i] = repositoryRow{name, len(tags)}
			return ignoreMissing(err)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return v.show(200, repositoriesPage, "Repositories", []crumb{{"Repositories", ""}}, map[string]any{"Rows": rows, "Paging": paging})
}

// tagRow is a line of the list of tags.
type tagRow struct {
	Name      string
	Digest    oci.Digest // empty: gone since the list was made, or deleted
	Since     time.Time
	Kind      string // what it names, in a word or two
	Size      int64  // of config and layers; 0 where that says nothing
	Immutable bool
}

// tags lists a repository's tags, or those that were deleted and can come back.
func (v *visit) tags() error {
	live, err := v.p.registry.Tags(v.Context(), v.repo)
	if err != nil {
		return absent(err, "there is no repository %s", v.repo)
	}
	logged, err := v.p.registry.Logged(v.Context(), v.repo)
	if err != nil {
		return err
	}
	gone := slices.DeleteFunc(logged, func(tag string) bool { _, there := slices.BinarySearch(live, tag); return there })
	body := map[string]any{"Repo": v.repo, "Gone": len(gone), "Live": len(live)}
	if v.URL.Query().Get("deleted") != "" {
		err = v.deletedTags(body, gone)
	} else {
		err = v.liveTags(body, live)
	}
	if err != nil {
		return err
	}
	return v.show(200, tagsPage, v.repo, []crumb{{"Repositories", "/"}, {v.repo, ""}}, body)
}

func (v *visit) liveTags(body map[string]any, live []string) error {
	matching := containing(live, v.URL.Query().Get("q"))
	order, err := v.order(matching)
	if err != nil {
		return err
	}
	paging, from, to := v.pageOf(len(matching), perPage)
	paging.All = len(live)
	rows := make([]tagRow, to-from)
	group, ctx := errgroup.WithContext(v.Context())
	group.SetLimit(atOnce)
	for i, tag := range matching[from:to] {
		group.Go(func() error {
			var err error
			rows[i], err = v.tagRow(ctx, tag)
			return err
		})
	}
	body["Rows"], body["Paging"], body["Order"] = rows, paging, order
	return group.Wait()
}

// order sorts tags as the query says: "new" by time, "name" by name with numbers in them as numbers, the
// highest first. By itself it is by time where that is quick.
func (v *visit) order(tags []string) (string, error) {
	order := v.URL.Query().Get("sort")
	if order != "new" && order != "name" {
		order = "name"
		if len(tags) <= eagerTags {
			order = "new"
		}
	}
	slices.SortFunc(tags, func(a, b string) int { return natural(b, a) })
	if order == "name" {
		return order, nil
	}
	times := make([]time.Time, len(tags))
	group, ctx := errgroup.WithContext(v.Context())
	group.SetLimit(atOnce)
	for i, tag := range tags {
		group.Go(func() error {
			var err error
			times[i], err = v.p.registry.Since(ctx, v.repo, tag)
			return ignoreMissing(err)
		})
	}
	if err := group.Wait(); err != nil {
		return order, err
	}
	since := make(map[string]time.Time, len(tags))
	for i, tag := range tags {
		since[tag] = times[i]
	}
	slices.SortStableFunc(tags, func(a, b string) int { return since[b].Compare(since[a]) })
	return order, nil
}

func (v *visit) tagRow(ctx context.Context, tag string) (tagRow, error) {
	row := tagRow{Name: tag, Immutable: v.p.registry.Immutable(v.repo, tag)}
	d, since, err := v.p.registry.Tag(ctx, v.repo, tag)
	if err != nil {
		return row, ignoreMissing(err)
	}
	row.Digest, row.Since = d, since
	m, err := v.load(ctx, d)
	if err != nil {
		row.Kind = "not in this registry"
		return row, ignoreMissing(err)
	}
	row.Kind, row.Size = m.kind(), m.Total()
	return row, nil
}

func (v *visit) deletedTags(body map[string]any, gone []string) error {
	matching := containing(gone, v.URL.Query().Get("q"))
	slices.SortFunc(matching, func(a, b string) int { return natural(b, a) })
	paging, from, to := v.pageOf(len(matching), perPage)
	paging.All = len(gone)
	rows := make([]tagRow, to-from)
	for i, tag := range matching[from:to] {
		rows[i].Name = tag
		moves, err := v.p.registry.History(v.Context(), v.repo, tag)
		if err != nil {
			return err
		}
		if len(moves) > 0 {
			rows[i].Since = moves[0].Time
		}
	}
	body["Rows"], body["Paging"], body["Deleted"] = rows, paging, true
	return nil
}

// natural compares names with the numbers in them as numbers: v1.9 comes before v1.10.
func natural(a, b string) int {
	for a != "" && b != "" {
		x, y := digits(a), digits(b)
		if x == "" || y == "" {
			if a[0] != b[0] {
				return cmp.Compare(a[0], b[0])
			}
			a, b = a[1:], b[1:]
			continue
		}
		p, q := strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
		if c := cmp.Or(cmp.Compare(len(p), len(q)), cmp.Compare(p, q), cmp.Compare(len(x), len(y))); c != 0 {
			return c
		}
		a, b = a[len(x):], b[len(y):]
	}
	return cmp.Compare(len(a), len(b))
}

// digits returns the digits that s begins with.
func digits(s string) string {
	i := 0
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	return s[:i]
}

func ignoreMissing(err error) error {
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	return err
}

// absent says in a person's words what is not there, and leaves other errors alone.
func absent(err error, format string, args ...any) error {
	if errors.Is(err, errdefs.ErrNotFound) {
		return errdefs.NotFound(format, args...)
	}
	return err
}

// query builds a link to a page of the repository with a query.
func (v *visit) query(page string, pairs ...string) string {
	values := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			values.Set(pairs[i], pairs[i+1])
		}
	}
	link := repoLink(v.repo) + "/-/" + page
	if len(values) > 0 {
		link += "?" + values.Encode()
	}
	return link
}
