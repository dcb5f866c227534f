package stdio

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"davit/oci/errdefs"
	"davit/store/logs"
)

// program runs a shell command with streams.
type program struct {
	*Streams
	t   *testing.T
	cmd *exec.Cmd
	log string
}

func prepare(t *testing.T, c Config, script string) (*program, Ends) {
	t.Helper()
	p := &program{t: t, log: filepath.Join(t.TempDir(), "json.log")}
	var err error
	if c.Log, err = logs.NewWriter(logs.WriterOptions{Path: p.log}); err != nil {
		t.Fatal(err)
	}
	c.Buffers = new(Buffers)
	var ends Ends
	if p.Streams, ends, err = Open(c); err != nil {
		t.Fatal(err)
	}
	p.cmd = exec.Command("/bin/sh", "-c", script)
	if ends.Stdin != nil {
		p.cmd.Stdin = ends.Stdin
	}
	p.cmd.Stdout, p.cmd.Stderr = ends.Stdout, ends.Stderr
	return p, ends
}

func (p *program) start(ends Ends) {
	p.t.Helper()
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	ends.Close()
	p.t.Cleanup(func() { p.cmd.Process.Kill(); p.cmd.Wait() })
}

// finish waits for the program and for all its output.
func (p *program) finish() {
	p.t.Helper()
	p.cmd.Wait()
	p.Finish()
}

func (p *program) attach(w Wants) *net.UnixConn {
	p.t.Helper()
	file, err := p.Attach(w)
	if err != nil {
		p.t.Fatal(err)
	}
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { conn.Close() })
	return conn.(*net.UnixConn)
}

func (p *program) logged() string {
	p.t.Helper()
	var b strings.Builder
	for e, err := range logs.Read(context.Background(), p.log, logs.Options{Stdout: true, Stderr: true}) {
		if err != nil {
			p.t.Fatal(err)
		}
		b.Write(e.Line)
	}
	return b.String()
}

// frames reads a client's stream to its end and takes Docker's frames apart.
func frames(t *testing.T, r io.Reader) (stdout, stderr string) {
	t.Helper()
	for {
		var header [8]byte
		if _, err := io.ReadFull(r, header[:]); errors.Is(err, io.EOF) {
			return stdout, stderr
		} else if err != nil {
			t.Fatal(err)
		}
		payload := make([]byte, binary.BigEndian.Uint32(header[4:]))
		if _, err := io.ReadFull(r, payload); err != nil {
			t.Fatal(err)
		}
		switch header[0] {
		case 1:
			stdout += string(payload)
		case 2:
			stderr += string(payload)
		default:
			t.Fatalf("stream %d", header[0])
		}
	}
}

// expect reads one frame.
func expect(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, 8+len(want))
	if _, err := io.ReadFull(r, got); err != nil || string(got[8:]) != want {
		t.Fatalf("got %q, %v; want %q", got, err, want)
	}
}

func TestOutputReachesLogAndAllClients(t *testing.T) {
	p, ends := prepare(t, Config{}, "echo out; echo err >&2; printf tail")
	both, second, onlyErr := p.attach(Wants{Stdout: true, Stderr: true}), p.attach(Wants{Stdout: true, Stderr: true}), p.attach(Wants{Stderr: true})
	p.start(ends)
	p.finish()
	for _, c := range []*net.UnixConn{both, second} {
		if out, err := frames(t, c); out != "out\ntail" || err != "err\n" {
			t.Errorf("client got %q and %q", out, err)
		}
	}
	if out, err := frames(t, onlyErr); out != "" || err != "err\n" {
		t.Errorf("stderr client got %q and %q", out, err)
	}
	if got := p.logged(); strings.Count(got, "out\n") != 1 || strings.Count(got, "err\n") != 1 || !strings.HasSuffix(got, "tail") {
		t.Errorf("log is %q", got)
	}
	if _, err := p.Attach(Wants{}); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("attach afterwards: %v", err)
	}
}

func TestEndOfInput(t *testing.T) {
	p, ends := prepare(t, Config{Stdin: true, StdinOnce: true}, "cat; echo done")
	c := p.attach(Wants{Stdin: true, Stdout: true})
	fmt.Fprint(c, "before the start\n")
	p.start(ends)
	fmt.Fprint(c, "after it\n")
	c.CloseWrite()
	p.finish()
	if out, _ := frames(t, c); out != "before the start\nafter it\ndone\n" {
		t.Errorf("got %q", out)
	}
}

// A client that vanishes is no end of input, and neither is the end of one where stdin stays open.
func TestInputOutlivesClients(t *testing.T) {
	for _, once := range []bool{true, false} {
		p, ends := prepare(t, Config{Stdin: true, StdinOnce: once}, "cat")
		p.start(ends)
		gone := p.attach(Wants{Stdin: true, Stdout: true})
		fmt.Fprint(gone, "1\n")
		expect(t, gone, "1\n")
		if once {
			gone.Close()
		} else {
			gone.CloseWrite()
		}
		next := p.attach(Wants{Stdin: true, Stdout: true})
		fmt.Fprint(next, "2\n")
		expect(t, next, "2\n")
		p.CloseStdin()
		p.finish()
		if got := p.logged(); got != "1\n2\n" {
			t.Errorf("once %v: log is %q", once, got)
		}
	}
}

// A client that does not read holds up the program; once it is gone the program goes on, and the log
// has everything.
func TestSlowAndDeadClients(t *testing.T) {
	p, ends := prepare(t, Config{}, "head -c 3000000 /dev/zero | tr '\\0' x; echo end")
	slow := p.attach(Wants{Stdout: true})
	p.start(ends)
	exited := make(chan struct{})
	go func() { p.cmd.Wait(); close(exited) }()
	select {
	case <-exited:
		t.Fatal("3 MB went nowhere")
	case <-time.After(300 * time.Millisecond):
	}
	slow.Close()
	<-exited
	p.Finish()
	if got := p.logged(); len(got) != 3000004 {
		t.Errorf("log has %d bytes", len(got))
	}
}

// A process left behind with the streams does not hold up the end for long; what the program itself
// wrote is there.
func TestOthersHoldTheStream(t *testing.T) {
	p, ends := prepare(t, Config{}, "sleep 60 & echo $!; exit 3")
	p.start(ends)
	begin := time.Now()
	p.finish()
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	var pid int
	fmt.Sscan(p.logged(), &pid)
	if pid == 0 {
		t.Fatalf("log is %q", p.logged())
	}
	other, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	other.Kill()
}

// Pausing at any moment neither loses nor repeats a byte, of input, output or log.
func TestPauseInTheMiddle(t *testing.T) {
	p, ends := prepare(t, Config{Stdin: true, StdinOnce: true}, "cat")
	c := p.attach(Wants{Stdin: true, Stdout: true})
	p.start(ends)
	var want strings.Builder
	for i := range 100000 {
		fmt.Fprintf(&want, "line %d\n", i)
	}
	go func() {
		io.WriteString(c, want.String())
		c.CloseWrite()
	}()
	got := make(chan string)
	go func() {
		out, _ := frames(t, c)
		got <- out
	}()
	for range 50 {
		p.Pause()
		if _, err := p.Pass(); err != nil {
			t.Fatal(err)
		}
		p.Continue()
	}
	p.finish()
	if out := <-got; out != want.String() {
		t.Errorf("client got %d bytes, want %d", len(out), want.Len())
	}
	if p.logged() != want.String() {
		t.Errorf("log has %d bytes, want %d", len(p.logged()), want.Len())
	}
}

// The pipes of a program survive the death of who reads them, with what was in them.
func TestAdopt(t *testing.T) {
	p, ends := prepare(t, Config{Keep: true}, "echo 1; read x; echo 2; echo 3 >&2")
	input, release, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdin = input
	p.start(ends)
	input.Close()
	names := p.Inodes()
	p.Pause()
	for _, o := range p.outputs {
		o.file.Close() // as the kernel does when a monitor dies
	}
	p.config.Log.Close()

	log, err := logs.NewWriter(logs.WriterOptions{Path: p.log})
	if err != nil {
		t.Fatal(err)
	}
	adopted, err := Adopt(Config{Log: log, Buffers: new(Buffers)}, names, []int{p.cmd.Process.Pid})
	if err != nil {
		t.Fatal(err)
	}
	release.Close()
	p.cmd.Wait()
	adopted.Finish()
	if got := p.logged(); !strings.Contains(got, "2\n") || !strings.Contains(got, "3\n") {
		t.Errorf("log is %q", got)
	}
	if _, err := Adopt(Config{Buffers: new(Buffers)}, names, nil); !errors.Is(err, ErrLost) {
		t.Errorf("adopting nothing: %v", err)
	}
}
