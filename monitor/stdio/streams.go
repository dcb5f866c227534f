// Package stdio owns the standard streams of processes: it copies their output to the log and to every
// attached client, and the clients' input to the process.
//
//	process --pipe or terminal--> pump --+--> log
//	                                     +--> client, client, ...   (Docker's frames, or raw)
//	process <--pipe or terminal-- feed <------ client, client, ...
//
// There is one pump goroutine for each output and one feed goroutine for each client. While nothing
// moves they hold no buffer. A client that does not read holds the pump, and in the end the process, as
// Docker's does, once its socket's buffer is full; one that is gone never does.
//
// An output pipe is given to a process for reading and writing, so that it stays open when the monitor
// dies: its successor finds it in /proc and loses nothing (Adopt). Pass does the same without dying.
package stdio

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"davit/kernel/sys"
	"davit/store/logs"
)

// Bounds on how long Finish waits for output of a process that is gone.
const (
	grace = 250 * time.Millisecond // without output, when another process holds the stream open
	limit = 10 * time.Second       // in all, when output goes on or a client does not read
)

// Config says what a process's streams are.
type Config struct {
	Stdin     bool
	StdinOnce bool
	Terminal  bool

	// Keep holds output pipes open across the monitor's death. Not for a process that may leave others
	// behind with its streams (an exec): they would block, once nobody reads, rather than get SIGPIPE.
	Keep bool

	UID, GID int          // owner of the pipes, so that a program may open /dev/stdout
	Log      *logs.Writer // nil: not kept; closed by Finish
	Buffers  *Buffers     // shared by the streams of all processes
}

// Ends are the process's ends of its streams; all nil with a terminal, stdin nil for no input. The
// caller closes them once the process has them.
type Ends struct{ Stdin, Stdout, Stderr *os.File }

// Close closes the ends.
func (e Ends) Close() {
	for _, f := range []*os.File{e.Stdin, e.Stdout, e.Stderr} {
		if f != nil {
			f.Close()
		}
	}
}

// Streams are one process's standard streams.
type Streams struct {
	config Config

	mu       sync.Mutex
	stdin    *os.File // near end of the pipe, or the terminal; nil: closed or never there
	outputs  []*output
	clients  []*client // replaced, never changed in place
	size     size      // asked for before there was a terminal
	finished bool
	ready    chan struct{} // closed when the process's near ends are all there

	feeding   sync.Mutex // one client's input at a time
	paused    atomic.Bool
	finishing atomic.Int64 // when Finish gives up, in Unix nanoseconds; 0 before Finish
	pumps     sync.WaitGroup
	feeds     sync.WaitGroup
}

type size struct{ rows, cols uint16 }

// output is one stream of a process.
type output struct {
	stream logs.Stream
	file   *os.File
	ended  bool // by the process; guarded by Streams.mu
}

// Open makes the streams of a process to be. With a terminal they wait for SetTerminal.
func Open(c Config) (*Streams, Ends, error) {
	s := newStreams(c)
	if c.Terminal {
		return s, Ends{}, nil
	}
	ends, err := s.openPipes()
	if err != nil {
		ends.Close()
		s.closeFiles()
		return nil, Ends{}, err
	}
	close(s.ready)
	s.run()
	return s, ends, nil
}

func newStreams(c Config) *Streams {
	return &Streams{config: c, ready: make(chan struct{})}
}

func (s *Streams) openPipes() (e Ends, err error) {
	if s.config.Stdin {
		if s.stdin, e.Stdin, err = s.pipe(true, false); err != nil {
			return e, err
		}
	}
	if e.Stdout, err = s.openOutput(logs.Stdout); err != nil {
		return e, err
	}
	e.Stderr, err = s.openOutput(logs.Stderr)
	return e, err
}

func (s *Streams) openOutput(stream logs.Stream) (*os.File, error) {
	near, far, err := s.pipe(false, s.config.Keep)
	if err != nil {
		return nil, err
	}
	s.outputs = append(s.outputs, &output{stream: stream, file: near})
	return far, nil
}

// pipe makes one pipe, owned by the process's user. keep opens the far end for reading too.
func (s *Streams) pipe(nearWrites, keep bool) (near, far *os.File, err error) {
	near, far, err = sys.Pipe(nearWrites)
	if err != nil {
		return nil, nil, fmt.Errorf("make stream: %w", err)
	}
	if s.config.UID != 0 || s.config.GID != 0 {
		err = far.Chown(s.config.UID, s.config.GID)
	}
	if err == nil && keep {
		far, err = reopen(far)
	}
	if err != nil {
		near.Close()
		far.Close()
		return nil, nil, fmt.Errorf("make stream: %w", err)
	}
	return near, far, nil
}

// reopen opens the pipe of f for reading and writing in its place.
func reopen(f *os.File) (*os.File, error) {
	both, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_RDWR, 0)
	if err != nil {
		return f, err
	}
	f.Close()
	return both, nil
}

// SetTerminal gives the streams their terminal's master side, which they own from now on.
func (s *Streams) SetTerminal(master *os.File) error {
	defer master.Close()
	file, err := sys.Pollable(master)
	if err != nil {
		return fmt.Errorf("take terminal: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outputs = []*output{{stream: logs.Stdout, file: file}}
	s.stdin = file
	if s.size != (size{}) {
		sys.Resize(file, s.size.rows, s.size.cols)
	}
	close(s.ready)
	s.run()
	return nil
}

// Resize sets the terminal's size, now or as soon as there is one.
func (s *Streams) Resize(rows, cols uint16) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.config.Terminal || s.finished {
		return nil
	}
	s.size = size{rows, cols}
	if len(s.outputs) == 0 {
		return nil
	}
	return sys.Resize(s.outputs[0].file, rows, cols)
}

// CloseStdin ends the process's input. A terminal has no such end.
func (s *Streams) CloseStdin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stdin != nil && !s.config.Terminal {
		s.stdin.Close()
		s.stdin = nil
	}
}

// run starts the pumps of outputs that have not ended. s.mu is held, or s is not shared yet.
func (s *Streams) run() {
	for _, o := range s.outputs {
		if !o.ended {
			s.pumps.Add(1)
			go s.pump(o)
		}
	}
}

// Finish is called once the process is gone. It returns when all output is in the log and with the
// clients, whose streams it ends. Where another process still holds an output open, or a client does
// not read, it gives up after a while.
func (s *Streams) Finish() {
	s.finishing.Store(time.Now().Add(limit).UnixNano())
	s.mu.Lock()
	for _, o := range s.outputs {
		o.file.SetReadDeadline(time.Now().Add(grace))
	}
	for _, c := range s.clients {
		c.file.SetWriteDeadline(time.Now().Add(limit))
	}
	s.mu.Unlock()
	s.pumps.Wait()
	s.end()
}

// end closes everything.
func (s *Streams) end() {
	if log := s.config.Log; log != nil {
		log.Flush(logs.Stdout)
		log.Flush(logs.Stderr)
		log.Close()
	}
	s.mu.Lock()
	s.finished = true
	clients := s.clients
	s.clients = nil
	s.closeFiles()
	select {
	case <-s.ready:
	default:
		close(s.ready) // the terminal never came
	}
	s.mu.Unlock()
	for _, c := range clients {
		c.end()
	}
}

func (s *Streams) closeFiles() {
	for _, o := range s.outputs {
		o.file.Close()
	}
	if s.stdin != nil {
		s.stdin.Close()
		s.stdin = nil
	}
}

// Failures returns what the log could not take.
func (s *Streams) Failures() (lost int, last error) {
	if s.config.Log == nil {
		return 0, nil
	}
	return s.config.Log.Failures()
}
