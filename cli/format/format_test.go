package format

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"davit/oci/errdefs"
)

type row struct {
	ID    string
	Names string
}

func (row) Label(name string) string { return "<" + name + ">" }

var headings = Headings{"ID": "IMAGE ID", "Names": "NAMES"}

func list(t *testing.T, spec string) string {
	t.Helper()
	var b bytes.Buffer
	if err := List(&b, spec, `{{.ID}}\t{{.Names}}`, headings, []row{{"1", "a&b"}, {"2", "a rather long name"}}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestList(t *testing.T) {
	for spec, want := range map[string]string{
		"":                             "IMAGE ID   NAMES\n1          a&b\n2          a rather long name\n",
		"table":                        "IMAGE ID   NAMES\n1          a&b\n2          a rather long name\n",
		"json":                         "{\"ID\":\"1\",\"Names\":\"a&b\"}\n{\"ID\":\"2\",\"Names\":\"a rather long name\"}\n",
		"{{.ID}}:{{upper .Names}}":     "1:A&B\n2:A RATHER LONG NAME\n",
		`{{.ID}}\t{{json .Names}}`:     "1\t\"a&b\"\n2\t\"a rather long name\"\n",
		`table {{.Label "com.x.a-b"}}`: "a b\n<com.x.a-b>\n<com.x.a-b>\n",
		`{{truncate .Names 2}}`:        "a&\na \n",
		`{{join (split .Names "a") "-"}}{{pad .ID 1 1}}.`: "-&b 1 .\n- r-ther long n-me 2 .\n",
	} {
		if got := list(t, spec); got != want {
			t.Errorf("%q:\n%s\nwant\n%s", spec, got, want)
		}
	}
}

func TestBadTemplates(t *testing.T) {
	for _, spec := range []string{"{{", "{{.Nothing}}", "{{nothing}}"} {
		err := List(&bytes.Buffer{}, spec, "", headings, []row{{}})
		if !errors.Is(err, errdefs.ErrInvalid) || !strings.HasPrefix(err.Error(), "template parsing error: template: ") {
			t.Errorf("%s: %v", spec, err)
		}
	}
}

func TestInspect(t *testing.T) {
	raw := json.RawMessage(`{"Id":"sha256:1","Config":{"Env":["A=<b>"],"N":12345678901234567890}}`)
	object := Object{Typed: struct{ ID string }{"sha256:1"}, Raw: raw}
	for spec, want := range map[string]string{
		"":                                       "[\n    {\n        \"Id\": \"sha256:1\",\n        \"Config\": {\n            \"Env\": [\n                \"A=<b>\"\n            ],\n            \"N\": 12345678901234567890\n        }\n    }\n]\n",
		"json":                                   `{"Id":"sha256:1","Config":{"Env":["A=<b>"],"N":12345678901234567890}}` + "\n",
		"{{.ID}}":                                "sha256:1\n",
		"{{.Id}}":                                "sha256:1\n",
		"{{json .Config.Env}}":                   `["A=<b>"]` + "\n",
		`{{join .Config.Env ","}} {{.Config.N}}`: "A=<b> 12345678901234567890\n",
	} {
		var b bytes.Buffer
		if err := Inspect(&b, spec, []Object{object}); err != nil || b.String() != want {
			t.Errorf("%q: %v\n%s\nwant\n%s", spec, err, b.String(), want)
		}
	}
	if err := Inspect(&bytes.Buffer{}, "{{.Nope}}", []Object{object}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("a missing field: %v", err)
	}
}
