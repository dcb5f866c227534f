package client

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// TestBrokenBody posts what cannot be read to its end to an engine that waits for the end.
func TestBrokenBody(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "engine")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	received := make(chan string, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			received <- err.Error()
			return
		}
		defer conn.Close()
		all, _ := io.ReadAll(conn)
		received <- string(all)
	}()
	dialer, err := Host("unix://"+socket, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	broken := errors.New("broken disk")
	body := io.MultiReader(strings.NewReader("beginning"), iotest.ErrReader(broken))
	_, err = New(dialer).Do(ctx, Request{Method: "POST", Path: "/x", Body: body})
	if !errors.Is(err, broken) {
		t.Errorf("Do = %v, want the body's error", err)
	}
	if got := <-received; !strings.HasSuffix(got, "9\r\nbeginning\r\n") {
		t.Errorf("the engine received %q", got)
	}
}
