package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/jsonstream"

	"davit/api/client"
)

// progress shows the messages of a pull, push, load or build. On a terminal each id has one line that is
// rewritten; elsewhere each message is a line and counters are left out.
type progress struct {
	out      io.Writer
	terminal bool
	width    int // columns
	lines    map[string]int
	aux      func(raw []byte) error // takes what is meant for the program; may be nil
}

func newProgress(out io.Writer) *progress {
	return &progress{out: out, terminal: isTerminal(out), width: terminalWidth(out), lines: map[string]int{}}
}

// follow shows a stream to its end and returns the error that the engine reported in it.
func (p *progress) follow(body io.Reader) error {
	return client.Messages(body, p.show)
}

func (p *progress) show(m jsonstream.Message) error {
	switch {
	case m.Error != nil:
		return errors.New(m.Error.Message)
	case m.Aux != nil:
		if p.aux == nil {
			return nil
		}
		return p.aux(*m.Aux)
	case m.Stream != "":
		p.lines = map[string]int{} // lines above the text are out of reach
		_, err := io.WriteString(p.out, m.Stream)
		return err
	}
	counter := m.Progress != nil && (m.Progress.Current > 0 || m.Progress.Total > 0)
	text := m.Status
	if m.ID != "" {
		text = m.ID + ": " + text
	}
	if !p.terminal {
		if counter {
			return nil
		}
		_, err := fmt.Fprintln(p.out, text)
		return err
	}
	if counter {
		text += " " + bar(*m.Progress, p.width)
	}
	return p.line(m.ID, text)
}

// line writes or rewrites the line of an id; without one it is a new line.
func (p *progress) line(id, text string) error {
	row, known := p.lines[id]
	if id == "" || !known {
		if id == "" {
			p.lines = map[string]int{}
		} else {
			p.lines[id] = len(p.lines)
		}
		_, err := fmt.Fprintf(p.out, "\x1b[2K\r%s\n", text)
		return err
	}
	up := len(p.lines) - row
	_, err := fmt.Fprintf(p.out, "\x1b[%dA\x1b[2K\r%s\r\x1b[%dB", up, text, up)
	return err
}

// bar draws "[====>    ]  1.2MB/3.4MB", or less of it on a narrow terminal.
func bar(p jsonstream.Progress, width int) string {
	const cells, narrow = 50, 110
	amount := func(n int64) string {
		if p.Units == "" {
			return units.HumanSize(float64(n))
		}
		return fmt.Sprintf("%d %s", n, p.Units)
	}
	if p.Total <= 0 {
		return fmt.Sprintf("%8s", amount(p.Current))
	}
	var b strings.Builder
	if width >= narrow {
		done := int(min(p.Current*cells/p.Total, cells))
		head := ">"
		if done == cells {
			head = ""
		}
		fmt.Fprintf(&b, "[%s%s%s] ", strings.Repeat("=", done), head, strings.Repeat(" ", max(cells-done-len(head), 0)))
	}
	if !p.HideCounts {
		current := amount(p.Current)
		if p.Current > p.Total {
			fmt.Fprintf(&b, "%8s", current)
		} else {
			fmt.Fprintf(&b, "%8s/%s", current, amount(p.Total))
		}
	}
	return b.String()
}
