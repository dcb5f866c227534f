package op

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"davit/build/plan"
	"davit/build/tree"
	"davit/kernel/sys"
	"davit/oci"
)

// Run is a RUN step with what the build says of all its RUN steps.
type Run struct {
	Step       *plan.Run
	Sources    []tree.Tree // of Step.Mounts, one each; nil where it takes none
	Network    string      // for Step.Network "default"
	ExtraHosts []string
	Limits     Limits
	Secrets    func(ctx context.Context, id string) ([]byte, error) // errdefs.ErrNotFound for an unknown one
	Stdout     io.Writer
	Stderr     io.Writer
	Started    func(id string) // told the container's id before it runs
}

// ExitError is a RUN step whose process failed. When the disk was full by then, that is the Cause.
type ExitError struct {
	Args  []string
	Code  int
	Cause error
}

// Unwrap returns the cause, if there is one.
func (e *ExitError) Unwrap() error { return e.Cause }

func (e *ExitError) Error() string {
	return fmt.Sprintf("The command '%s' returned a non-zero code: %d", strings.Join(e.Args, " "), e.Code)
}

// Digest is a hash over all that the step's outcome depends on, except the layers below.
func (w *Worker) Digest(r *Run) (string, error) {
	s := r.Step
	parts := []string{"run", s.Script, s.Dir, s.User, s.Network, fmt.Sprint(s.Insecure), fmt.Sprint(len(s.Args)), fmt.Sprint(len(s.Env))}
	parts = append(append(parts, s.Args...), s.Env...)
	for i, m := range s.Mounts {
		m.From = plan.Ref{}
		parts = append(parts, describeMount(m))
		if m.Type != "bind" {
			continue // a cache may be empty, and a secret is not to be known by its hash
		}
		sources, err := selectSources(r.Sources[i], "RUN --mount", []string{bindSource(m)}, false, true)
		if err != nil {
			return "", err
		}
		content, err := digestSources(w.Hasher, sources, exclusion{})
		if err != nil {
			return "", err
		}
		parts = append(parts, content)
	}
	return hashStrings(parts...), nil
}

func describeMount(m plan.Mount) string {
	number := func(n *uint64) string {
		if n == nil {
			return "-"
		}
		return fmt.Sprint(*n)
	}
	return fmt.Sprintf("%q %q %q %v %d %q %q %v %q %s %s %s", m.Type, m.Source, m.Target, m.ReadOnly, m.Size, m.ID,
		m.Sharing, m.Required, m.Env, number(m.Mode), number(m.UID), number(m.GID))
}

func bindSource(m plan.Mount) string {
	if m.Source == "" {
		return "/"
	}
	return m.Source
}

// Run runs the step over layers, lowest first, and makes a layer of what its process wrote.
func (w *Worker) Run(ctx context.Context, layers []oci.DiffID, r *Run) (oci.DiffID, error) {
	key := "build-" + newID()
	root, err := w.Layers.Prepare(ctx, key, layers)
	if err != nil {
		return "", fmt.Errorf("prepare layer: %w", err)
	}
	before, err := rootState(root.Upper)
	if err == nil {
		job := &runJob{Worker: w, run: r, files: tree.NewUnion(root.Lower), upper: root.Upper}
		job.spec = RunSpec{Rootfs: root}
		err = job.do(ctx)
	}
	if err != nil {
		return "", errors.Join(err, w.Layers.Remove(context.WithoutCancel(ctx), key))
	}
	return w.commit(ctx, key, root.Upper, before)
}

// runJob is one process of a RUN step.
type runJob struct {
	*Worker
	run   *Run
	files *tree.Union // the layers below
	upper string
	spec  RunSpec
	undo  []func() error
}

func (j *runJob) do(ctx context.Context) (err error) {
	defer func() {
		for _, undo := range slices.Backward(j.undo) {
			err = errors.Join(err, undo())
		}
	}()
	if err := j.fill(); err != nil {
		return err
	}
	for i, m := range j.run.Step.Mounts {
		if err := j.mount(ctx, m, j.run.Sources[i]); err != nil {
			return fmt.Errorf("mount %s: %w", m.Target, err)
		}
	}
	if j.run.Step.Script != "" {
		if err := j.script(); err != nil {
			return err
		}
	}
	stubs := j.stubs()
	if j.run.Started != nil {
		j.run.Started(j.spec.ID)
	}
	code, err := j.Runner.Run(ctx, j.spec, j.run.Stdout, j.run.Stderr)
	if err != nil {
		return err
	}
	if code != 0 {
		return &ExitError{Args: j.run.Step.Args, Code: code, Cause: fullDisk(j.upper)}
	}
	return j.removeStubs(stubs)
}

// fullDisk returns ENOSPC when nothing more can be written into a directory: what a process fails of then is
// mostly that.
func fullDisk(dir string) error {
	if space, err := sys.SpaceOf(dir); err == nil && space.Full() {
		return syscall.ENOSPC
	}
	return nil
}

// fill sets what the step says of its process.
func (j *runJob) fill() error {
	s := j.run.Step
	who, err := lookUp(j.files, s.User)
	if err != nil {
		return err
	}
	j.spec.ID = newID()
	j.spec.Args, j.spec.Cwd = s.Args, s.Dir
	j.spec.Env = slices.Concat(s.Env, s.Proxy)
	j.spec.UID, j.spec.GID, j.spec.Groups = who.uid, who.gid, who.groups
	if !hasVariable(j.spec.Env, "PATH") {
		j.spec.Env = append(j.spec.Env, "PATH="+plan.DefaultPath)
	}
	if !hasVariable(j.spec.Env, "HOME") {
		j.spec.Env = append(j.spec.Env, "HOME="+who.home)
	}
	j.spec.Network, j.spec.Insecure = s.Network, s.Insecure
	if s.Network == "" || s.Network == "default" {
		j.spec.Network = j.run.Network
	}
	j.spec.ExtraHosts, j.spec.Limits = j.run.ExtraHosts, j.run.Limits
	if e, err := tree.Stat(j.files, tree.Clean(s.Dir)); err == nil && e.IsDir() {
		return nil
	}
	return fillDraft(j.upper, j.spec.Rootfs.Lower, func(d *draft) error {
		_, err := d.directory(tree.Clean(s.Dir), owner{int(who.uid), int(who.gid)})
		return err
	})
}

func hasVariable(env []string, name string) bool {
	return slices.ContainsFunc(env, func(pair string) bool { return strings.HasPrefix(pair, name+"=") })
}

// script puts a here-document that is a program where the container finds it.
func (j *runJob) script() error {
	f, err := os.CreateTemp(j.TempDir(), "script-")
	if err != nil {
		return err
	}
	j.undo = append(j.undo, func() error { return os.Remove(f.Name()) })
	_, err = f.WriteString(j.run.Step.Script)
	if err = errors.Join(err, f.Chmod(0o755), f.Close()); err != nil {
		return fmt.Errorf("write script: %w", err)
	}
	j.bind(f.Name(), j.run.Step.Args[0], true)
	return nil
}

func (j *runJob) bind(source, target string, readOnly bool) {
	j.spec.Mounts = append(j.spec.Mounts, Mount{Type: MountBind, Source: source, Target: target, ReadOnly: readOnly})
}

// runtimeTargets are the mount points that a container needs, and that its runtime makes in the root
// file system when the image lacks them.
func runtimeTargets() []string {
	return []string{"/proc", "/sys", "/dev", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}
}

// stubs lists the paths that are missing in the image and that the runtime will make to mount on, each
// after the directories above it.
func (j *runJob) stubs() []string {
	targets := runtimeTargets()
	for _, m := range j.spec.Mounts {
		targets = append(targets, m.Target)
	}
	var missing []string
	for _, target := range targets {
		resolved, err := tree.Resolve(j.files, tree.Clean(target))
		if err != nil {
			continue
		}
		var above []string
		for at := resolved; at != "."; at = path.Dir(at) {
			if _, err := os.Lstat(filepath.Join(j.upper, at)); err == nil {
				break // made for the working directory: it is the step's
			}
			if _, err := j.files.Lstat(at); !errors.Is(err, fs.ErrNotExist) {
				break
			}
			above = append(above, at)
		}
		slices.Reverse(above)
		missing = append(missing, above...)
	}
	return missing
}

// removeStubs removes the mount points again, unless the step put something into them. Their names
// were resolved before the process ran; what it may have made of them since is not followed.
func (j *runJob) removeStubs(stubs []string) error {
	root, err := os.OpenRoot(j.upper)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, stub := range slices.Backward(stubs) {
		info, err := root.Lstat(stub)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if info.Mode().IsRegular() && info.Size() > 0 || !info.IsDir() && !info.Mode().IsRegular() {
			continue
		}
		parent, statErr := root.Stat(path.Dir(stub))
		if err := root.Remove(stub); err != nil && !errors.Is(err, syscall.ENOTEMPTY) {
			return err
		}
		if statErr == nil {
			root.Chtimes(path.Dir(stub), parent.ModTime(), parent.ModTime())
		}
	}
	return nil
}
