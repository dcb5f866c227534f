package progress

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"davit/oci/errdefs"
)

const pull = `{"status":"Pulling from library/busybox","id":"latest"}
{"status":"Pulling fs layer","progressDetail":{},"id":"aaa"}
{"status":"Pulling fs layer","progressDetail":{},"id":"bbb"}
{"status":"Downloading","progressDetail":{"current":1000000,"total":2000000},"progress":"[=>]","id":"aaa"}
{"status":"Pull complete","progressDetail":{},"id":"aaa"}
{"status":"Digest: sha256:1"}
`

func show(t *testing.T, d *Display, stream string) (string, error) {
	t.Helper()
	var b bytes.Buffer
	d.Out = &b
	err := d.Show(strings.NewReader(stream))
	return b.String(), err
}

func TestPlain(t *testing.T) {
	got, err := show(t, &Display{}, pull)
	want := "latest: Pulling from library/busybox\naaa: Pulling fs layer\nbbb: Pulling fs layer\naaa: Pull complete\nDigest: sha256:1\n"
	if err != nil || got != want {
		t.Errorf("%v\n%s\nwant\n%s", err, got, want)
	}
}

// screen plays what was written on a terminal and returns its lines.
func screen(t *testing.T, text string) []string {
	t.Helper()
	lines, row, column := []string{""}, 0, 0
	for text != "" {
		var n int
		switch {
		case strings.HasPrefix(text, "\x1b["):
			end := strings.IndexAny(text, "AKB")
			if end < 0 {
				t.Fatalf("unknown escape %q", text)
			}
			for _, c := range text[2:end] {
				n = 10*n + int(c-'0')
			}
			switch text[end] {
			case 'A':
				row -= n
			case 'B':
				row = min(row+n, len(lines)-1)
			case 'K':
				lines[row] = ""
			}
			text = text[end+1:]
			continue
		case text[0] == '\n':
			if row++; row == len(lines) {
				lines = append(lines, "")
			}
		case text[0] == '\r':
			column = 0
		default:
			lines[row] = lines[row][:min(column, len(lines[row]))] + text[:1]
			column++
		}
		text = text[1:]
	}
	return lines
}

func TestTerminal(t *testing.T) {
	got, err := show(t, &Display{Terminal: true, Width: 80}, pull)
	if err != nil {
		t.Fatal(err)
	}
	want := "latest: Pulling from library/busybox|aaa: Pull complete|bbb: Pulling fs layer|Digest: sha256:1|"
	if lines := strings.Join(screen(t, got), "|"); lines != want {
		t.Errorf("%s\nwant\n%s", lines, want)
	}
	if !strings.Contains(got, "aaa: Downloading      1MB/2MB") {
		t.Errorf("no counts in %q", got)
	}
	wide, err := show(t, &Display{Terminal: true, Width: 200}, pull)
	if err != nil || !strings.Contains(wide, "["+strings.Repeat("=", 25)+">"+strings.Repeat(" ", 25)+"]") {
		t.Errorf("no bar: %v %q", err, wide)
	}
}

func TestBuildStream(t *testing.T) {
	var aux string
	d := &Display{Aux: func(m json.RawMessage) { aux = string(m) }}
	got, err := show(t, d, `{"stream":"Step 1/2 : FROM x"}{"stream":"\n"}{"aux":{"ID":"sha256:1"}}`)
	if err != nil || got != "Step 1/2 : FROM x\n" || aux != `{"ID":"sha256:1"}` {
		t.Errorf("%v %q %q", err, got, aux)
	}
}

func TestFailures(t *testing.T) {
	_, err := show(t, &Display{}, `{"errorDetail":{"code":7,"message":"no"},"error":"no"}`)
	var f *Failure
	if !errors.As(err, &f) || f.Code != 7 || f.Message != "no" {
		t.Errorf("%v", err)
	}
	if _, err = show(t, &Display{}, `{"error":"old"}`); err == nil || err.Error() != "old" {
		t.Errorf("%v", err)
	}
	if _, err = show(t, &Display{}, `{"errorDetail":{"code":401}}`); !errors.Is(err, errdefs.ErrUnauthorized) {
		t.Errorf("%v", err)
	}
	if _, err = show(t, &Display{}, `{"status":`); err == nil {
		t.Error("a stream that breaks off is no success")
	}
}

func TestTimeLeft(t *testing.T) {
	d := &Display{Terminal: true, Width: 80, now: func() time.Time { return time.Unix(110, 0) }}
	got, err := show(t, d, `{"id":"a","status":"s","progressDetail":{"current":10,"total":30,"start":100}}`)
	if err != nil || !strings.Contains(got, "20s") {
		t.Errorf("%v %q", err, got)
	}
}
