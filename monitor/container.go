package monitor

import (
	"fmt"
	"os"
	"slices"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/monitor/relay"
	"davit/monitor/stdio"
	"davit/oci/errdefs"
	"davit/ociruntime"
	"davit/store/logs"
	"davit/task"
	"davit/task/wire"
)

// container is a task in the monitor's hands.
type container struct {
	id      string
	stdio   task.Stdio
	log     task.LogConfig
	limited bool // has a memory limit, so that an OOM kill is to be watched for
	shared  bool // its pid namespace is not its own, so that processes may outlive its first one

	runtime *ociruntime.Container
	streams *stdio.Streams
	inodes  stdio.Inodes

	ready    chan struct{} // closed when the first process is parked, or has failed
	readyErr error

	turn sync.Mutex // held by whoever changes its status, for as long as that takes

	mu    sync.Mutex
	state task.State
	execs map[string]*execution
	oom   oomWatch

	relays map[relayKey]*relay.Relay
}

// execution is one more process in a task.
type execution struct {
	stdio   task.Stdio
	process *ociruntime.Process
	streams *stdio.Streams // nil: its output goes nowhere
	state   task.State
}

// current returns the state as clients see it.
func (c *container) current() task.State {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.state
	for id := range c.execs {
		s.Execs = append(s.Execs, id)
	}
	slices.Sort(s.Execs)
	if c.streams != nil {
		if lost, err := c.streams.Failures(); err != nil {
			s.LogErrors, s.LogError = lost, err.Error()
		}
	}
	return s
}

// change edits the state and returns the result.
func (c *container) change(edit func(*task.State)) task.State {
	c.mu.Lock()
	edit(&c.state)
	c.mu.Unlock()
	return c.current()
}

// streamsOf returns the streams of the first process, or of an exec.
func (c *container) streamsOf(execID string) (*stdio.Streams, error) {
	if execID == "" {
		return c.streams, nil
	}
	e, err := c.findExec(execID)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.streams == nil {
		return nil, errdefs.Conflict("exec %s is detached", execID)
	}
	return e.streams, nil
}

func (c *container) findExec(id string) (*execution, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.execs[id]; e != nil {
		return e, nil
	}
	return nil, errdefs.NotFound("no such exec: %s", id)
}

// find returns a task by its id.
func (m *Monitor) find(id string) (*container, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.tasks[id]; c != nil {
		return c, nil
	}
	return nil, errdefs.NotFound("no such task: %s", id)
}

// all returns the tasks, in no order.
func (m *Monitor) all() []*container {
	m.mu.Lock()
	defer m.mu.Unlock()
	tasks := make([]*container, 0, len(m.tasks))
	for _, c := range m.tasks {
		tasks = append(tasks, c)
	}
	return tasks
}

// claim reserves a task's id, once the remains of one before are cleaned up.
func (m *Monitor) claim(id string) error {
	for {
		m.mu.Lock()
		remains := m.deleting[id]
		if remains == nil {
			break
		}
		m.mu.Unlock()
		<-remains
	}
	defer m.mu.Unlock()
	_, taken := m.reserved[id]
	if taken || m.tasks[id] != nil {
		return errdefs.Conflict("task %s exists", id)
	}
	m.reserved[id] = struct{}{}
	return nil
}

// admitTask makes a task known in place of its reservation; nil gives that up.
func (m *Monitor) admitTask(id string, c *container) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.reserved, id)
	if c != nil {
		m.tasks[id] = c
	}
}

// streamConfig says what the streams of a process are. p is nil for one that runs already.
func (m *Monitor) streamConfig(s task.Stdio, spec *specs.Spec, p *specs.Process, log *logs.Writer) stdio.Config {
	c := stdio.Config{
		Stdin: s.Stdin, StdinOnce: s.StdinOnce, Terminal: s.Terminal,
		Log: log, Buffers: &m.streamBuffers,
	}
	if p != nil && spec != nil && spec.Linux != nil {
		c.UID = hostID(p.User.UID, spec.Linux.UIDMappings)
		c.GID = hostID(p.User.GID, spec.Linux.GIDMappings)
	} else if p != nil {
		c.UID, c.GID = int(p.User.UID), int(p.User.GID)
	}
	return c
}

// hostID maps an id of the container to the host's.
func hostID(id uint32, mappings []specs.LinuxIDMapping) int {
	for _, m := range mappings {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return int(m.HostID + id - m.ContainerID)
		}
	}
	return int(id)
}

// openLog opens a task's log; nil when it keeps none.
func (m *Monitor) openLog(c task.LogConfig) (*logs.Writer, error) {
	if c.Path == "" {
		return nil, nil
	}
	return logs.NewWriter(logs.WriterOptions{
		Path: c.Path, MaxSize: c.MaxSize, MaxFiles: c.MaxFiles, Attrs: c.Attrs, Buffers: &m.logBuffers,
	})
}

func (m *Monitor) attach(r task.AttachRequest) (reply, error) {
	c, err := m.find(r.Task)
	if err != nil {
		return reply{}, err
	}
	streams, err := c.streamsOf(r.ExecID)
	if err != nil {
		return reply{}, err
	}
	file, err := streams.Attach(wantsOf(&r))
	if err != nil {
		return reply{}, fmt.Errorf("attach to task %s: %w", r.Task, err)
	}
	return reply{files: []*os.File{file}}, nil
}

func wantsOf(r *task.AttachRequest) stdio.Wants {
	return stdio.Wants{Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr}
}

func (m *Monitor) resize(r wire.Resize) error {
	c, err := m.find(r.ID)
	if err != nil {
		return err
	}
	streams, err := c.streamsOf(r.ExecID)
	if err != nil {
		return err
	}
	if err := streams.Resize(r.Rows, r.Cols); err != nil {
		return fmt.Errorf("resize terminal of task %s: %w", r.ID, err)
	}
	return nil
}

func (m *Monitor) closeStdin(t wire.Target) error {
	c, err := m.find(t.ID)
	if err != nil {
		return err
	}
	streams, err := c.streamsOf(t.ExecID)
	if err != nil {
		return err
	}
	streams.CloseStdin()
	return nil
}

func (m *Monitor) state(t wire.Target) (reply, error) {
	c, err := m.find(t.ID)
	if err != nil {
		return reply{}, err
	}
	if t.ExecID == "" {
		return reply{body: c.current()}, nil
	}
	e, err := c.findExec(t.ExecID)
	if err != nil {
		return reply{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return reply{body: e.state}, nil
}

func (m *Monitor) list() (reply, error) {
	states := []task.State{}
	for _, c := range m.all() {
		states = append(states, c.current())
	}
	return reply{body: states}, nil
}
