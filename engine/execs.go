package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"
	"time"

	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/engine/container"
	"davit/engine/passwd"
	"davit/oci/errdefs"
	"davit/task"
)

// Execs runs more processes in running containers. An exec is known until a while after its end, so
// that its exit code can be asked for.
type Execs struct {
	*shared
	mu   sync.Mutex
	byID map[string]*execution
}

// keepExecs is how long an exec's exit code can be asked for.
const keepExecs = 5 * time.Minute

// execution is one exec.
type execution struct {
	id      string
	actor   *actor
	request wire.ExecCreateRequest
	done    chan struct{} // closed when the process is gone

	mu      sync.Mutex
	started bool
	pid     int
	code    *int // nil while it has none
}

// Create prepares an exec.
func (x *Execs) Create(ctx context.Context, name string, q wire.ExecCreateRequest) (string, error) {
	a, err := x.roster.find(name)
	if err != nil {
		return "", err
	}
	if err := execable(a.record()); err != nil {
		return "", err
	}
	if len(q.Cmd) == 0 {
		return "", errdefs.Invalid("No exec command specified")
	}
	e := x.register(a, q)
	x.tellExec(e, "exec_create")
	return e.id, nil
}

func execable(r *container.Record) error {
	switch r.State.Status {
	case container.Running:
		return nil
	case container.Paused:
		return errdefs.Conflict("container %s is paused, unpause the container before exec", r.ID)
	case container.Restarting:
		return errdefs.Conflict("Container %s is restarting, wait until the container is running", r.ID)
	}
	return errdefs.Conflict("container %s is not running", r.ID)
}

func (x *Execs) register(a *actor, q wire.ExecCreateRequest) *execution {
	e := &execution{id: newID(), actor: a, request: q, done: make(chan struct{})}
	x.mu.Lock()
	x.byID[e.id] = e
	x.mu.Unlock()
	a.mu.Lock()
	a.execs[e.id] = e
	a.mu.Unlock()
	return e
}

func (x *Execs) find(id string) (*execution, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e, ok := x.byID[id]
	if !ok {
		return nil, errdefs.NotFound("No such exec instance: %s", id)
	}
	return e, nil
}

// forget drops an exec.
func (x *Execs) forget(e *execution) {
	x.mu.Lock()
	delete(x.byID, e.id)
	x.mu.Unlock()
	e.actor.mu.Lock()
	delete(e.actor.execs, e.id)
	e.actor.mu.Unlock()
}

// StartOptions say how to start an exec.
type StartOptions struct {
	Detach bool
	Rows   uint
	Cols   uint
}

// Start runs a prepared exec. Unless it is detached, the stream of its output is returned, which the
// caller closes.
func (x *Execs) Start(ctx context.Context, id string, o StartOptions) (stream, error) {
	e, err := x.find(id)
	if err != nil {
		return nil, err
	}
	if err := e.begin(); err != nil {
		return nil, err
	}
	x.tellExec(e, "exec_start")
	conn, err := x.run(context.WithoutCancel(ctx), e, o)
	if err != nil {
		e.ended(execExitCode(err))
		x.later(e)
		return nil, execError(err)
	}
	return conn, nil
}

// tellExec publishes an event that names the command.
func (x *Execs) tellExec(e *execution, action string) {
	x.tell(e.actor.record(), events.Action(action+": "+strings.Join(e.request.Cmd, " ")), map[string]string{"execID": e.id})
}

// execExitCode is the exit code of an exec that could not be started: there is a container to run it in, so
// it is never that of one which has none.
func execExitCode(err error) int {
	if code := exitCodeOf(err); code != notStarted {
		return code
	}
	return cannotExecute
}

// execError gives the reason why a program could not be executed Docker's words and class.
func execError(err error) error {
	if exitCodeOf(err) == notStarted {
		return err
	}
	return errdefs.New(errdefs.ErrInvalid, "OCI runtime exec failed: exec failed: unable to start container process: %w: unknown", err)
}

// begin lets an exec be started once.
func (e *execution) begin() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.startable(); err != nil {
		return err
	}
	e.started = true
	return nil
}

// startable says why an exec cannot be started; the caller holds e.mu.
func (e *execution) startable() error {
	switch {
	case e.code != nil:
		return errdefs.Conflict("exec %s has already run", e.id)
	case e.started:
		return errdefs.Conflict("exec %s has already started", e.id)
	}
	return execable(e.actor.record())
}

func (x *Execs) run(ctx context.Context, e *execution, o StartOptions) (stream, error) {
	process, err := x.process(e)
	if err == nil {
		err = executable(process.Args)
	}
	if err != nil {
		return nil, err
	}
	client, err := x.link.get(ctx)
	if err != nil {
		return nil, err
	}
	q := e.request
	if q.ConsoleSize != nil && o.Rows == 0 {
		o.Rows, o.Cols = q.ConsoleSize[0], q.ConsoleSize[1]
	}
	r := task.ExecRequest{
		Task: e.actor.id, ExecID: e.id, Process: process, Detach: o.Detach,
		Stdio: task.Stdio{Stdin: q.AttachStdin && !o.Detach, StdinOnce: true, Terminal: q.Tty, Rows: uint16(o.Rows), Cols: uint16(o.Cols)},
	}
	var attach *task.AttachRequest
	if !o.Detach {
		attach = &task.AttachRequest{Task: e.actor.id, ExecID: e.id, Stdin: q.AttachStdin, Stdout: q.AttachStdout, Stderr: q.AttachStderr}
	}
	state, conn, err := client.Exec(ctx, r, attach)
	if err != nil {
		return nil, execFailure{err}
	}
	e.mu.Lock()
	e.pid = state.Pid
	e.mu.Unlock()
	return conn, nil
}

// process is an exec's process: the container's own with what the request changes.
func (x *Execs) process(e *execution) (*specs.Process, error) {
	r, q := e.actor.record(), e.request
	e.actor.mu.Lock()
	own := e.actor.process
	e.actor.mu.Unlock()
	if own == nil {
		// The engine was restarted since the container began.
		var err error
		if own, err = x.ownProcess(r); err != nil {
			return nil, err
		}
	}
	p := *own
	p.Args, p.Terminal, p.ConsoleSize = q.Cmd, q.Tty, nil
	p.Env = container.MergeEnv(p.Env, q.Env)
	if q.Tty {
		p.Env = container.MergeEnv([]string{"TERM=xterm"}, p.Env)
	}
	if q.WorkingDir != "" {
		p.Cwd = q.WorkingDir
	}
	if q.User != "" {
		user, err := x.lookup(r, q.User)
		if err != nil {
			return nil, err
		}
		p.User = specs.User{UID: user.UID, GID: user.GID, AdditionalGids: user.Groups}
		p.Env = container.MergeEnv(p.Env, []string{"HOME=" + user.Home})
	}
	p.Capabilities = container.ExecCapabilities(own.Capabilities, x.Facts.Capabilities, p.User.UID, q.Privileged)
	return &p, nil
}

func (s *shared) lookup(r *container.Record, user string) (container.User, error) {
	root, err := s.Snapshots.Rootfs(r.ID)
	if err != nil {
		return container.User{}, err
	}
	return passwd.Lookup(root, user, r.HostConfig.GroupAdd)
}

// ownProcess builds a container's process anew from its record.
func (s *shared) ownProcess(r *container.Record) (*specs.Process, error) {
	user, err := s.lookup(r, r.Config.User)
	if err != nil {
		return nil, err
	}
	spec, err := container.BuildSpec(container.SpecInput{Record: r, User: user, Facts: s.Facts})
	if err != nil {
		return nil, err
	}
	return spec.Process, nil
}

// Done returns a channel that is closed when an exec's process is gone and its exit code known.
func (x *Execs) Done(id string) (<-chan struct{}, error) {
	e, err := x.find(id)
	if err != nil {
		return nil, err
	}
	return e.done, nil
}

// Detached tells of a client that left an exec with its detach keys.
func (x *Execs) Detached(id string) {
	if e, err := x.find(id); err == nil {
		x.tell(e.actor.record(), events.ActionExecDetach, map[string]string{"execID": id})
	}
}

// Request returns what an exec was created with, if it can be started now.
func (x *Execs) Request(id string) (wire.ExecCreateRequest, error) {
	e, err := x.find(id)
	if err != nil {
		return wire.ExecCreateRequest{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.request, e.startable()
}

// Inspect describes an exec.
func (x *Execs) Inspect(id string) (wire.ExecInspectResponse, error) {
	e, err := x.find(id)
	if err != nil {
		return wire.ExecInspectResponse{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	q := e.request
	r := wire.ExecInspectResponse{
		ID: e.id, ContainerID: e.actor.id, Running: e.started && e.code == nil, ExitCode: e.code, Pid: e.pid,
		OpenStdin: q.AttachStdin, OpenStdout: q.AttachStdout, OpenStderr: q.AttachStderr, CanRemove: e.code != nil,
		ProcessConfig: &wire.ExecProcessConfig{Tty: q.Tty, Entrypoint: q.Cmd[0], Arguments: q.Cmd[1:], Privileged: &q.Privileged, User: q.User},
		DetachKeys:    []byte(q.DetachKeys),
	}
	return r, nil
}

// Resize sets the size of an exec's terminal.
func (x *Execs) Resize(ctx context.Context, id string, rows, cols uint16) error {
	e, err := x.find(id)
	if err != nil {
		return err
	}
	e.mu.Lock()
	running := e.started && e.code == nil
	e.mu.Unlock()
	if !running {
		return errdefs.Conflict("exec process is not started")
	}
	client, err := x.link.get(ctx)
	if err != nil {
		return err
	}
	return client.Resize(ctx, e.actor.id, e.id, rows, cols)
}

// onExit records the end of an exec's process.
func (x *Execs) onExit(a *actor, s task.State) {
	a.mu.Lock()
	e := a.execs[s.ExecID]
	a.mu.Unlock()
	if e == nil {
		return
	}
	e.ended(s.ExitCode)
	x.tell(a.record(), events.ActionExecDie, map[string]string{"execID": e.id, "exitCode": fmt.Sprint(s.ExitCode)})
	x.later(e)
}

// ended sets the exit code, once.
func (e *execution) ended(code int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.code == nil {
		e.code, e.pid = &code, 0
		close(e.done)
	}
}

// later forgets an exec after a while.
func (x *Execs) later(e *execution) { time.AfterFunc(keepExecs, func() { x.forget(e) }) }

// end ends what runs of a container's execs: its processes died with it.
func (x *Execs) end(a *actor) {
	a.mu.Lock()
	all := a.execs
	a.execs = map[string]*execution{}
	a.mu.Unlock()
	for _, e := range all {
		e.ended(137)
		x.later(e)
	}
}

// maxCaptured is how many bytes of a health check's output are kept.
const maxCaptured = 4096

// capture runs a command in a container and returns its exit code and the beginning of its output. It
// is killed when ctx ends.
func (x *Execs) capture(ctx context.Context, a *actor, command []string) (code int, output string, err error) {
	e := x.register(a, wire.ExecCreateRequest{Cmd: command, AttachStdout: true, AttachStderr: true})
	defer x.forget(e)
	x.tellExec(e, "exec_create")
	e.started = true
	x.tellExec(e, "exec_start")
	conn, err := x.run(ctx, e, StartOptions{})
	if err != nil {
		return exitCodeOf(err), err.Error(), nil
	}
	stop := context.AfterFunc(ctx, func() {
		if client, err := x.link.find(context.WithoutCancel(ctx)); err == nil {
			_ = client.Kill(context.WithoutCancel(ctx), a.id, e.id, syscall.SIGKILL, false) // gone already
		}
		conn.Close()
	})
	defer stop()
	var out bytes.Buffer
	err = Demultiplex(conn, &out, &out)
	conn.Close()
	if ctx.Err() != nil {
		return 0, clip(out.String()), ctx.Err()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, clip(out.String()), err
	}
	select {
	case <-e.done:
		return *e.code, clip(out.String()), nil
	case <-ctx.Done():
		return 0, clip(out.String()), ctx.Err()
	}
}

func clip(s string) string { return s[:min(len(s), maxCaptured)] }

// running returns the ids of a container's execs that run.
func (a *actor) running() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var ids []string
	for id, e := range a.execs {
		e.mu.Lock()
		if e.started && e.code == nil {
			ids = append(ids, id)
		}
		e.mu.Unlock()
	}
	return ids
}
