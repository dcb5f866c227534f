package cli

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestDetachReader(t *testing.T) {
	keys, err := parseDetachKeys("ctrl-p,ctrl-q")
	if err != nil {
		t.Fatal(err)
	}
	for typed, want := range map[string]string{
		"abc":            "abc",
		"ab\x10\x11cd":   "ab|detached",
		"a\x10b\x11":     "a\x10b\x11",
		"\x10\x10\x11":   "\x10|detached",
		"\x10":           "",
		"x\x10\x10y\x11": "x\x10\x10y\x11",
	} {
		for name, r := range map[string]io.Reader{"at once": strings.NewReader(typed), "byte by byte": iotest.OneByteReader(strings.NewReader(typed))} {
			out, err := io.ReadAll(&detachReader{r: r, keys: keys})
			got := string(out)
			if errors.Is(err, errDetached) {
				got += "|detached"
			}
			if got != want {
				t.Errorf("%q %s: got %q, want %q", typed, name, got, want)
			}
		}
	}
	if _, err := parseDetachKeys("ctrl-"); err == nil {
		t.Error("a control key without a letter was taken")
	}
}

func TestDemultiplex(t *testing.T) {
	stream := "\x01\x00\x00\x00\x00\x00\x00\x03out" + "\x02\x00\x00\x00\x00\x00\x00\x03err" + "\x01\x00\x00\x00\x00\x00\x00\x01!"
	var out, errs bytes.Buffer
	if err := demultiplex(strings.NewReader(stream), &out, &errs, io.Discard); err != nil || out.String() != "out!" || errs.String() != "err" {
		t.Errorf("got %q, %q, %v", out.String(), errs.String(), err)
	}
	if err := demultiplex(strings.NewReader(stream[:len(stream)-1]), io.Discard, io.Discard, io.Discard); err == nil {
		t.Error("a frame that ends early was taken")
	}
}
