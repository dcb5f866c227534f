package ociruntime

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/kernel/cgroup"
	"davit/kernel/ns"
	"davit/kernel/sys"
	"davit/oci/errdefs"
	"davit/oci/rootfs"
	"davit/ociruntime/plan"
	"davit/ociruntime/stage"
	"davit/ociruntime/state"
)

// creation is a container on its way. Each step adds to it, and undo takes back what there is.
type creation struct {
	runtime  *Runtime
	id       string
	options  CreateOptions
	listener *os.File
	group    *cgroup.Group
	plan     *plan.Plan
	init     *stage.Init
	joins    []sys.Join
	userNS   *os.File
	netNS    *os.File
	opened   []*os.File // closed when Create returns
}

// Create clones the first process of a new container and hands it what it needs. On return the
// namespaces exist and the process is in its cgroup; mounting goes on. Call Ready or Start for its
// outcome. It fails with ErrConflict when the id is taken and ErrInvalid when the spec is wrong.
func (r *Runtime) Create(ctx context.Context, id string, o CreateOptions) (_ *Container, err error) {
	if err := r.store.Reserve(id); err != nil {
		return nil, err
	}
	n := &creation{runtime: r, id: id, options: o}
	defer n.release()
	for _, do := range []func() error{n.outline, n.makeCgroup, n.clone, n.note, n.listen, n.allowDevices, n.makePlan, n.handOver} {
		if err := do(); err != nil {
			return nil, errors.Join(err, n.undo())
		}
	}
	c, err := n.record()
	if err != nil {
		return nil, errors.Join(err, n.undo())
	}
	return c, nil
}

// outline checks the spec and opens the namespaces that it joins.
func (n *creation) outline() (err error) {
	if n.plan, err = plan.Outline(n.options.Spec); err != nil {
		return err
	}
	return n.openJoins()
}

// note keeps the spec.
func (n *creation) note() error { return n.runtime.store.SaveSpec(n.id, n.options.Spec) }

// listen makes the socket on which the parked init accepts. Its path may be longer than a socket
// address, so it is named through a descriptor of its directory.
func (n *creation) listen() error {
	dir, err := sys.OpenPath(n.runtime.store.Dir(n.id))
	if err != nil {
		return fmt.Errorf("open container directory: %w", err)
	}
	defer dir.Close()
	address := &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("/proc/self/fd/%d/start.sock", dir.Fd())}
	l, err := net.ListenUnix("unix", address)
	if err != nil {
		return fmt.Errorf("make start socket: %w", err)
	}
	defer l.Close()
	l.SetUnlinkOnClose(false)
	if n.listener, err = l.File(); err != nil {
		return fmt.Errorf("make start socket: %w", err)
	}
	n.opened = append(n.opened, n.listener)
	return syscall.SetNonblock(int(n.listener.Fd()), false)
}

// makeCgroup makes the container's control group with its limits. It is noted first: should this program be
// killed, Clear finds it.
func (n *creation) makeCgroup() (err error) {
	if n.runtime.systemd { // systemd makes a scope around the process: see clone
		return nil
	}
	config := n.cgroupConfig(0)
	if err := n.runtime.store.SaveGroup(n.id, config.Path); err != nil {
		return err
	}
	limits := *config.Resources
	limits.Devices, config.Resources = nil, &limits
	n.group, err = cgroup.Create(config)
	return err
}

// allowDevices writes the list of devices, which is long, while init starts up.
func (n *creation) allowDevices() error {
	if n.runtime.systemd {
		return nil
	}
	return n.group.SetDevices(n.cgroupConfig(0).Resources.Devices)
}

func (n *creation) cgroupConfig(pid int) cgroup.Config {
	c := cgroup.Config{
		Path: n.options.Spec.Linux.CgroupsPath, Resources: withDefaultDevices(n.options.Spec.Linux.Resources),
		Pid: pid, Log: n.runtime.log, Driver: cgroup.Cgroupfs,
	}
	if n.runtime.systemd {
		c.Driver = cgroup.Systemd
	}
	if c.Path == "" {
		c.Path = "/davit/" + n.id
		if n.runtime.systemd {
			c.Path = "system.slice:davit:" + n.id
		}
	}
	return c
}

// withDefaultDevices adds the devices that every container has: after the spec's own rules, which often
// deny all, and after a denial of all that an empty list means.
func withDefaultDevices(r *specs.LinuxResources) *specs.LinuxResources {
	with := specs.LinuxResources{}
	if r != nil {
		with = *r
	}
	denyAll := specs.LinuxDeviceCgroup{Access: "rwm"}
	with.Devices = slices.Concat([]specs.LinuxDeviceCgroup{denyAll}, with.Devices, cgroup.DefaultDevices())
	return &with
}

// makePlan plans everything else, while init starts up.
func (n *creation) makePlan() error {
	filter, err := n.runtime.compileFilter(n.options.Spec.Linux.Seccomp)
	if err != nil {
		return err
	}
	facts := n.runtime.facts(filter)
	facts.AttachAt = n.attachAt()
	facts.NoPivot, facts.ExtraFiles = n.options.NoPivot, len(n.options.ExtraFiles)
	if facts.Foreign, err = n.foreign(); err != nil {
		return err
	}
	if n.group != nil {
		facts.Hierarchies = hierarchies(n.group)
	}
	n.plan, err = plan.Build(n.options.Spec, facts)
	if err != nil {
		return err
	}
	for _, w := range n.plan.Warnings {
		n.runtime.log.Warn("container " + n.id + ": " + w)
	}
	return nil
}

// attachAt is where the root file system hangs in the host's tree while it is put together. Hooks
// expect it at the path that the spec says; else the host's root is as good as any.
func (n *creation) attachAt() string {
	root := n.options.Spec.Root
	if n.options.Spec.Hooks == nil || root == nil {
		return "/"
	}
	if st, err := os.Stat(n.absolute(root.Path)); err == nil && st.IsDir() {
		return n.absolute(root.Path)
	}
	return "/"
}

func (n *creation) absolute(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(n.options.Bundle, path)
}

// openJoins opens the namespaces that the spec names by path.
func (n *creation) openJoins() error {
	var user *sys.Join
	for _, space := range n.options.Spec.Linux.Namespaces {
		kind, ok := plan.KindOf(space.Type)
		if space.Path == "" || !ok {
			continue
		}
		f, err := os.Open(space.Path)
		if err != nil {
			return errdefs.New(errdefs.ErrInvalid, "open %s namespace: %w", space.Type, err)
		}
		n.opened = append(n.opened, f)
		if space.Type == specs.UserNamespace {
			user = &sys.Join{FD: f, Kinds: kind}
			continue
		}
		n.joins = append(n.joins, sys.Join{FD: f, Kinds: kind})
	}
	if user != nil {
		n.joins = append(n.joins, *user)
	}
	return nil
}

// foreign returns the kinds of the joined namespaces that the container's user namespace does not own.
// A new user namespace owns none of them.
func (n *creation) foreign() (kinds uint64, err error) {
	var user *os.File
	for _, j := range n.joins {
		if j.Kinds == sys.NewUser {
			user = j.FD
		}
	}
	for _, j := range n.joins {
		if j.Kinds == sys.NewUser {
			continue
		}
		owned := false
		if user != nil {
			if owned, err = ns.OwnedBy(j.FD, user); err != nil {
				return 0, err
			}
		}
		if !owned {
			kinds |= uint64(j.Kinds)
		}
	}
	return kinds, nil
}

// clone starts init in its namespaces and cgroup.
func (n *creation) clone() (err error) {
	l := stage.Launch{Init: n.runtime.init, Plan: n.plan, Join: n.joins, Log: n.runtime.log, Stdio: n.runtime.stdio(n.options.Stdio, n.options.Spec.Process.Terminal)}
	if n.group != nil {
		l.Cgroup = n.group.FD()
		if l.Tasks, err = openTasks(n.group); err != nil {
			return err
		}
		n.opened = append(n.opened, l.Tasks...)
	}
	if n.init, err = stage.Start(l); err != nil {
		return err
	}
	if n.runtime.systemd {
		if n.group, err = cgroup.Create(n.cgroupConfig(n.init.Pid)); err != nil {
			return err
		}
	}
	return n.openNamespaces()
}

func (n *creation) openNamespaces() (err error) {
	if n.plan.NeedsRoot {
		if n.userNS, err = ns.Open(n.init.Pid, "user"); err != nil {
			return err
		}
		n.opened = append(n.opened, n.userNS)
	}
	for _, space := range n.options.Spec.Linux.Namespaces {
		if space.Type == specs.NetworkNamespace {
			n.netNS, err = ns.Open(n.init.Pid, "net")
		}
	}
	return err
}

// handOver opens the mounts, which needs the user namespace, and sends init its program.
func (n *creation) handOver() error {
	mapping, err := n.mapping()
	if err != nil {
		return err
	}
	root := n.options.Rootfs
	if isZero(root) {
		root = rootfs.Rootfs{Dir: n.absolute(n.options.Spec.Root.Path)}
		mapping.UserNS = nil // the bundle's files have the owners that its maker wants
	}
	tree, err := mountRootfs(root, mapping)
	if err != nil {
		return err
	}
	n.opened = append(n.opened, tree)
	files := []*os.File{tree, n.listener}
	for _, s := range n.plan.Sources {
		f, err := n.openSource(s)
		if err != nil {
			return err
		}
		n.opened = append(n.opened, f)
		files = append(files, f)
	}
	n.applyOOMScore()
	if err := n.tellHooks(); err != nil {
		return err
	}
	return n.init.Send(n.plan, append(files, n.options.ExtraFiles...))
}

func isZero(r rootfs.Rootfs) bool { return r.Dir == "" && len(r.Lower) == 0 && r.Upper == "" }

// record saves the container and returns it.
func (n *creation) record() (*Container, error) {
	started, _, err := startTimeOf(n.init.Pid)
	if err != nil {
		return nil, err
	}
	spec := n.options.Spec
	c := &Container{ID: n.id, Pid: n.init.Pid, PidFD: n.init.PidFD, NetNS: n.netNS, Cgroup: n.group.Path()}
	c.runtime, c.group, c.spec, c.init = n.runtime, n.group, spec, n.init
	c.record = state.State{
		ID: n.id, Bundle: n.options.Bundle, Pid: c.Pid, StartTime: started, Cgroup: c.Cgroup,
		Created: time.Now().UTC(), Labels: spec.Annotations, Owner: os.Getuid(),
	}
	if spec.Root != nil {
		c.record.Rootfs = n.absolute(spec.Root.Path)
	}
	if err := n.runtime.store.Save(c.record); err != nil {
		return nil, err
	}
	n.init.OnLimits = func() error { return applyLimits(c.Pid, n.plan.Limits) }
	n.init.OnHooks = func() error { return c.runCreateHooks() }
	n.init.OnNotify = func(f *os.File) error { return c.sendListener(f) }
	return c, nil
}

// release closes what only Create needed.
func (n *creation) release() {
	for _, f := range n.opened {
		f.Close()
	}
}

// undo takes everything back after a failure.
func (n *creation) undo() error {
	var errs []error
	if n.init != nil {
		sys.SignalPidFD(n.init.PidFD, syscall.SIGKILL)
		if _, err := sys.Reap(n.init.PidFD); err != nil {
			errs = append(errs, fmt.Errorf("reap init: %w", err))
		}
		n.init.Close()
		n.init.PidFD.Close()
	}
	if n.netNS != nil {
		n.netNS.Close()
	}
	if n.group != nil {
		errs = append(errs, n.group.Delete(context.Background()))
	}
	return errors.Join(append(errs, n.runtime.store.Remove(n.id))...)
}

// openTasks opens the files through which the process enters its v1 groups by itself, without the
// kernel's grace period.
func openTasks(g *cgroup.Group) ([]*os.File, error) {
	var files []*os.File
	for _, d := range g.Dirs() {
		if d.Hierarchy.V2 {
			continue
		}
		f, err := os.OpenFile(d.Path+"/tasks", os.O_WRONLY, 0)
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, fmt.Errorf("open cgroup: %w", err)
		}
		files = append(files, f)
	}
	return files, nil
}

func hierarchies(g *cgroup.Group) []plan.Hierarchy {
	var list []plan.Hierarchy
	for _, d := range g.Dirs() {
		list = append(list, plan.Hierarchy{V2: d.Hierarchy.V2, Controllers: d.Hierarchy.Controllers, Dir: d.Path})
	}
	return list
}

// stdio fills in what the caller left to the null device. A terminal makes its own streams.
func (r *Runtime) stdio(s Stdio, terminal bool) [3]*os.File {
	files := [3]*os.File{s.Stdin, s.Stdout, s.Stderr}
	for i, f := range files {
		if f == nil || terminal {
			files[i] = r.null
		}
	}
	return files
}

// hostRoot returns the host's ids of user and group 0 of a mapping.
func hostRoot(mappings []specs.LinuxIDMapping) (int, bool) {
	for _, m := range mappings {
		if m.ContainerID == 0 && m.Size > 0 {
			return int(m.HostID), true
		}
	}
	return 0, false
}

// readMap reads the id map of a process's user namespace.
func readMap(pid int, name string) ([]specs.LinuxIDMapping, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
	if err != nil {
		return nil, fmt.Errorf("read id map: %w", err)
	}
	var mappings []specs.LinuxIDMapping
	for line := range strings.Lines(string(b)) {
		var m specs.LinuxIDMapping
		if _, err := fmt.Sscan(line, &m.ContainerID, &m.HostID, &m.Size); err != nil {
			return nil, fmt.Errorf("read id map: %w", err)
		}
		mappings = append(mappings, m)
	}
	return mappings, nil
}
