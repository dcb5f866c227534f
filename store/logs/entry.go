// Package logs keeps the output of containers in Docker's json-file form: one JSON object a line,
//
//	{"log":"listening on :8080\n","stream":"stdout","time":"2026-01-02T15:04:05.123456789Z"}
//
// in a directory per container:
//
//	<dir>/json.log      the current file, only ever appended to or cut to nothing
//	<dir>/json.log.1    the one before it
//	<dir>/json.log.2    ...
//
// One Writer appends, any number of readers in any process follow. Readers and Clear need no lock: the
// writer appends whole lines with O_APPEND, and a reader recognises rotation by the file's identity and
// truncation by its size.
package logs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"
)

// Stream is where a piece of output came from.
type Stream string

// The two streams. A terminal's output is stdout.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
)

// Entry is one logged piece of output: a line, or a part of one longer than MaxLine.
type Entry struct {
	Line   []byte // ends in a newline when it is, or completes, a line
	Stream Stream
	Time   time.Time
	Attrs  map[string]string // what WriterOptions.Attrs said; nil when Options.Details is off
}

// record is an entry as encoding/json sees it.
type record struct {
	Log    string            `json:"log"`
	Stream Stream            `json:"stream"`
	Attrs  map[string]string `json:"attrs,omitempty"`
	Time   time.Time         `json:"time"`
}

// appendRecord appends the JSON line of one entry to b. attrs is a JSON object, or empty.
func appendRecord(b, line []byte, stream Stream, attrs string, at []byte) []byte {
	b = append(b, `{"log":"`...)
	b = appendEscaped(b, line)
	b = append(b, `","stream":"`...)
	b = append(b, stream...)
	if attrs != "" {
		b = append(b, `","attrs":`...)
		b = append(b, attrs...)
		b = append(b, `,"time":"`...)
	} else {
		b = append(b, `","time":"`...)
	}
	b = append(b, at...)
	return append(b, '"', '}', '\n')
}

const hexDigits = "0123456789abcdef"

// appendEscaped appends s as the inside of a JSON string. Bytes that are not UTF-8 become U+FFFD, as
// in Docker's logs.
func appendEscaped(b, s []byte) []byte {
	plain := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		size := 1
		if c >= utf8.RuneSelf {
			var r rune
			if r, size = utf8.DecodeRune(s[i:]); r != utf8.RuneError || size > 1 {
				i += size
				continue
			}
		}
		b = append(b, s[plain:i]...)
		b = appendEscape(b, c)
		i += size
		plain = i
	}
	return append(b, s[plain:]...)
}

func appendEscape(b []byte, c byte) []byte {
	switch {
	case c == '\n':
		return append(b, '\\', 'n')
	case c == '\r':
		return append(b, '\\', 'r')
	case c == '\t':
		return append(b, '\\', 't')
	case c == '"' || c == '\\':
		return append(b, '\\', c)
	case c >= utf8.RuneSelf:
		return append(b, `\ufffd`...)
	default:
		return append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
	}
}

// parse reads one line of a log file. What this package writes is read without encoding/json, what
// other programs write with it.
func parse(line []byte) (Entry, error) {
	if e, ok := parseOwn(line); ok {
		return e, nil
	}
	var r record
	if err := json.Unmarshal(line, &r); err != nil {
		return Entry{}, fmt.Errorf("parse log line: %w", err)
	}
	return Entry{Line: []byte(r.Log), Stream: r.Stream, Time: r.Time, Attrs: r.Attrs}, nil
}

func parseOwn(line []byte) (e Entry, ok bool) {
	rest, ok := bytes.CutPrefix(line, []byte(`{"log":"`))
	if !ok {
		return e, false
	}
	if e.Line, rest, ok = unescape(rest); !ok {
		return e, false
	}
	if rest, ok = bytes.CutPrefix(rest, []byte(`,"stream":"std`)); !ok || len(rest) < 3 {
		return e, false
	}
	if e.Stream = Stdout; rest[0] == 'e' {
		e.Stream = Stderr
	}
	rest, ok = bytes.CutPrefix(rest[3:], []byte(`","time":"`))
	if !ok {
		return e, false
	}
	at, rest, ok := bytes.Cut(rest, []byte(`"}`))
	if !ok || len(bytes.TrimSpace(rest)) > 0 {
		return e, false
	}
	t, err := time.Parse(time.RFC3339Nano, string(at))
	e.Time = t
	return e, err == nil
}

// unescape reads the inside of a JSON string up to its closing quote, and returns what follows that.
func unescape(s []byte) (text, rest []byte, ok bool) {
	if end := bytes.IndexAny(s, `"\`); end >= 0 && s[end] == '"' {
		return bytes.Clone(s[:end]), s[end+1:], true
	}
	text = make([]byte, 0, len(s))
	for len(s) > 0 {
		switch c := s[0]; {
		case c == '"':
			return text, s[1:], true
		case c != '\\':
			text, s = append(text, c), s[1:]
		case len(s) < 2:
			return nil, nil, false
		default:
			if text, s, ok = unescapeOne(text, s); !ok {
				return nil, nil, false
			}
		}
	}
	return nil, nil, false
}

// unescapeOne reads the escape sequence at the start of s. Surrogate pairs, which davit never writes,
// are left to encoding/json.
func unescapeOne(text, s []byte) (_, rest []byte, ok bool) {
	if s[1] != 'u' {
		const letters, values = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
		i := bytes.IndexByte([]byte(letters), s[1])
		if i < 0 {
			return nil, nil, false
		}
		return append(text, values[i]), s[2:], true
	}
	if len(s) < 6 {
		return nil, nil, false
	}
	r, err := strconv.ParseUint(string(s[2:6]), 16, 16)
	if err != nil || r >= 0xd800 && r < 0xe000 {
		return nil, nil, false
	}
	return utf8.AppendRune(text, rune(r)), s[6:], true
}
