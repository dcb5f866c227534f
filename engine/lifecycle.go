package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/events"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/engine/container"
	"davit/engine/passwd"
	"davit/oci/errdefs"
	"davit/oci/rootfs"
	"davit/task"
)

// lifecycle is how containers begin and end, whoever wanted it: a user, a restart policy, or the start
// of the engine.
type lifecycle struct {
	*shared
	execs   *Execs
	steps   *steps
	context context.Context // of the engine's own work
	cancel  context.CancelFunc
}

// start brings a container up; the caller has its turn. Of a container that already runs it returns
// errdefs.ErrNotModified.
func (l *lifecycle) start(ctx context.Context, a *actor) error {
	r := a.record()
	switch r.State.Status {
	case container.Running:
		return errdefs.NotModified("container %s is already running", r.Name)
	case container.Paused:
		return errdefs.Conflict("cannot start a paused container, try unpause instead")
	case container.Removing, container.Removed:
		return errdefs.Conflict("container is marked for removal and cannot be started")
	}
	starting, err := r.Apply(container.EventStart, func(s *container.State) { s.Error = "" })
	if err != nil {
		return err
	}
	l.shareHostname(starting)
	a.publish(starting)
	if err := l.bringUp(ctx, a, starting); err != nil {
		l.failed(a, starting, err)
		return startError(err)
	}
	return nil
}

// shareHostname gives a container in another's network that one's name.
func (l *lifecycle) shareHostname(r *container.Record) {
	if !r.HostConfig.NetworkMode.IsContainer() {
		return
	}
	a, err := l.roster.find(r.HostConfig.NetworkMode.ConnectedContainer())
	if err != nil {
		return // which the start will say
	}
	config, other := *r.Config, a.record().Config
	config.Hostname, config.Domainname = other.Hostname, other.Domainname
	r.Config = &config
}

// startError gives the reason why a program could not be executed Docker's words, by which clients
// choose their exit code, and class.
func startError(err error) error {
	if exitCodeOf(err) == notStarted {
		return err
	}
	return errdefs.New(errdefs.ErrInvalid, "failed to create task for container: failed to create shim task: OCI runtime create failed: unable to start container process: %w: unknown", err)
}

// The exit codes of a program that could not be executed, as a shell has them, and of a container that
// failed before.
const (
	cannotExecute = 126
	notFound      = 127
	notStarted    = 128
)

// execFailure is an error of the last step: the program itself could not be executed.
type execFailure struct{ error }

func (e execFailure) Unwrap() error { return e.error }

// exitCodeOf is the exit code of a container that could not be started. A program that is in no
// directory of PATH has no errno.
func exitCodeOf(err error) int {
	var failure execFailure
	if !errors.As(err, &failure) {
		return notStarted
	}
	switch {
	case strings.Contains(err.Error(), "chdir to cwd"):
		return cannotExecute
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOTDIR), strings.Contains(err.Error(), "executable file not found"):
		return notFound
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.ENOEXEC), errors.Is(err, syscall.EISDIR):
		return cannotExecute
	}
	return notStarted
}

// executable refuses a program without a name, which the runtime would take for a mistake in the spec.
func executable(args []string) error {
	if len(args) > 0 && args[0] == "" {
		return execFailure{errors.New(`exec: "": executable file not found in $PATH`)}
	}
	return nil
}

// failed publishes that the start went wrong and lets go of everybody who waited for it.
func (l *lifecycle) failed(a *actor, r *container.Record, cause error) {
	for _, w := range a.takeWaiting() {
		close(w.conn)
	}
	failed, err := r.Apply(container.EventFailed, func(s *container.State) {
		s.Error, s.ExitCode, s.FinishedAt, s.Pid = cause.Error(), exitCodeOf(cause), l.Now().UTC(), 0
	})
	if err != nil {
		l.Log.Error("start container", "container", a.id, "error", err)
		return
	}
	a.publishExit(failed)
	l.journal.saveLater(failed)
	if failed.AutoRemove() {
		if err := l.remove(context.WithoutCancel(l.context), a, true); err != nil {
			l.Log.Error("remove container", "container", a.id, "error", err)
		}
	}
}

// bringUp makes the task, gives it its network, connects who waits for its output, and lets it run.
func (l *lifecycle) bringUp(ctx context.Context, a *actor, r *container.Record) (err error) {
	var u undo
	defer func() { u.unless(err == nil) }()
	client, err := l.link.get(ctx)
	if err != nil {
		return err
	}
	root, err := l.Snapshots.Rootfs(a.id)
	if err != nil {
		return err
	}
	if err := l.mountVolumes(ctx, r); err != nil {
		return err
	}
	endpoints, err := l.allocate(ctx, r)
	u.add(func() { l.detach(a.id) })
	if err != nil {
		return err
	}
	spec, err := l.spec(ctx, r, root, endpoints)
	if err != nil {
		return err
	}
	_, netns, err := client.Create(ctx, taskRequest(r, spec, root))
	if netns != nil {
		defer netns.Close()
	}
	if err != nil {
		return err
	}
	u.add(func() { l.deleteTask(client, a.id) })
	var waiting sync.WaitGroup
	waiting.Go(func() { l.connectWaiting(ctx, client, a) })
	err = l.attach(ctx, r, netns, endpoints)
	waiting.Wait()
	if err != nil {
		return err
	}
	if hasRelays(endpoints) {
		if err := l.relay(ctx, client, a.id); err != nil {
			return endpointError(err)
		}
	}
	l.tellVolumes(r)
	a.mu.Lock()
	a.process = spec.Process
	a.mu.Unlock()
	state, err := client.Start(ctx, a.id)
	if err != nil {
		return execFailure{err}
	}
	return l.started(a, r, state)
}

// started publishes a running container.
func (l *lifecycle) started(a *actor, r *container.Record, state task.State) error {
	running, err := r.Apply(container.EventStarted, func(s *container.State) {
		s.Pid, s.Cgroup, s.StartedAt = state.Pid, state.Cgroup, state.StartedAt.UTC()
		s.FinishedAt, s.ExitCode, s.OOMKilled, s.Stopped, s.Keep = time.Time{}, 0, false, false, false
		s.Networks, s.Ports = l.settings(r)
		s.Health = initialHealth(r)
	})
	if err != nil {
		return err
	}
	a.publish(running)
	l.journal.saveLater(running)
	l.tell(running, events.ActionStart, nil)
	l.relink(running)
	l.watchHealth(a, running)
	return nil
}

func taskRequest(r *container.Record, spec *specs.Spec, root rootfs.Rootfs) task.CreateRequest {
	q := task.CreateRequest{
		ID: r.ID, Spec: spec, Rootfs: root,
		Stdio: task.Stdio{
			Stdin: r.Config.OpenStdin, StdinOnce: r.Config.StdinOnce, Terminal: r.Config.Tty,
			Rows: uint16(r.HostConfig.ConsoleSize[0]), Cols: uint16(r.HostConfig.ConsoleSize[1]),
		},
	}
	if r.LogPath != "" {
		q.Log = logConfig(r)
	}
	return q
}

// spec gathers what BuildSpec needs.
func (l *lifecycle) spec(ctx context.Context, r *container.Record, root rootfs.Rootfs, endpoints []endpoint) (*specs.Spec, error) {
	if err := executable(append(slices.Clone(r.Config.Entrypoint), r.Config.Cmd...)); err != nil {
		return nil, err
	}
	user, err := passwd.Lookup(root, r.Config.User, r.HostConfig.GroupAdd)
	if err != nil {
		return nil, err
	}
	join, shm, err := l.joins(r)
	if err != nil {
		return nil, err
	}
	links, err := l.links(r)
	if err != nil {
		return nil, err
	}
	files, err := l.writeFiles(r, endpoints, links)
	if err != nil {
		return nil, err
	}
	seccomp, err := l.seccomp(r)
	if err != nil {
		return nil, err
	}
	return container.BuildSpec(container.SpecInput{
		Record: r, User: user, Files: files, LinkEnv: linkEnv(r, links), Join: join, Seccomp: seccomp, ShmDir: shm, Facts: l.Facts,
	})
}

func (s *shared) seccomp(r *container.Record) (*specs.LinuxSeccomp, error) {
	security, err := container.ParseSecurity(r.HostConfig.SecurityOpt)
	if err != nil || security.Unconfined || r.HostConfig.Privileged {
		return nil, err
	}
	caps, err := container.Capabilities(s.Facts.Capabilities, r.HostConfig.CapAdd, r.HostConfig.CapDrop, false)
	if err != nil {
		return nil, err
	}
	return s.Host.Seccomp(security.SeccompProfile, caps)
}

// connectWaiting gives those who attached before the task was there their streams, so that they miss
// no byte.
func (l *lifecycle) connectWaiting(ctx context.Context, client *task.Client, a *actor) {
	var all sync.WaitGroup
	for _, w := range a.takeWaiting() {
		all.Go(func() {
			conn, err := client.Attach(ctx, w.request)
			if err != nil {
				l.Log.Warn("attach to container", "container", a.id, "error", err)
				close(w.conn)
				return
			}
			w.conn <- conn
		})
	}
	all.Wait()
}

// deleteTask forgets a task, killing what still runs of it.
func (s *shared) deleteTask(client *task.Client, id string) {
	ctx := context.Background()
	err := client.Delete(ctx, id)
	if errors.Is(err, errdefs.ErrConflict) {
		if err = client.Kill(ctx, id, "", syscall.SIGKILL, true); err == nil {
			err = client.Delete(ctx, id)
		}
	}
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		s.Log.Error("delete task", "container", id, "error", err)
	}
}

// openNamespace opens a namespace of a running container's first process.
func openNamespace(pid int, kind string) (*os.File, error) {
	return os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
}

// stream is what an attached client reads from and writes to.
type stream = *net.UnixConn
