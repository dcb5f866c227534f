package op

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"davit/build/plan"
	"davit/build/tree"
	"davit/internal/diskusage"
	"davit/oci/errdefs"
)

// CacheMount is a directory of RUN --mount=type=cache:
//
//	<root>/cache-mounts/<name>/id       its id in the Dockerfile
//	<root>/cache-mounts/<name>/source   what steps see
type CacheMount struct {
	Name     string
	ID       string
	Bytes    int64 // that it takes on the disk
	LastUsed time.Time
}

// mountCache mounts a directory that stays from build to build.
func (j *runJob) mountCache(ctx context.Context, m plan.Mount, from tree.Tree) error {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q", m.ID, fromName(m.From), m.Source))
	name := hex.EncodeToString(sum[:16])
	name, err := j.holdCache(ctx, name, m.Sharing)
	if err != nil {
		return err
	}
	j.undo = append(j.undo, j.useCache(name))
	dir := filepath.Join(j.Root, "cache-mounts", name)
	if err := j.makeCache(dir, m, from); err != nil {
		return err
	}
	j.bind(filepath.Join(dir, "source"), m.Target, m.ReadOnly)
	return nil
}

// holdCache keeps other steps from a cache mount that is not shared: they wait, or, if it is private,
// take the next one with a number.
func (j *runJob) holdCache(ctx context.Context, name, sharing string) (string, error) {
	if sharing == "shared" {
		return name, nil
	}
	var release func()
	if sharing == "private" {
		first := name
		for n := 1; ; n++ {
			if release, _ = j.mounts.Try(name); release != nil {
				break
			}
			name = fmt.Sprintf("%s-%d", first, n)
		}
	} else {
		var err error
		if release, err = j.mounts.Lock(ctx, name); err != nil {
			return "", err
		}
	}
	j.undo = append(j.undo, func() error { release(); return nil })
	return name, nil
}

func fromName(r plan.Ref) string {
	if r.Stage != nil {
		return "stage " + r.Stage.Title()
	}
	return r.Image
}

// makeCache makes the directory of a cache mount, with its first content, if it is not there.
func (j *runJob) makeCache(dir string, m plan.Mount, from tree.Tree) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	fresh, err := os.MkdirTemp(j.TempDir(), "cache-")
	if err != nil {
		return err
	}
	err = os.WriteFile(filepath.Join(fresh, "id"), []byte(m.ID), 0o600)
	if err == nil {
		err = fillDraft(fresh, nil, func(d *draft) error { return startCache(d, m, from) })
	}
	if err == nil {
		if err = os.Rename(fresh, dir); errors.Is(err, os.ErrExist) {
			err = nil // another step was quicker
		}
	}
	return errors.Join(err, os.RemoveAll(fresh))
}

func startCache(d *draft, m plan.Mount, from tree.Tree) error {
	if from != nil && !m.From.IsZero() {
		e, err := tree.Stat(from, tree.Clean(bindSource(m)))
		if err != nil {
			return missing("RUN --mount", bindSource(m))
		}
		return copyTree(d, from, e, "source")
	}
	e := tree.Entry{Mode: os.ModeDir | 0o755}
	if m.Mode != nil {
		e.Mode = withBits(os.ModeDir, uint32(*m.Mode))
	}
	e.UID, e.GID = ids(m)
	_, err := d.putDirectory(d.root(), "source", e)
	return err
}

func ids(m plan.Mount) (uid, gid int) {
	if m.UID != nil {
		uid = int(*m.UID)
	}
	if m.GID != nil {
		gid = int(*m.GID)
	}
	return uid, gid
}

// CacheMounts lists the cache mounts and measures them.
func (w *Worker) CacheMounts(ctx context.Context) ([]CacheMount, error) {
	root := filepath.Join(w.Root, "cache-mounts")
	list, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("list cache mounts: %w", err)
	}
	var mounts []CacheMount
	for _, d := range list {
		m, err := measure(ctx, filepath.Join(root, d.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("measure cache mount %s: %w", d.Name(), err)
		}
		mounts = append(mounts, m)
	}
	return mounts, nil
}

func measure(ctx context.Context, dir string) (CacheMount, error) {
	id, err := os.ReadFile(filepath.Join(dir, "id"))
	if err != nil {
		return CacheMount{}, err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return CacheMount{}, err
	}
	m := CacheMount{Name: filepath.Base(dir), ID: string(id), LastUsed: info.ModTime()}
	u, err := diskusage.Of(ctx, dir)
	m.Bytes = u.Bytes
	return m, err
}

// RemoveCacheMount removes a cache mount with its content, when no step is using it.
func (w *Worker) RemoveCacheMount(_ context.Context, name string) error {
	dir := filepath.Join(w.Root, "cache-mounts", name)
	if name == "" || filepath.Base(name) != name || name == ".." || name == "." {
		return errdefs.NotFound("no such cache mount: %s", name)
	}
	w.cacheUse.Lock()
	defer w.cacheUse.Unlock()
	if w.cacheUsers[name] > 0 {
		return errdefs.Conflict("cache mount %s is in use", name)
	}
	// Out of its place first, so that a step that comes now makes a new one.
	gone, err := os.MkdirTemp(w.TempDir(), "gone-")
	if errdefs.NoSpace(err) {
		return os.RemoveAll(dir) // here and now: no step can begin to use it meanwhile
	}
	if err != nil {
		return err
	}
	if err := os.Rename(dir, filepath.Join(gone, "cache")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, os.RemoveAll(gone))
	}
	return os.RemoveAll(gone)
}

// useCache notes that a step uses a cache mount; undo ends that.
func (w *Worker) useCache(name string) (undo func() error) {
	w.cacheUse.Lock()
	defer w.cacheUse.Unlock()
	w.cacheUsers[name]++
	return func() error {
		w.cacheUse.Lock()
		defer w.cacheUse.Unlock()
		w.cacheUsers[name]--
		now := time.Now()
		return os.Chtimes(filepath.Join(w.Root, "cache-mounts", name), now, now)
	}
}
