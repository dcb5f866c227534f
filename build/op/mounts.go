package op

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"davit/build/plan"
	"davit/build/tree"
	"davit/oci/errdefs"
)

// mount adds one mount of the step to the container.
func (j *runJob) mount(ctx context.Context, m plan.Mount, from tree.Tree) error {
	switch m.Type {
	case "bind":
		return j.mountBind(m, from)
	case "cache":
		return j.mountCache(ctx, m, from)
	case "tmpfs":
		j.spec.Mounts = append(j.spec.Mounts, Mount{Type: MountTmpfs, Target: m.Target, Size: m.Size})
		return nil
	case "secret":
		return j.mountSecret(ctx, m)
	case "ssh":
		if m.Required {
			return errdefs.NotImplemented("RUN --mount=type=ssh: no agent is forwarded to this build")
		}
		return nil
	}
	return errdefs.Invalid("unsupported mount type %q", m.Type)
}

// mountBind shows files of the context, a stage or an image. A directory that one layer alone holds is
// mounted as it is; anything else, and what the step may write to, is copied first, and the copy is
// thrown away after the step.
func (j *runJob) mountBind(m plan.Mount, from tree.Tree) error {
	e, err := tree.Stat(from, tree.Clean(bindSource(m)))
	if err != nil {
		return missing("RUN --mount", bindSource(m))
	}
	if union, ok := from.(*tree.Union); ok && m.ReadOnly {
		if real, whole, err := union.Real(e.Path); err == nil && whole {
			j.bind(real, m.Target, true)
			return nil
		}
	}
	dir, err := j.copyOut(from, e)
	if err != nil {
		return err
	}
	j.bind(filepath.Join(dir, "source"), m.Target, m.ReadOnly)
	return nil
}

// copyOut copies an entry with everything below it to "source" in a temporary directory.
func (j *runJob) copyOut(from tree.Tree, e tree.Entry) (string, error) {
	dir, err := os.MkdirTemp(j.TempDir(), "mount-")
	if err != nil {
		return "", err
	}
	j.undo = append(j.undo, func() error { return os.RemoveAll(dir) })
	return dir, fillDraft(dir, nil, func(d *draft) error { return copyTree(d, from, e, "source") })
}

// copyTree copies an entry into the root of the draft under a new name. Files of a context become
// root's.
func copyTree(d *draft, from tree.Tree, e tree.Entry, name string) error {
	_, own := from.(*tree.Union)
	s := source{tree: from, entry: e, name: name, contents: e.IsDir(), under: ".", own: own}
	p := &placement{dest: name}
	if !e.IsDir() {
		return p.placeFile(d, s)
	}
	at, err := d.enter(d.root(), name, owner{})
	if err != nil {
		return err
	}
	if e.Path != "." {
		if err := d.describe(at.real, p.entry(s, e)); err != nil {
			return err
		}
	}
	return p.fill(d, s, at)
}

// mountSecret gives the step a secret as a file in memory, or in a variable.
func (j *runJob) mountSecret(ctx context.Context, m plan.Mount) error {
	var content []byte
	err := error(errdefs.NotFound("no secrets were given"))
	if j.run.Secrets != nil {
		content, err = j.run.Secrets(ctx, m.ID)
	}
	if errors.Is(err, errdefs.ErrNotFound) && !m.Required {
		return nil
	}
	if err != nil {
		return fmt.Errorf("secret %s: %w", m.ID, err)
	}
	if m.Env != "" {
		j.spec.Env = append(j.spec.Env, m.Env+"="+string(content))
	}
	if m.Target == "" {
		return nil
	}
	real := filepath.Join(j.RunRoot, "secret-"+newID())
	j.undo = append(j.undo, func() error { return os.Remove(real) })
	if err := os.WriteFile(real, content, 0o400); err != nil {
		return err
	}
	mode := os.FileMode(0o400)
	if m.Mode != nil {
		mode = withBits(0, uint32(*m.Mode))
	}
	uid, gid := ids(m)
	if err := errors.Join(os.Chown(real, uid, gid), os.Chmod(real, mode)); err != nil {
		return err
	}
	j.bind(real, m.Target, true)
	return nil
}
