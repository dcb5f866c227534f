// Package stage carries a plan out: it clones davit-init, gives it the plan's program, and follows it
// until the user's program runs. Who says what, and when:
//
//	runtime                                        davit-init
//	-------                                        ----------
//	clone3 (new namespaces, cgroup) ------------>  waits for its id maps
//	uid_map, gid_map ---------------------------->  setresuid 0, execveat(init); Go starts
//	open net and user namespace                     |
//	rlimits, oom_score_adj                          |
//	overlay, idmapped mounts                        reads the control socket
//	Program: steps + mounts + listener ---------->  does steps ...
//	                        <---------- Warning --  a soft step failed
//	                        <------ Master (fd) --  the terminal's master side
//	                        <------------ Hooks --  everything is mounted, the root not entered
//	prestart, createRuntime hooks; Go ----------->  createContainer hooks, pivot_root, ids, capabilities
//	                        <------- Notify (fd) -  the seccomp listener
//	listener to its agent; Go ------------------->
//	                        <------------ Ready --  parked; closes the control socket, accepts on the listener
//	(any process) connect, one byte ------------->  startContainer hooks, seccomp, execve
//	                        <-- Failed, or the end: close-on-exec has closed the connection
//
// A step that fails sends Failed at any time and ends the process. An exec in a running container is
// the same with setns in place of new namespaces and without Hooks and parking: the end of the control
// socket means that the program runs.
package stage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"syscall"

	"davit/kernel/sys"
	"davit/oci/errdefs"
	"davit/ociruntime/plan"
	"davit/ociruntime/step"
)

// Launch says how to start init.
type Launch struct {
	Init   *os.File   // the davit-init binary
	Plan   *plan.Plan // its New, UIDs, GIDs and NeedsRoot; an outline is enough
	Stdio  [3]*os.File
	Join   []sys.Join // namespaces to be entered
	Cgroup *os.File   // cgroup v2 directory, or nil
	Tasks  []*os.File // cgroup v1 "tasks" files, open for writing
	Log    *slog.Logger
}

// Init is a running davit-init.
type Init struct {
	Pid   int
	PidFD *os.File

	// Console is the terminal's master side once init has sent it; whoever takes it sets it to nil.
	Console *os.File

	// OnLimits sets the resource limits of the plan.
	OnLimits func() error

	// OnHooks runs the hooks that run outside the container.
	OnHooks func() error

	// OnNotify takes the seccomp listener.
	OnNotify func(listener *os.File) error

	child   *sys.Child
	plan    *plan.Plan
	control *conn
	log     *slog.Logger
}

// Start clones init. It runs, and waits for its program.
func Start(l Launch) (*Init, error) {
	ours, theirs, err := sys.StreamPair()
	if err != nil {
		return nil, fmt.Errorf("make control socket: %w", err)
	}
	defer theirs.Close()
	spawn := sys.Spawn{
		Exe: l.Init, Argv: []string{"davit-init"}, Env: []string{"GOGC=off", "GOMAXPROCS=1", "GOTRACEBACK=none"},
		Files: []*os.File{l.Stdio[0], l.Stdio[1], l.Stdio[2], theirs},
		Join:  l.Join, New: l.Plan.New, Cgroup: l.Cgroup, Tasks: l.Tasks, Root: l.Plan.NeedsRoot,
	}
	if len(l.Plan.UIDs)+len(l.Plan.GIDs) > 0 {
		spawn.MapIDs = func(pid int) error { return mapIDs(pid, l.Plan.UIDs, l.Plan.GIDs) }
	}
	child, err := spawn.Start()
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("start init: %w", err)
	}
	return &Init{Pid: child.Pid, PidFD: child.PidFD, child: child, control: &conn{socket: ours}, log: l.Log}, nil
}

// Send gives init its program: the plan's steps with the files that they refer to.
func (i *Init) Send(p *plan.Plan, files []*os.File) error {
	i.plan = p
	fds := make([]int, len(files))
	for n, f := range files {
		fds[n] = int(f.Fd())
	}
	frame := step.Frame(step.Program, step.Encode(len(files), i.plan.Steps))
	if err := sys.SendWithFiles(i.control.socket, frame, fds); err != nil {
		return errors.Join(i.child.Failure(), fmt.Errorf("send program to init: %w", err))
	}
	return nil
}

// Follow answers init until it is parked, or for an exec until its program runs. Canceling ctx kills
// init. When it fails init is dead, but not reaped.
func (i *Init) Follow(ctx context.Context) error {
	stop := context.AfterFunc(ctx, i.kill)
	err := i.follow()
	if !stop() && ctx.Err() != nil {
		err = fmt.Errorf("start init: %w", ctx.Err())
	}
	if err != nil {
		i.kill()
	}
	return err
}

func (i *Init) kill() { sys.SignalPidFD(i.PidFD, syscall.SIGKILL) }

func (i *Init) follow() error {
	for {
		m, err := i.control.receive()
		if err != nil {
			return i.silence(err)
		}
		if m.kind == step.Ready {
			return nil
		}
		if err := i.answer(m); err != nil {
			return err
		}
	}
}

// silence tells what the end of the control socket means: an exec's program runs, or init died.
func (i *Init) silence(err error) error {
	if failure := i.child.Failure(); failure != nil {
		return fmt.Errorf("start init: %w", failure)
	}
	if errors.Is(err, errEnd) && !i.parks() {
		return nil
	}
	return fmt.Errorf("init ended unexpectedly: %w", err)
}

func (i *Init) parks() bool {
	for _, s := range i.plan.Steps {
		if s.Op == step.Park {
			return true
		}
	}
	return false
}

func (i *Init) answer(m message) error {
	switch m.kind {
	case step.Warning:
		err := failure(m.payload)
		i.log.Warn("container setup: " + err.Error())
		return nil
	case step.Failed:
		return failure(m.payload)
	case step.Master:
		if len(m.files) != 1 {
			return errors.New("init sent no terminal")
		}
		i.Console = m.files[0]
		return nil
	case step.Hooks:
		return i.goAfter(i.OnHooks)
	case step.Grant:
		return i.goAfter(i.OnLimits)
	case step.Notify:
		if len(m.files) != 1 {
			return errors.New("init sent no seccomp listener")
		}
		defer m.files[0].Close()
		if err := i.OnNotify(m.files[0]); err != nil {
			return fmt.Errorf("hand over seccomp listener: %w", err)
		}
		return i.control.send(step.Go)
	}
	return fmt.Errorf("init says %q, which means nothing", m.kind)
}

func (i *Init) goAfter(do func() error) error {
	if err := do(); err != nil {
		return err
	}
	return i.control.send(step.Go)
}

// Close releases everything but PidFD.
func (i *Init) Close() {
	i.control.socket.Close()
	i.child.Close()
	if i.Console != nil {
		i.Console.Close()
		i.Console = nil
	}
}

// Unpark lets a parked init execute the user's program: socket is a connection to its listener. It
// returns when the program runs, or with the reason why it does not.
func Unpark(socket *os.File) error {
	if err := sys.SendWithFiles(socket, []byte{'G'}, nil); err != nil {
		return fmt.Errorf("start container: %w", err)
	}
	c := conn{socket: socket}
	m, err := c.receive()
	if errors.Is(err, errEnd) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("start container: %w", err)
	}
	if m.kind == step.Failed || m.kind == step.Warning {
		return failure(m.payload)
	}
	return fmt.Errorf("init says %q, which means nothing", m.kind)
}

// failure turns init's report into an error. That the user's program cannot be executed is the user's
// to understand and gets the words that people know; its cause stays for errors.Is (fs.ErrNotExist,
// fs.ErrPermission).
func failure(payload []byte) error {
	f, err := step.DecodeFailure(payload)
	if err != nil {
		return fmt.Errorf("read init's report: %w", err)
	}
	switch {
	case f.Op == step.Find || f.Op == step.Run || f.Op == step.RunAsChild:
		return programError(f)
	case f.Op == 0:
		f.Name = "start init"
	}
	switch {
	case f.Errno == 0:
		return fmt.Errorf("%s: %s", f.Name, f.Detail)
	case f.Detail == "":
		return fmt.Errorf("%s: %w", f.Name, syscall.Errno(f.Errno))
	}
	return fmt.Errorf("%s: %s: %w", f.Name, f.Detail, syscall.Errno(f.Errno))
}

func programError(f step.Failure) error {
	errno := syscall.Errno(f.Errno)
	if f.Op != step.Find {
		return errdefs.New(errdefs.ErrInvalid, "exec %s: %w", f.Detail, errno)
	}
	program := strings.TrimPrefix(f.Name, "exec ")
	switch {
	case f.Detail == notInPath:
		return errdefs.New(errdefs.ErrInvalid, "exec: %q: %w", program, pathError{})
	case errno == syscall.EISDIR:
		return errdefs.New(errdefs.ErrInvalid, "exec: %q: is a directory: %w", program, syscall.EACCES)
	case errno == syscall.ENOENT:
		return errdefs.New(errdefs.ErrInvalid, "exec: %q: %s: %w", program, f.Detail, errno)
	}
	return errdefs.New(errdefs.ErrInvalid, "exec: %q: %w", program, errno)
}

const notInPath = "executable file not found in $PATH"

// pathError is ErrNotExist in the words that a shell's users know.
type pathError struct{}

func (pathError) Error() string { return notInPath }
func (pathError) Unwrap() error { return fs.ErrNotExist }
