package wire

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"davit/oci/errdefs"
)

// pair returns two ends of one connection.
func pair(t *testing.T) (a, b *Conn) {
	t.Helper()
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialed, err := net.Dial("unixpacket", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	a, b = NewConn(dialed.(*net.UnixConn)), NewConn(accepted)
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// Messages of any length arrive whole, however many are sent at once.
func TestMessagesAreNotMixed(t *testing.T) {
	a, b := pair(t)
	sizes := []int{0, 1, MaxPart - 1, MaxPart, MaxPart + 1, 5*MaxPart + 3}
	var wg sync.WaitGroup
	for i, size := range sizes {
		wg.Go(func() {
			body := []byte(strings.Repeat(string(rune('a'+i)), size))
			if err := a.Send(Message{ID: uint64(i), Op: OpState, Body: body}); err != nil {
				t.Error(err)
			}
		})
	}
	for range sizes {
		m, err := b.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if want := strings.Repeat(string(rune('a'+m.ID)), sizes[m.ID]); string(m.Body) != want || m.Op != OpState {
			t.Errorf("message %d has %d bytes, want %d", m.ID, len(m.Body), len(want))
		}
	}
	wg.Wait()
	a.Close()
	if _, err := b.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
}

func TestFilesTravelWithTheirMessage(t *testing.T) {
	a, b := pair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := a.Send(Message{ID: 1, Body: make([]byte, 2*MaxPart), Files: []*os.File{w}}); err != nil {
		t.Fatal(err)
	}
	w.Close()
	m, err := b.Receive()
	if err != nil || len(m.Files) != 1 {
		t.Fatalf("%d files, %v", len(m.Files), err)
	}
	fmt.Fprint(m.Files[0], "through")
	m.Close()
	if got, err := io.ReadAll(r); err != nil || string(got) != "through" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestErrorsKeepWhatCallersDecideBy(t *testing.T) {
	for _, class := range classes() {
		sent := errdefs.New(class, "start task x: %w", &os.PathError{Op: "exec", Path: "/x", Err: syscall.EACCES})
		got := DecodeError(&Message{Body: EncodeError(sent)})
		if !errors.Is(got, class) || !errors.Is(got, syscall.EACCES) || got.Error() != sent.Error() {
			t.Errorf("%v became %v", sent, got)
		}
	}
	if got := DecodeError(&Message{Body: EncodeError(errors.New("plain"))}); errors.Is(got, errdefs.ErrInvalid) || got.Error() != "plain" {
		t.Errorf("plain became %v", got)
	}
}
