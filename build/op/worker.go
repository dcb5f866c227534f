package op

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	"davit/build/tree"
	"davit/oci"
)

// Options are what a Worker works with.
type Options struct {
	Root       string // a directory of its own, durable: cache mounts, downloads
	RunRoot    string // a directory of its own, in memory: secrets
	Layers     Layers
	Runner     Runner
	Hasher     *tree.Hasher
	HTTP       *http.Client
	Decompress func(io.Reader) (io.ReadCloser, error) // any compression, recognised by its first bytes
}

// Worker carries out steps. Its methods are safe for concurrent use.
type Worker struct {
	Options
	mounts Locks // of cache mounts that are not shared

	cacheUse   sync.Mutex
	cacheUsers map[string]int // steps that use a cache mount now
}

// NewWorker returns a Worker, and makes its directories:
//
//	<root>/tmp/            downloads and copies of sources, for as long as a step runs
//	<root>/cache-mounts/   the directories of RUN --mount=type=cache
func NewWorker(o Options) (*Worker, error) {
	if err := os.RemoveAll(filepath.Join(o.Root, "tmp")); err != nil {
		return nil, fmt.Errorf("clean up after the last builder: %w", err)
	}
	for _, dir := range []string{filepath.Join(o.Root, "tmp"), filepath.Join(o.Root, "cache-mounts"), o.RunRoot} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	return &Worker{Options: o, cacheUsers: map[string]int{}}, nil
}

// TempDir is where files may lie while a build runs.
func (w *Worker) TempDir() string { return filepath.Join(w.Root, "tmp") }

// newID returns 64 random hexadecimal digits.
func newID() string {
	var b [32]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// write makes a layer over layers of what fill writes. If that is nothing there is no layer.
func (w *Worker) write(ctx context.Context, layers []oci.DiffID, fill func(*draft) error) (oci.DiffID, error) {
	key := "build-" + newID()
	root, err := w.Layers.Prepare(ctx, key, layers)
	if err != nil {
		return "", fmt.Errorf("prepare layer: %w", err)
	}
	before, err := rootState(root.Upper)
	if err == nil {
		err = fillDraft(root.Upper, root.Lower, fill)
	}
	if err != nil {
		return "", errors.Join(err, w.Layers.Remove(context.WithoutCancel(ctx), key))
	}
	return w.commit(ctx, key, root.Upper, before)
}

func fillDraft(upper string, lower []string, fill func(*draft) error) error {
	d, err := newDraft(upper, lower)
	if err != nil {
		return err
	}
	if err := fill(d); err != nil {
		return err
	}
	return d.finish()
}

// state is what a layer can change of its root directory.
type state struct {
	entry tree.Entry
	empty bool
}

func rootState(upper string) (state, error) {
	e, err := tree.LayerEntry(".", upper)
	if err != nil {
		return state{}, err
	}
	list, err := os.ReadDir(upper)
	return state{e, len(list) == 0}, err
}

// commit makes a layer of the snapshot, unless its upper directory is as empty as before.
func (w *Worker) commit(ctx context.Context, key, upper string, before state) (oci.DiffID, error) {
	after, err := rootState(upper)
	if err != nil {
		return "", errors.Join(err, w.Layers.Remove(context.WithoutCancel(ctx), key))
	}
	if after.empty && before.entry.Mode == after.entry.Mode && before.entry.UID == after.entry.UID && before.entry.GID == after.entry.GID {
		return "", w.Layers.Remove(ctx, key)
	}
	layer, err := w.Layers.Commit(ctx, key)
	if err != nil {
		return "", errors.Join(fmt.Errorf("commit layer: %w", err), w.Layers.Remove(context.WithoutCancel(ctx), key))
	}
	return layer, nil
}

// Tree returns the files of layers, lowest first.
func (w *Worker) Tree(ctx context.Context, layers []oci.DiffID) (*tree.Union, error) {
	if len(layers) == 0 {
		return tree.NewUnion(nil), nil
	}
	dirs, err := w.Layers.Dirs(ctx, layers)
	if err != nil {
		return nil, err
	}
	return tree.NewUnion(dirs), nil
}

// Workdir makes the directory dir for the user if it is missing.
func (w *Worker) Workdir(ctx context.Context, layers []oci.DiffID, dir, user string) (oci.DiffID, error) {
	files, err := w.Tree(ctx, layers)
	if err != nil {
		return "", err
	}
	if e, err := tree.Stat(files, tree.Clean(dir)); err == nil && e.IsDir() {
		return "", nil
	}
	who, err := lookUp(files, user)
	if err != nil {
		return "", err
	}
	return w.write(ctx, layers, func(d *draft) error {
		_, err := d.directory(tree.Clean(dir), owner{int(who.uid), int(who.gid)})
		return err
	})
}
