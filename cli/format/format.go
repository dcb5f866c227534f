// Package format prints lists and objects as --format asks: a table with chosen columns, JSON, or a Go
// template over each row, with the functions and headings that docker's have.
package format

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"text/template"

	"davit/oci/errdefs"
)

// Headings maps a row's field names to column headings.
type Headings map[string]string

// Label lets ".Label "name"" head a column with the label's name.
func (h Headings) Label(name string) string {
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		name = name[i+1:]
	}
	return strings.NewReplacer("-", " ", "_", " ").Replace(name)
}

// Functions are what templates may call beside text/template's own.
func Functions() template.FuncMap {
	return template.FuncMap{
		"json":  encode,
		"split": strings.Split,
		"join":  func(list any, separator string) string { return join(list, separator) },
		"title": title,
		"lower": strings.ToLower,
		"upper": strings.ToUpper,
		"pad": func(s string, before, after int) string {
			if s == "" {
				return s
			}
			return strings.Repeat(" ", before) + s + strings.Repeat(" ", after)
		},
		"truncate": func(s string, length int) string {
			if len(s) < length {
				return s
			}
			return s[:length]
		},
		"println": func(values ...any) string { return fmt.Sprintln(values...) },
	}
}

// encode is JSON as docker's templates write it: <, > and & stay as they are.
func encode(v any) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return "", err
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

func join(list any, separator string) string {
	switch l := list.(type) {
	case []string:
		return strings.Join(l, separator)
	case []any: // a list of an object that was decoded without its type
		parts := make([]string, len(l))
		for i, v := range l {
			parts[i] = fmt.Sprint(v)
		}
		return strings.Join(parts, separator)
	}
	return fmt.Sprint(list)
}

func title(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// parse compiles a template; \t and \n may be written out, as people type them in a shell.
func parse(text string) (*template.Template, error) {
	text = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(strings.Trim(text, " "))
	t, err := template.New("").Funcs(Functions()).Parse(text)
	if err != nil {
		return nil, errdefs.Invalid("template parsing error: %w", err)
	}
	return t, nil
}

const tablePrefix = "table"

// List prints rows, which are structs whose fields (and methods) templates name. spec is --format's
// value: empty for the table of columns that the command has by itself, "json", "table TEMPLATE" or
// TEMPLATE. In JSON a row is one line.
func List[T any](w io.Writer, spec, columns string, headings Headings, rows []T) error {
	switch spec = strings.Trim(spec, " "); {
	case spec == "" || spec == tablePrefix:
		spec = tablePrefix + " " + columns
	case spec == "json":
		return lines(w, rows)
	}
	text, isTable := strings.CutPrefix(spec, tablePrefix)
	t, err := parse(text)
	if err != nil {
		return err
	}
	if !isTable {
		return each(w, t, rows)
	}
	table := tabwriter.NewWriter(w, 10, 1, 3, ' ', 0)
	if err := execute(table, t, headings); err != nil {
		return err
	}
	if err := each(table, t, rows); err != nil {
		return err
	}
	return table.Flush()
}

// Quiet prints one value of each row.
func Quiet[T any](w io.Writer, rows []T, value func(T) string) error {
	for _, row := range rows {
		if _, err := fmt.Fprintln(w, value(row)); err != nil {
			return err
		}
	}
	return nil
}

func lines[T any](w io.Writer, rows []T) error {
	for _, row := range rows {
		text, err := encode(row)
		if err != nil {
			return fmt.Errorf("encode: %w", err)
		}
		if _, err := fmt.Fprintln(w, text); err != nil {
			return err
		}
	}
	return nil
}

func each[T any](w io.Writer, t *template.Template, rows []T) error {
	for _, row := range rows {
		if err := execute(w, t, row); err != nil {
			return err
		}
	}
	return nil
}

// execute writes one row and ends its line. Nothing of a row that fails is written.
func execute(w io.Writer, t *template.Template, row any) error {
	var b bytes.Buffer
	if err := t.Execute(&b, row); err != nil {
		return errdefs.Invalid("template parsing error: %w", err)
	}
	b.WriteByte('\n')
	_, err := w.Write(b.Bytes())
	return err
}

// Object is one thing to inspect: as its Go type, and as the engine sent it.
type Object struct {
	Typed any
	Raw   json.RawMessage
}

// Inspect prints objects: as an indented JSON list without spec, one JSON line each for "json", else by
// the template, which may name Go's fields (.ID) or JSON's (.Id).
func Inspect(w io.Writer, spec string, objects []Object) error {
	switch spec {
	case "":
		return indented(w, objects)
	case "json":
		for _, o := range objects {
			var b bytes.Buffer
			if err := json.Compact(&b, o.Raw); err != nil {
				return fmt.Errorf("read the engine's answer: %w", err)
			}
			if _, err := fmt.Fprintln(w, b.String()); err != nil {
				return err
			}
		}
		return nil
	}
	t, err := parse(spec)
	if err != nil {
		return err
	}
	for _, o := range objects {
		if err := inspect(w, t, o); err != nil {
			return err
		}
	}
	return nil
}

func indented(w io.Writer, objects []Object) error {
	raw := make([]json.RawMessage, len(objects))
	for i, o := range objects {
		raw[i] = o.Raw
	}
	list, err := encode(raw)
	if err != nil {
		return fmt.Errorf("read the engine's answer: %w", err)
	}
	var b bytes.Buffer
	if err := json.Indent(&b, []byte(list), "", "    "); err != nil {
		return fmt.Errorf("read the engine's answer: %w", err)
	}
	b.WriteByte('\n')
	_, err = w.Write(b.Bytes())
	return err
}

// inspect tries the typed object first, since only it has Go's names and methods.
func inspect(w io.Writer, t *template.Template, o Object) error {
	typedErr := fmt.Errorf("no typed object")
	if o.Typed != nil {
		if typedErr = execute(w, t, o.Typed); typedErr == nil {
			return nil
		}
	}
	decoder := json.NewDecoder(bytes.NewReader(o.Raw))
	decoder.UseNumber()
	var raw any
	if err := decoder.Decode(&raw); err != nil {
		return fmt.Errorf("read the engine's answer: %w", err)
	}
	if err := execute(w, t.Option("missingkey=error"), raw); err != nil {
		if o.Typed == nil {
			return err
		}
		return typedErr
	}
	return nil
}
