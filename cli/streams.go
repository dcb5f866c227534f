package cli

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/term"

	"davit/api/client"
)

// errDetached says that the user typed the detach keys: the container goes on without us.
var errDetached = errors.New("read escape sequence")

// session joins the terminal, or whatever stands for it, to a stream.
type session struct {
	stream *client.Stream
	in     io.Reader // nil: no input is sent
	out    io.Writer
	err    io.Writer
	tty    bool
	detach []byte // keys that end the session in a terminal
	ending ending // of the container, when the stream tells it: see exitStream
}

// exitStream is the number of the last frame of a run: how the container ended.
const exitStream = 3

// run copies until the output ends, or until the user detaches. Input does not keep it waiting.
func (s *session) run() error {
	if s.in != nil && s.tty {
		restore, err := rawTerminal()
		if err != nil {
			return err
		}
		defer restore()
	}
	if s.in == nil {
		return s.copyOutput()
	}
	output := make(chan error, 1)
	go func() { output <- s.copyOutput() }()
	input := make(chan error, 1)
	go func() { input <- s.copyInput() }()
	select {
	case err := <-output:
		return err
	case err := <-input:
		if errors.Is(err, errDetached) {
			return err
		}
		return <-output
	}
}

// copyInput sends input and its end.
func (s *session) copyInput() error {
	in := s.in
	if s.tty {
		in = &detachReader{r: s.in, keys: s.detach}
	}
	if _, err := io.Copy(s.stream.Conn, in); errors.Is(err, errDetached) {
		return err
	}
	return s.stream.CloseWrite()
}

func (s *session) copyOutput() error {
	if s.tty || !s.stream.Multiplexed {
		_, err := io.Copy(s.out, s.stream)
		return err
	}
	var end bytes.Buffer
	if err := demultiplex(s.stream, s.out, s.err, &end); err != nil {
		return err
	}
	s.ending = ending{err: errLost}
	if end.Len() == 0 {
		return nil
	}
	var w container.WaitResponse
	if err := json.Unmarshal(end.Bytes(), &w); err != nil {
		return fmt.Errorf("decode how the container ended: %w", err)
	}
	s.ending = endingOf(w)
	return nil
}

// demultiplex takes Docker's frames apart: stream number, three zeros, big-endian length, payload. What
// comes as exitStream goes to end.
func demultiplex(r io.Reader, out, errs, end io.Writer) error {
	var head [8]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("read output: %w", err)
		}
		w := out
		switch head[0] {
		case 2:
			w = errs
		case exitStream:
			w = end
		}
		if _, err := io.CopyN(w, r, int64(binary.BigEndian.Uint32(head[4:]))); err != nil {
			return fmt.Errorf("read output: %w", err)
		}
	}
}

// detachReader ends with errDetached after the keys; keys that turn out not to be the sequence are passed on.
type detachReader struct {
	r       io.Reader
	keys    []byte
	matched int
	ready   []byte // to be given out before more is read
	err     error
}

func (d *detachReader) Read(p []byte) (int, error) {
	for len(d.ready) == 0 {
		if d.err != nil {
			return 0, d.err
		}
		var n int
		n, d.err = d.r.Read(p)
		d.scan(p[:n])
	}
	n := copy(p, d.ready)
	d.ready = d.ready[n:]
	return n, nil
}

func (d *detachReader) scan(typed []byte) {
	for _, key := range typed {
		if len(d.keys) > 0 && key == d.keys[d.matched] {
			if d.matched++; d.matched == len(d.keys) {
				d.err = errDetached
				return
			}
			continue
		}
		d.ready = append(d.ready, d.keys[:d.matched]...)
		d.matched = 0
		if len(d.keys) > 0 && key == d.keys[0] {
			d.matched = 1
			continue
		}
		d.ready = append(d.ready, key)
	}
}

// parseDetachKeys reads "ctrl-p,ctrl-q": letters, or ctrl- with a letter or one of @ [ \ ] ^ _.
func parseDetachKeys(keys string) ([]byte, error) {
	if keys == "" {
		keys = "ctrl-p,ctrl-q"
	}
	var sequence []byte
	for key := range strings.SplitSeq(keys, ",") {
		letter, control := strings.CutPrefix(key, "ctrl-")
		if len(letter) != 1 {
			return nil, fmt.Errorf("invalid detach keys (%s) provided", keys)
		}
		b := letter[0]
		if control {
			if b >= 'a' && b <= 'z' {
				b -= 'a' - 'A'
			}
			if b < '@' || b > '_' {
				return nil, fmt.Errorf("invalid detach keys (%s) provided", keys)
			}
			b -= '@'
		}
		sequence = append(sequence, b)
	}
	return sequence, nil
}

// rawTerminal gives every key to the container until restore is called.
func rawTerminal() (restore func(), err error) {
	fd := int(os.Stdin.Fd())
	if !term.IsTerminal(fd) {
		return func() {}, nil
	}
	state, err := term.MakeRaw(fd)
	if err != nil {
		return nil, fmt.Errorf("prepare terminal: %w", err)
	}
	return func() { _ = term.Restore(fd, state) }, nil
}

// needTerminal refuses -t with an input that is none, as docker does.
func needTerminal(interactive, tty bool) error {
	if interactive && tty && !term.IsTerminal(int(os.Stdin.Fd())) {
		return errors.New("the input device is not a TTY")
	}
	return nil
}

// terminalSize returns rows and columns, zero when output is no terminal.
func terminalSize() (rows, cols uint) {
	width, height, err := term.GetSize(int(os.Stdout.Fd()))
	if err != nil {
		return 0, 0
	}
	return uint(height), uint(width)
}

// followSize tells the engine the terminal's size, now and whenever it changes, until stop is called.
func (a *app) followSize(ctx context.Context, path string) (stop func()) {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	ctx, cancel := context.WithCancel(ctx)
	changed <- syscall.SIGWINCH
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
			rows, cols := terminalSize()
			if rows == 0 || cols == 0 {
				continue
			}
			query := url.Values{"h": {strconv.Itoa(int(rows))}, "w": {strconv.Itoa(int(cols))}}
			_ = a.engine.Post(ctx, path+"/resize", query, nil, nil) // a program that has ended has no size
		}
	}()
	return func() { signal.Stop(changed); cancel() }
}

// catchSignals keeps the signals that this process gets for forward; nil when they are not to be caught.
// It does so while the engine is at work: for each signal the Go runtime wakes a thread and waits for it.
func catchSignals(on bool) chan os.Signal {
	if !on {
		return nil
	}
	signals := make(chan os.Signal, 16)
	go signal.Notify(signals, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGCONT, syscall.SIGALRM)
	return signals
}

// forward passes signals to the container, until stop is called. They stay caught: what comes after that
// is this process's end, and to give them up one by one takes as long as all the rest of it.
func (a *app) forward(ctx context.Context, id string, signals chan os.Signal) (stop func()) {
	if signals == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case s := <-signals:
				number := strconv.Itoa(int(s.(syscall.Signal)))
				_ = a.engine.Post(ctx, "/containers/"+id+"/kill", url.Values{"signal": {number}}, nil, nil) // it may have ended
			}
		}
	}()
	return cancel
}
