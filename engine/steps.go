package engine

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	wirenet "github.com/moby/moby/api/types/network"

	"github.com/docker/go-units"

	"davit/build"
	"davit/engine/container"
	"davit/oci/errdefs"
	"davit/task"
)

// steps runs the RUN steps of builds; it implements build.Runner. A step is a container that no list
// shows and no record keeps: after a restart of the engine, what is left of it is cleared away like any
// task without a record.
type steps struct {
	*shared
	mu      sync.Mutex
	running map[string]chan task.State // by id; has room for the one exit
}

func newSteps(s *shared) *steps { return &steps{shared: s, running: map[string]chan task.State{}} }

// handle takes an event of the monitor if it is a step's.
func (s *steps) handle(e task.Event) bool {
	s.mu.Lock()
	exit, ok := s.running[e.State.ID]
	s.mu.Unlock()
	if ok && e.Type == task.EventExit {
		select {
		case exit <- e.State:
		default:
		}
	}
	return ok
}

// Run implements build.Runner.
func (s *steps) Run(ctx context.Context, q build.RunSpec, stdout, stderr io.Writer) (code int, err error) {
	exit := make(chan task.State, 1)
	s.mu.Lock()
	s.running[q.ID] = exit
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.running, q.ID)
		s.mu.Unlock()
	}()
	r, release, err := s.record(q)
	if err != nil {
		return 0, err
	}
	defer release()
	client, err := s.link.get(ctx)
	if err != nil {
		return 0, err
	}
	defer s.detach(q.ID)
	netns, endpoints, err := s.create(ctx, client, r, q)
	if netns != nil {
		defer netns.Close()
	}
	if err != nil {
		return 0, fmt.Errorf("run step: %w", err)
	}
	defer s.deleteTask(client, q.ID)
	if err := s.attach(ctx, r, netns, endpoints); err != nil {
		return 0, err
	}
	return s.execute(ctx, client, q.ID, exit, stdout, stderr)
}

// record describes a step as if it were a container.
func (s *steps) record(q build.RunSpec) (*container.Record, func(), error) {
	config := &wire.Config{Cmd: q.Args, Env: q.Env, WorkingDir: q.Cwd, Hostname: q.Hostname}
	host := &wire.HostConfig{
		NetworkMode: wire.NetworkMode(q.Network), ExtraHosts: q.ExtraHosts, Privileged: q.Insecure, ShmSize: q.Limits.ShmSize,
		Resources: wire.Resources{
			Memory: q.Limits.Memory, MemorySwap: q.Limits.MemorySwap, CPUShares: q.Limits.CPUShares, CPUPeriod: q.Limits.CPUPeriod,
			CPUQuota: q.Limits.CPUQuota, CpusetCpus: q.Limits.CPUSetCPUs, CpusetMems: q.Limits.CPUSetMems, CgroupParent: q.Limits.CgroupParent,
		},
	}
	for _, u := range q.Limits.Ulimits {
		host.Ulimits = append(host.Ulimits, &units.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	config, host, err := container.Complete(q.ID, config, host, s.Defaults)
	if err != nil {
		return nil, nil, err
	}
	r := &container.Record{
		ID: q.ID, Name: "build-" + q.ID[:12], Config: config, HostConfig: host, Dir: filepath.Join(s.Options.Run, "steps", q.ID),
		Endpoints: map[string]*wirenet.EndpointSettings{string(host.NetworkMode): {}}, Mounts: stepMounts(q.Mounts),
		UserNS: container.Isolate(host, nil, s.UserMode),
	}
	release := func() { os.RemoveAll(r.Dir) }
	if r.UserNS.Mode == container.UserPrivate {
		base, err := s.ids.allocate()
		if err != nil {
			return nil, nil, err
		}
		r.UserNS.Base, r.UserNS.Size = base, idSize
		release = func() {
			s.ids.release(base)
			os.RemoveAll(r.Dir)
		}
	}
	return r, release, os.MkdirAll(r.Dir, 0o711)
}

func stepMounts(mounts []build.Mount) []container.Mount {
	var all []container.Mount
	for _, m := range mounts {
		c := container.Mount{Type: mount.TypeBind, Source: m.Source, Destination: m.Target, RW: !m.ReadOnly}
		if string(m.Type) == string(mount.TypeTmpfs) {
			c.Type, c.Source, c.Options = mount.TypeTmpfs, "", container.TmpfsOptions("exec", m.Size, 0)
		}
		all = append(all, c)
	}
	return all
}

// create makes a step's task.
func (s *steps) create(ctx context.Context, client *task.Client, r *container.Record, q build.RunSpec) (*os.File, []endpoint, error) {
	endpoints, err := s.allocate(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	files, err := s.writeFiles(r, endpoints, nil)
	if err != nil {
		return nil, nil, err
	}
	seccomp, err := s.seccomp(r)
	if err != nil {
		return nil, nil, err
	}
	spec, err := container.BuildSpec(container.SpecInput{
		Record: r, User: container.User{UID: q.UID, GID: q.GID, Groups: q.Groups}, Files: files, Seccomp: seccomp, Facts: s.Facts,
	})
	if err != nil {
		return nil, nil, err
	}
	_, netns, err := client.Create(ctx, task.CreateRequest{ID: r.ID, Spec: spec, Rootfs: q.Rootfs})
	return netns, endpoints, err
}

// execute starts a step's process, passes its output on and returns its exit code.
func (s *steps) execute(ctx context.Context, client *task.Client, id string, exit <-chan task.State, stdout, stderr io.Writer) (int, error) {
	output, err := client.Attach(ctx, task.AttachRequest{Task: id, Stdout: true, Stderr: true})
	if err != nil {
		return 0, err
	}
	defer output.Close()
	if _, err := client.Start(ctx, id); err != nil {
		return 0, err
	}
	killed := context.AfterFunc(ctx, func() {
		_ = client.Kill(context.WithoutCancel(ctx), id, "", syscall.SIGKILL, true) // gone already
	})
	defer killed()
	if err := Demultiplex(output, stdout, stderr); err != nil && ctx.Err() == nil {
		s.Log.Warn("read output of a build step", "error", err)
	}
	select {
	case state := <-exit:
		if ctx.Err() != nil {
			return 0, errdefs.As(errdefs.ErrCanceled, ctx.Err())
		}
		return state.ExitCode, nil
	case <-client.Done():
		return 0, errdefs.Unavailable("the monitor is gone")
	}
}
