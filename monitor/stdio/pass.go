package stdio

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"davit/kernel/sys"
	"davit/store/logs"
)

// State is what a successor in the same process needs to go on with the streams: plain data, and the
// numbers of descriptors that stay open on exec. A number below 0 is none.
type State struct {
	Stdin    int                    `json:"stdin"`
	Outputs  []OutputState          `json:"outputs,omitempty"`
	Clients  []ClientState          `json:"clients,omitempty"`
	Held     map[logs.Stream][]byte `json:"held,omitempty"` // beginnings of log lines
	Rows     uint16                 `json:"rows,omitempty"`
	Cols     uint16                 `json:"cols,omitempty"`
	Finished bool                   `json:"finished,omitempty"`
}

// OutputState is one output of a process.
type OutputState struct {
	Stream logs.Stream `json:"stream"`
	FD     int         `json:"fd"`
	Ended  bool        `json:"ended,omitempty"`
}

// ClientState is one attached client.
type ClientState struct {
	Wants
	FD     int    `json:"fd"`
	Unsent []byte `json:"unsent,omitempty"`
	Unfed  []byte `json:"unfed,omitempty"`
	Ended  bool   `json:"ended,omitempty"`
}

// FDs returns the descriptors that the state names.
func (s *State) FDs() []int {
	fds := []int{s.Stdin}
	for _, o := range s.Outputs {
		fds = append(fds, o.FD)
	}
	for _, c := range s.Clients {
		fds = append(fds, c.FD)
	}
	return fds
}

// Pause stops all copying at a point from which it can go on, here (Continue) or in a successor (Pass).
// The caller sees to it that nothing else is called meanwhile.
func (s *Streams) Pause() {
	past := time.Unix(1, 0)
	s.paused.Store(true)
	s.mu.Lock()
	for _, o := range s.outputs {
		o.file.SetDeadline(past)
	}
	if s.stdin != nil {
		s.stdin.SetWriteDeadline(past)
	}
	for _, c := range s.clients {
		c.file.SetDeadline(past)
	}
	idle := s.finished || !s.isReady()
	s.mu.Unlock()
	if idle {
		return
	}
	s.pumps.Wait()
	s.feeds.Wait()
}

func (s *Streams) isReady() bool {
	select {
	case <-s.ready:
		return true
	default:
		return false
	}
}

// Continue undoes Pause.
func (s *Streams) Continue() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paused.Store(false)
	if s.finished || !s.isReady() {
		return
	}
	for _, o := range s.outputs {
		o.file.SetDeadline(time.Time{})
	}
	if s.stdin != nil {
		s.stdin.SetWriteDeadline(time.Time{})
	}
	for _, c := range s.clients {
		c.file.SetDeadline(time.Time{})
		s.feeds.Add(1)
		go s.feed(c)
	}
	s.run()
}

// Pass returns the state of paused streams and keeps their descriptors open on exec.
func (s *Streams) Pass() (State, error) {
	state := State{Stdin: -1, Rows: s.size.rows, Cols: s.size.cols, Finished: s.finished}
	if s.finished {
		return state, nil
	}
	var err error
	if s.stdin != nil && !s.config.Terminal {
		if state.Stdin, err = sys.KeepOnExec(s.stdin, true); err != nil {
			return state, fmt.Errorf("pass stdin: %w", err)
		}
	}
	for _, o := range s.outputs {
		fd, err := sys.KeepOnExec(o.file, true)
		if err != nil {
			return state, fmt.Errorf("pass %s: %w", o.stream, err)
		}
		state.Outputs = append(state.Outputs, OutputState{o.stream, fd, o.ended})
	}
	for _, c := range s.clients {
		fd, err := sys.KeepOnExec(c.file, true)
		if err != nil {
			return state, fmt.Errorf("pass client: %w", err)
		}
		state.Clients = append(state.Clients, ClientState{c.want, fd, c.unsent, c.unfed, c.ended})
	}
	if s.config.Log != nil {
		state.Held = s.config.Log.Held()
	}
	return state, nil
}

// Take goes on with the streams that Pass described, after exec.
func Take(c Config, state State) (*Streams, error) {
	s := newStreams(c)
	s.size = size{state.Rows, state.Cols}
	if s.finished = state.Finished; s.finished {
		close(s.ready)
		return s, nil
	}
	var err error
	for _, o := range state.Outputs {
		file, err := inherited(o.FD)
		if err != nil {
			return nil, err
		}
		s.outputs = append(s.outputs, &output{stream: o.Stream, file: file, ended: o.Ended})
	}
	if c.Terminal && len(s.outputs) > 0 {
		s.stdin = s.outputs[0].file
	} else if state.Stdin >= 0 {
		if s.stdin, err = inherited(state.Stdin); err != nil {
			return nil, err
		}
	}
	if c.Log != nil {
		c.Log.Restore(state.Held)
	}
	return s, s.takeClients(state)
}

func (s *Streams) takeClients(state State) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range state.Clients {
		file, err := inherited(c.FD)
		if err != nil {
			return err
		}
		s.add(&client{want: c.Wants, file: file, unsent: c.Unsent, unfed: c.Unfed, ended: c.Ended})
	}
	if !s.config.Terminal || len(s.outputs) > 0 {
		close(s.ready)
	}
	s.run()
	return nil
}

// inherited takes over a descriptor that was kept open on exec.
func inherited(fd int) (*os.File, error) {
	syscall.CloseOnExec(fd)
	if err := syscall.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("take descriptor %d: %w", fd, err)
	}
	return os.NewFile(uintptr(fd), "stream"), nil
}
