// Package progress shows the engine's message streams (pull, push, load, import, build): on a terminal as
// lines that change in place, elsewhere as plain lines without the bars.
package progress

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	units "github.com/docker/go-units"
	"github.com/moby/moby/api/types/jsonstream"

	"davit/oci/errdefs"
)

// Message is one message of a stream. Engines before API 1.52 put the error's text into the field error as
// well.
type Message struct {
	jsonstream.Message
	ErrorText string `json:"error"`
}

// Failure is what a stream that began well reported at last.
type Failure struct {
	Code    int // an exit status, or an HTTP status; 0 is neither
	Message string
}

func (f *Failure) Error() string { return f.Message }

// Display shows messages. The zero Width is that of docker's on a pipe.
type Display struct {
	Out      io.Writer
	Terminal bool
	Width    int                   // columns of the terminal
	Aux      func(json.RawMessage) // gets messages that are data, not text; may be nil

	lines map[string]int // where each id's line is, from the top
	now   func() time.Time
}

// Show reads the stream until it ends, or until it reports a failure (a *Failure).
func (d *Display) Show(stream io.Reader) error {
	if d.now == nil {
		d.now = time.Now
	}
	d.lines = map[string]int{}
	decoder := json.NewDecoder(stream)
	for {
		var m Message
		if err := decoder.Decode(&m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read the engine's progress: %w", err)
		}
		if err := d.show(m); err != nil {
			return err
		}
	}
}

func (d *Display) show(m Message) error {
	switch {
	case m.Aux != nil:
		if d.Aux != nil {
			d.Aux(*m.Aux)
		}
		return nil
	case m.Error != nil:
		if m.Error.Code == 401 {
			return errdefs.Unauthorized("authentication is required")
		}
		return &Failure{m.Error.Code, m.Error.Message}
	case m.ErrorText != "":
		return &Failure{0, m.ErrorText}
	}
	if !d.Terminal {
		return d.plain(m)
	}
	if m.ID != "" && m.Progress != nil || m.Status != "" && m.ID != "" && d.known(m.ID) {
		return d.inPlace(m)
	}
	return d.write(text(m, "", "\r\n"))
}

// known reports whether an id has a line of its own.
func (d *Display) known(id string) bool { _, ok := d.lines[id]; return ok }

// inPlace rewrites the line of the message's id, or begins it below all others.
func (d *Display) inPlace(m Message) error {
	up := 0
	if line, ok := d.lines[m.ID]; ok {
		up = len(d.lines) - line
	} else {
		d.lines[m.ID] = len(d.lines)
		if err := d.write("\n"); err != nil {
			return err
		}
		up = 1
	}
	const erase = "\x1b[2K\r"
	move := fmt.Sprintf("\x1b[%dA%s", up, erase)
	return d.write(move + text(m, d.bar(m.Progress), "") + fmt.Sprintf("\r\x1b[%dB", up))
}

// plain shows a message where lines cannot change: those that only count are left out.
func (d *Display) plain(m Message) error {
	if m.Stream == "" && d.bar(m.Progress) != "" {
		return nil
	}
	return d.write(text(m, "", "\n"))
}

// text is a message in words. A stream's text brings its own line ends.
func text(m Message, bar, end string) string {
	if m.Stream != "" {
		return m.Stream
	}
	line := m.Status
	if m.ID != "" {
		line = m.ID + ": " + line
	}
	if bar != "" {
		line += " " + bar
	}
	return line + end
}

func (d *Display) write(s string) error {
	_, err := io.WriteString(d.Out, s)
	return err
}

// bar draws "[====>    ]  1.2MB/3MB 4s". Without a total it is the count alone.
func (d *Display) bar(p *jsonstream.Progress) string {
	if p == nil || p.Current <= 0 && p.Total <= 0 {
		return ""
	}
	count := func(n int64) string {
		if p.Units != "" {
			return fmt.Sprintf("%d", n)
		}
		return units.HumanSize(float64(n))
	}
	if p.Total <= 0 {
		return strings.TrimRight(fmt.Sprintf("%8v %s", count(p.Current), p.Units), " ")
	}
	const full, needed = 50, 110 // columns of the bar, and of a terminal that has room for it
	done := min(int(float64(p.Current)/float64(p.Total)*full), full)
	out := ""
	if d.Width > needed || d.Width == 0 {
		out = "[" + strings.Repeat("=", done) + ">" + strings.Repeat(" ", full-done) + "]  "
	}
	if !p.HideCounts {
		numbers := fmt.Sprintf("%8v/%v", count(p.Current), count(p.Total))
		if p.Current > p.Total {
			numbers = fmt.Sprintf("%8v", count(p.Current))
		}
		out += strings.TrimRight(numbers+" "+p.Units, " ")
	}
	return out + d.left(p)
}

// left estimates the time to go, where the engine says when it began.
func (d *Display) left(p *jsonstream.Progress) string {
	if p.Start <= 0 || p.Current <= 0 || p.Current >= p.Total {
		return ""
	}
	passed := d.now().Sub(time.Unix(p.Start, 0))
	rest := time.Duration(float64(passed) / float64(p.Current) * float64(p.Total-p.Current))
	return " " + rest.Round(time.Second).String()
}
