// Package cgroup makes, limits, measures and removes the control groups that hold containers, on
// cgroup v1, v2 and the hybrid of both, whichever the host has.
//
// A Group is one path, such as /davit/4f2a..., in every hierarchy that matters:
//
//	v2       /sys/fs/cgroup/davit/4f2a...
//	v1       /sys/fs/cgroup/{memory,cpu,cpuacct,pids,devices,freezer,blkio}/davit/4f2a...
//	hybrid   as v1, with /sys/fs/cgroup/unified/davit/4f2a... in place of freezer
//
// The layout is read from /proc once per process. On a hybrid host the cgroup2 directory, which has no
// limits there, still does what it does best: freeze, kill and tell when the last process is gone.
//
// How a process gets in matters for speed. Writing a foreign pid to cgroup.procs waits for a grace
// period of the kernel's RCU, milliseconds, unless it happened a moment ago. The quick ways have no
// such wait: on v2 clone the process into FD, on v1 clone it in Spawn, on hybrid do both.
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/oci/errdefs"
)

// Driver says who creates the directories.
type Driver string

// The drivers. The zero value means Cgroupfs.
const (
	Cgroupfs Driver = "cgroupfs" // davit makes them itself
	Systemd  Driver = "systemd"  // systemd makes a scope unit, and davit limits it
)

// Config describes a group to create.
type Config struct {
	// Path names the group below every hierarchy's root: /davit/<id>. A relative path is taken below
	// /davit. With the systemd driver it is slice:prefix:name, as in system.slice:davit:4f2a.
	Path      string
	Resources *specs.LinuxResources // nil: no limits
	Driver    Driver
	Pid       int          // systemd only, which cannot make an empty scope: the first process
	Rootless  bool         // hierarchies that may not be written to are left out
	Log       *slog.Logger // told of settings that this kernel does not have; nil: discarded
}

// Group is one control group in all the hierarchies it occupies. Its methods are safe for concurrent
// use except Set and Delete.
type Group struct {
	path string
	dirs []dir
	fd   *os.File // directory in the cgroup2 hierarchy, or nil
	log  *slog.Logger

	later joined
}

// dir is the group's directory in one hierarchy.
type dir struct {
	h    *Hierarchy
	path string
}

// Create makes the group and applies its resources. An existing directory is taken over. On failure
// nothing that was created stays.
func Create(cfg Config) (*Group, error) {
	l, err := Host()
	if err != nil {
		return nil, err
	}
	if cfg.Driver == Systemd {
		return createScope(l, cfg)
	}
	p, err := cleanPath(cfg.Path)
	if err != nil {
		return nil, err
	}
	return l.create(p, cfg)
}

// create makes the directories for p in every hierarchy that the configuration needs.
func (l *Layout) create(p string, cfg Config) (_ *Group, err error) {
	g := &Group{path: p, log: logger(cfg.Log)}
	var made []string
	defer func() {
		if err != nil {
			g.close()
			for _, d := range slices.Backward(made) {
				err = errors.Join(err, os.Remove(d))
			}
		}
	}()
	for i := range l.Hierarchies {
		h := &l.Hierarchies[i]
		if !l.wanted(h, cfg.Resources) {
			continue
		}
		d := dir{h, h.dir(p)}
		switch created, err := d.make(); {
		case err == nil && created:
			made = append(made, d.path)
		case cfg.Rootless && readOnly(err):
			continue
		case err != nil:
			return nil, fmt.Errorf("create cgroup %s: %w", d.path, err)
		}
		g.dirs = append(g.dirs, d)
	}
	if err := g.open(); err != nil {
		return nil, err
	}
	if err := g.set(cfg.Resources); err != nil {
		return nil, err
	}
	return g, nil
}

// Load returns the existing group with the path, as Group.Path gave it. It is an
// errdefs.ErrNotFound when no hierarchy has it.
func Load(p string) (*Group, error) {
	l, err := Host()
	if err != nil {
		return nil, err
	}
	if p, err = cleanPath(p); err != nil {
		return nil, err
	}
	g := &Group{path: p, log: logger(nil)}
	for i := range l.Hierarchies {
		d := dir{&l.Hierarchies[i], l.Hierarchies[i].dir(p)}
		if exists(d.path) {
			g.dirs = append(g.dirs, d)
		}
	}
	if len(g.dirs) == 0 {
		return nil, errdefs.NotFound("no such cgroup: %s", p)
	}
	return g, g.open()
}

// open opens the cgroup2 directory, where there is one.
func (g *Group) open() error {
	d, ok := g.unified()
	if !ok {
		return nil
	}
	f, err := os.Open(d.path)
	if err != nil {
		return fmt.Errorf("open cgroup: %w", err)
	}
	g.fd = f
	return nil
}

func (g *Group) close() {
	if g.fd != nil {
		g.fd.Close()
		g.fd = nil
	}
}

// Close releases the group's file descriptor. The group itself stays.
func (g *Group) Close() error { g.close(); return nil }

// Path returns what Load takes.
func (g *Group) Path() string { return g.path }

// FD returns the open directory of the cgroup2 hierarchy, for CLONE_INTO_CGROUP, or nil where the host
// has none. The Group keeps owning it.
func (g *Group) FD() *os.File { return g.fd }

// Dirs returns the group's directory in each hierarchy it occupies, for mounting them into the
// container.
func (g *Group) Dirs() []Dir {
	all := g.everywhere()
	dirs := make([]Dir, len(all))
	for i, d := range all {
		dirs[i] = Dir{Hierarchy: *d.h, Path: d.path}
	}
	return dirs
}

// Dir is one directory of a group.
type Dir struct {
	Hierarchy Hierarchy
	Path      string // absolute, on the host
}

// Add moves a process with all its threads into the group. See the package comment for its cost.
func (g *Group) Add(pid int) error {
	for _, d := range g.everywhere() {
		if err := d.write("cgroup.procs", itoa(int64(pid))); err != nil {
			return fmt.Errorf("add process %d to cgroup: %w", pid, err)
		}
	}
	return nil
}

// Spawn calls start on a thread that is in the group's v1 directories, so that a process cloned by start
// is born there; with FD in the clone's attributes it is born in all of the group. The thread ends
// afterwards. On pure v2, where threads of one process cannot be parted, start runs as it is.
func (g *Group) Spawn(start func() error) error {
	result := make(chan error)
	go spawn(func() error {
		if err := g.enter(); err != nil {
			return err
		}
		return start()
	}, result)
	return <-result
}

// spawn runs f on a thread that dies with it: a goroutine that ends while locked takes its thread along,
// except the process's main thread, which Go keeps.
func spawn(f func() error, result chan<- error) {
	runtime.LockOSThread()
	if syscall.Gettid() == syscall.Getpid() {
		done := make(chan struct{})
		go func() { defer close(done); spawn(f, result) }() // on another thread: this one is taken
		<-done
		runtime.UnlockOSThread()
		return
	}
	result <- f()
}

// enter moves the calling thread into the v1 directories. Unlike cgroup.procs, tasks takes a thread's
// own move without waiting for the rest of the machine (Linux 5.15).
func (g *Group) enter() error {
	for _, d := range g.everywhere() {
		if d.h.V2 {
			continue
		}
		if err := d.write("tasks", "0"); err != nil {
			return fmt.Errorf("enter cgroup: %w", err)
		}
	}
	return nil
}

// unified returns the group's cgroup2 directory.
func (g *Group) unified() (dir, bool) {
	for _, d := range g.dirs {
		if d.h.V2 {
			return d, true
		}
	}
	return dir{}, false
}

// v1 returns the group's directory in the v1 hierarchy of a controller.
func (g *Group) v1(controller string) (dir, bool) {
	for _, d := range g.everywhere() {
		if !d.h.V2 && slices.Contains(d.h.Controllers, controller) {
			return d, true
		}
	}
	return dir{}, false
}

// cleanPath returns an absolute, clean path below the hierarchies' roots.
func cleanPath(p string) (string, error) {
	if p == "" || strings.ContainsRune(p, 0) {
		return "", errdefs.Invalid("invalid cgroup path %q", p)
	}
	if !path.IsAbs(p) {
		p = "/davit/" + path.Join("/", p)
	}
	if p = path.Clean(p); p == "/" {
		return "", errdefs.Invalid("the root cgroup cannot hold a container")
	}
	return p, nil
}

// make creates the directory and, where they are missing, its parents.
func (d dir) make() (created bool, err error) {
	if d.h.V2 {
		if err := d.h.delegate(filepath.Dir(d.path)); err != nil {
			return false, err
		}
	}
	err = os.Mkdir(d.path, 0o755)
	if errors.Is(err, fs.ErrNotExist) {
		parent := dir{d.h, filepath.Dir(d.path)}
		if _, err := parent.make(); err != nil {
			return false, err
		}
		return d.make()
	}
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err == nil && d.h.has("cpuset") && !d.h.V2 {
		err = inheritCpuset(d.path)
	}
	return err == nil, err
}

func logger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}

func exists(p string) bool {
	var st syscall.Stat_t
	return syscall.Stat(p, &st) == nil
}

func readOnly(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS)
}
