package web

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"davit/oci"
	"davit/oci/errdefs"
	"davit/oci/ref"
)

// manifestBody is what the page of a tag or a manifest shows.
type manifestBody struct {
	Repo      string
	Tag       string // empty on the page of a digest
	Since     time.Time
	Immutable bool
	Manifest  *manifest // nil: the tag is deleted, or names what is not here
	Missing   oci.Digest
	Platforms []platformRow
	Steps     []step
	Settings  []setting
	Referrers []oci.Descriptor
	// What the lists above leave out.
	MoreSteps     bool
	MoreReferrers int // how many there are in all, 0: no more than shown
	History       []moveRow
	MovePages     paging
	Done          bool // a rollback brought the visitor here
	Pull          []string
}

// moveRow is a line of a tag's log.
type moveRow struct {
	Move
	Number  int    // as in TAG@{0}
	Current bool   // what the tag names now
	MayBack bool   // the visitor may roll back to it
	Compare string // link to the difference from it to the present
}

// tag shows what a tag names, and its log.
func (v *visit) tag() error {
	moves, err := v.p.registry.History(v.Context(), v.repo, v.arg)
	if ignoreMissing(err) != nil {
		return err
	}
	d, since, err := v.p.registry.Tag(v.Context(), v.repo, v.arg)
	if ignoreMissing(err) != nil || err != nil && len(moves) == 0 {
		return absent(err, "there is no tag %s in %s", v.arg, v.repo)
	}
	body := &manifestBody{
		Repo: v.repo, Tag: v.arg, Since: since, Immutable: v.p.registry.Immutable(v.repo, v.arg),
		Done: d != "" && v.URL.Query().Get("done") == string(d),
	}
	body.MovePages, body.History = v.moves(moves, d, body.Immutable)
	if d != "" {
		err := v.describe(body, d)
		if ignoreMissing(err) != nil {
			return err
		}
		if err != nil {
			body.Missing = d
		}
	}
	crumbs := []crumb{{"Repositories", "/"}, {v.repo, repoLink(v.repo)}, {v.arg, ""}}
	return v.show(200, manifestPage, v.repo+":"+v.arg, crumbs, body)
}

// moves makes the rows of a log: the page of it that the query asks for.
func (v *visit) moves(moves []Move, now oci.Digest, immutable bool) (paging, []moveRow) {
	may := v.visitor.May(v.repo, "push") && (now == "" || !immutable)
	paging, from, to := v.pageOf(len(moves), perPage)
	var rows []moveRow
	for i, m := range moves[from:to] {
		row := moveRow{Move: m, Number: from + i, Current: m.Digest == now && m.Digest != ""}
		if m.Digest != "" && !row.Current {
			row.MayBack = may
			if now != "" {
				row.Compare = v.query("diff", "from", string(m.Digest), "to", v.arg)
			}
		}
		rows = append(rows, row)
	}
	return paging, rows
}

// manifest shows what a digest names.
func (v *visit) manifest() error {
	d, err := oci.ParseDigest(v.arg)
	if err != nil {
		return errdefs.As(errdefs.ErrInvalid, err)
	}
	body := &manifestBody{Repo: v.repo}
	if err := v.describe(body, d); err != nil {
		return err
	}
	crumbs := []crumb{{"Repositories", "/"}, {v.repo, repoLink(v.repo)}, {d.Short(), ""}}
	return v.show(200, manifestPage, v.repo+"@"+d.Short(), crumbs, body)
}

// describe fills in what the manifest has.
func (v *visit) describe(body *manifestBody, d oci.Digest) error {
	m, err := v.loadImage(v.Context(), d)
	if err != nil {
		return err
	}
	body.Manifest = m
	if m.IsIndex() {
		body.Platforms, err = v.platforms(m)
	}
	if m.IsImage() {
		body.Steps = m.steps()
		if body.MoreSteps = len(body.Steps) > mostLayers; body.MoreSteps {
			body.Steps = body.Steps[:mostLayers]
		}
	}
	if m.Image != nil {
		body.Settings = settings(m.Image)
	}
	name := v.Host + "/" + v.repo + "@" + string(d)
	if body.Tag != "" {
		name = v.Host + "/" + v.repo + ":" + body.Tag
	}
	if m.IsIndex() || m.IsImage() {
		body.Pull = []string{"davit pull " + name, "docker pull " + name}
	} else {
		body.Pull = []string{"oras pull " + name}
	}
	if err != nil {
		return err
	}
	body.Referrers, err = v.p.registry.Referrers(v.Context(), v.repo, d)
	if len(body.Referrers) > perPage {
		body.MoreReferrers, body.Referrers = len(body.Referrers), body.Referrers[:perPage]
	}
	return err
}

// setting is one value of an image's configuration. Items of the same Group belong together.
type setting struct{ Group, Name, Value string }

// settings lists what containers of an image start with.
func settings(image *oci.Image) []setting {
	c := image.Config
	list := []setting{{"", "Platform", image.Platform().String()}}
	add := func(group, name, value string) {
		if value != "" {
			list = append(list, setting{group, name, value})
		}
	}
	if image.Created != nil {
		add("", "Created", image.Created.UTC().Format("2006-01-02 15:04:05 UTC"))
	}
	add("", "Author", image.Author)
	add("", "User", c.User)
	add("", "Working directory", c.WorkingDir)
	add("", "Entrypoint", words(c.Entrypoint))
	add("", "Command", words(c.Cmd))
	add("", "Ports", strings.Join(slices.Sorted(maps.Keys(c.ExposedPorts)), ", "))
	add("", "Volumes", strings.Join(slices.Sorted(maps.Keys(c.Volumes)), ", "))
	add("", "Stop signal", c.StopSignal)
	add("", "Shell", words(c.Shell))
	add("", "On build", strings.Join(c.OnBuild, "; "))
	if c.Healthcheck != nil {
		add("", "Health check", words(c.Healthcheck.Test))
	}
	for _, env := range c.Env {
		name, value, _ := strings.Cut(env, "=")
		list = append(list, setting{"Environment", name, value})
	}
	for _, name := range slices.Sorted(maps.Keys(c.Labels)) {
		list = append(list, setting{"Labels", name, c.Labels[name]})
	}
	return list
}

// words writes an argument list so that its items can be told apart.
func words(args []string) string {
	quoted := make([]string, len(args))
	for i, arg := range args {
		quoted[i] = arg
		if arg == "" || strings.ContainsAny(arg, " \t\n\"'\\$") {
			quoted[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}

// rollback lets a tag name again what its log has, and shows the tag.
func (v *visit) rollback() error {
	const largestForm = 4 << 10 // bytes
	v.Body = http.MaxBytesReader(v.w, v.Body, largestForm)
	if err := v.ParseForm(); err != nil {
		return errdefs.Invalid("read form: %w", err)
	}
	tag := v.PostForm.Get("tag")
	d, err := oci.ParseDigest(v.PostForm.Get("digest"))
	if err != nil || ref.CheckTag(tag) != nil {
		return errdefs.Invalid("a rollback wants a tag and a digest of its log")
	}
	if !v.visitor.May(v.repo, "push") {
		if v.visitor.User == "" && !v.visitor.Open {
			return errdefs.Unauthorized("log in to roll back")
		}
		return errdefs.Forbidden("you may not move tags of %s", v.repo)
	}
	if err := v.p.registry.Rollback(v.Request, v.visitor.User, v.repo, tag, d); err != nil {
		if errors.Is(err, errdefs.ErrNotFound) {
			return errdefs.NotFound("the tag %s cannot be rolled back to %s: the registry no longer has it", tag, d)
		}
		return err
	}
	v.redirect(v.query("tag/"+tag, "done", string(d)))
	return nil
}
