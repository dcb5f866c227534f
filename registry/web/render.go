package web

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/docker/go-units"

	"davit/oci"
	"davit/oci/errdefs"
)

//go:embed pages/*.html
var pageFiles embed.FS

// The pages, each with the layout around it.
var (
	layout           = template.Must(template.New("layout").Funcs(functions).ParseFS(pageFiles, "pages/layout.html"))
	repositoriesPage = onLayout("repositories.html")
	tagsPage         = onLayout("tags.html")
	manifestPage     = onLayout("manifest.html")
	filesPage        = onLayout("files.html")
	diffPage         = onLayout("diff.html")
	waitPage         = onLayout("wait.html")
	errorPage        = onLayout("error.html")
	loginPage        = onLayout("login.html")
	accountPage      = onLayout("account.html")
)

func onLayout(name string) *template.Template {
	return template.Must(template.Must(layout.Clone()).ParseFS(pageFiles, "pages/"+name))
}

var functions = template.FuncMap{
	"size":         size,
	"ago":          func(t time.Time) string { return ago(t, time.Now()) },
	"stamp":        func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
	"machine":      func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"short":        func(d oci.Digest) string { return d.Short() },
	"repoLink":     repoLink,
	"tagLink":      tagLink,
	"manifestLink": func(repo string, d oci.Digest) string { return manifestLink(repo, string(d)) },
	"filesLink":    func(repo string, d oci.Digest) string { return filesLink(repo, string(d)) },
	"static":       func(name string) string { return "/static/" + name + "?" + assetVersion },
	"namespace":    func(name string) string { return name[:strings.LastIndexByte(name, '/')+1] },
	"base":         func(name string) string { return name[strings.LastIndexByte(name, '/')+1:] },
	"count":        count,
	"visible":      visible,
	"lines":        func(s string) string { return lines(cut(s)) },
	"cut":          cut,
	"add":          func(a, b int) int { return a + b },
	"negative":     func(n int64) int64 { return -n },
}

// size writes bytes for people, as docker does.
func size(n int64) string { return units.HumanSizeWithPrecision(float64(n), 3) }

// ago is how long before now a time was, in its largest unit.
func ago(t, now time.Time) string {
	d := now.Sub(t)
	for _, unit := range []struct {
		name string
		long time.Duration
	}{{"year", 365 * 24 * time.Hour}, {"month", 30 * 24 * time.Hour}, {"day", 24 * time.Hour}, {"hour", time.Hour}, {"minute", time.Minute}} {
		if n := int(d / unit.long); n > 0 {
			return count(n, unit.name) + " ago"
		}
	}
	return "just now"
}

// lines is visible for text of several lines.
func lines(s string) string {
	all := strings.Split(strings.ReplaceAll(s, "\r\n", "\n"), "\n")
	for i, line := range all {
		all[i] = visible(line)
	}
	return strings.Join(all, "\n")
}

// cut shortens text that no page has room for.
func cut(s string) string {
	const most = 4000 // bytes
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + fmt.Sprintf(" … (%d bytes in all)", len(s))
}

// sentence makes a message of the program a sentence.
func sentence(s string) string {
	if r, n := utf8.DecodeRuneInString(s); n > 0 {
		s = string(unicode.ToUpper(r)) + s[n:]
	}
	if !strings.HasSuffix(s, ".") {
		s += "."
	}
	return s
}

// visible writes what cannot be seen, and what turns the direction of writing, as escapes: a name must not look
// like another.
func visible(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unicode.IsPrint(r) || r == '\t':
			b.WriteRune(r)
		default:
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
		i += n
	}
	return b.String()
}

// count writes a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if stem, ok := strings.CutSuffix(noun, "ory"); ok {
		noun = stem + "orie"
	}
	return fmt.Sprintf("%s %ss", grouped(n), noun)
}

// grouped writes a number with spaces between thousands.
func grouped(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return s
}

// page is what the layout knows; Body is the page's own.
type page struct {
	Title   string
	Crumbs  []crumb
	Visitor Visitor
	Host    string
	Path    string // of this page, for coming back after logging in
	Body    any
}

// crumb is a step of the way to a page; the last has no link.
type crumb struct{ Text, Link string }

// show writes a page. It is made in memory first: what fails half-way must not look like an answer.
func (v *visit) show(status int, t *template.Template, title string, crumbs []crumb, body any) error {
	var out bytes.Buffer
	err := t.ExecuteTemplate(&out, "layout", page{title, crumbs, v.visitor, v.Host, v.URL.RequestURI(), body})
	if err != nil {
		return fmt.Errorf("write page %s: %w", title, err)
	}
	header := v.w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Length", fmt.Sprint(out.Len()))
	v.w.WriteHeader(status)
	if v.Method != http.MethodHead {
		_, _ = out.WriteTo(v.w) // the client is gone when this fails
	}
	return nil
}

// fail writes an error page. Who lacks credentials is asked for them.
func (v *visit) fail(err error) {
	status, message := statusOf(err), err.Error()
	if status == 0 {
		status, message = v.p.registry.Explain(v.Request, err)
	}
	if status == http.StatusUnauthorized {
		v.w.Header().Set("WWW-Authenticate", v.challenge())
	}
	body := map[string]any{"Status": status, "Text": http.StatusText(status), "Message": sentence(message), "Login": status == http.StatusUnauthorized, "Back": v.back()}
	crumbs := []crumb{{"Repositories", "/"}, {http.StatusText(status), ""}}
	if err := v.show(status, errorPage, http.StatusText(status), crumbs, body); err != nil {
		v.p.log.Error("an error page could not be written", "error", err)
	}
}

// statusOf is the status of an error of these pages' own, 0 of others.
func statusOf(err error) int {
	return errdefs.Find(err, []errdefs.Row[int]{
		{Class: errNotAllowed, Meaning: http.StatusMethodNotAllowed},
		{Class: errdefs.ErrUnauthorized, Meaning: http.StatusUnauthorized},
		{Class: errdefs.ErrInvalid, Meaning: http.StatusBadRequest},
		{Class: errdefs.ErrExhausted, Meaning: http.StatusUnprocessableEntity},
		{Class: errdefs.ErrUnavailable, Meaning: http.StatusServiceUnavailable},
		{Class: errdefs.ErrNotFound, Meaning: http.StatusNotFound},
		{Class: errdefs.ErrForbidden, Meaning: http.StatusForbidden},
		{Class: errdefs.ErrConflict, Meaning: http.StatusConflict},
	}, 0)
}

func (v *visit) redirect(to string) {
	v.w.Header().Set("Location", to)
	v.w.WriteHeader(http.StatusSeeOther)
}
