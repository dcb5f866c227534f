package layer

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"davit/kernel/sys"
	"davit/oci"
	"davit/oci/errdefs"
)

// Unpack makes a layer of an uncompressed tar archive, which it reads to its end, and verifies it
// against diffID; on any error nothing is left. Of a layer that is there, or that another goroutine is
// just unpacking, it reads nothing and returns nil once it is there.
//
// parents are the layers below, lowest first. Unpack needs them only when the layer does not stand
// alone, and then waits for them after reading the tar: start the layers of an image lowest first, and
// cancel ctx when one of them fails.
func (s *Store) Unpack(ctx context.Context, diffID oci.DiffID, parents []oci.DiffID, tar io.Reader) error {
	if _, err := oci.ParseDigest(string(diffID)); err != nil {
		return errdefs.As(errdefs.ErrInvalid, err)
	}
	if _, err := s.unpack(ctx, diffID, parents, tar); err != nil {
		return fmt.Errorf("unpack layer %s: %w", oci.Digest(diffID).Short(), err)
	}
	return nil
}

// Import is Unpack of a tar whose DiffID is not known before (docker import, commit).
func (s *Store) Import(ctx context.Context, parents []oci.DiffID, tar io.Reader) (oci.DiffID, error) {
	diffID, err := s.unpack(ctx, "", parents, tar)
	if err != nil {
		return "", fmt.Errorf("import layer: %w", err)
	}
	return diffID, nil
}

// unpack does the work of both; want is empty when the DiffID is to be found.
func (s *Store) unpack(ctx context.Context, want oci.DiffID, parents []oci.DiffID, r io.Reader) (oci.DiffID, error) {
	d, err := s.draftAlone(ctx, want, parents, r)
	if d == nil || err != nil {
		return want, err
	}
	if !d.Chained || d.sawParents {
		return d.DiffID, nil // in the store
	}
	defer d.discard()
	if err := s.await(ctx, parents); err != nil {
		return "", fmt.Errorf("wait for the layers below: %w", err)
	}
	return d.DiffID, s.unpackAgain(ctx, d, parents)
}

// draftAlone unpacks the archive without waiting for anything but a goroutine that has the same DiffID
// in hand. It installs the result, unless that leans on parents that are not there. Without an error
// and a draft the layer was in the store.
func (s *Store) draftAlone(ctx context.Context, want oci.DiffID, parents []oci.DiffID, r io.Reader) (*draft, error) {
	if want != "" {
		over, err := s.making.Take(ctx, want)
		if err != nil {
			return nil, err
		}
		defer over()
		if s.Has(append(parents[:len(parents):len(parents)], want)...) {
			return nil, nil
		}
	}
	below, err := s.viewOf(parents)
	if err != nil {
		return nil, err
	}
	if below != nil {
		defer below.close()
	}
	d, err := s.newDraft()
	if err != nil {
		return nil, err
	}
	if err := d.fill(ctx, want, parents, below, r); err != nil {
		return nil, errors.Join(err, d.discard())
	}
	if d.Chained && !d.sawParents {
		return d, nil
	}
	return d, d.install()
}

// unpackAgain plays the archive of a draft that leans on its parents into a new one, over them.
func (s *Store) unpackAgain(ctx context.Context, first *draft, parents []oci.DiffID) error {
	below, err := s.viewOf(parents)
	if err != nil {
		return err
	}
	if below == nil {
		return errdefs.Conflict("a layer below was deleted meanwhile")
	}
	defer below.close()
	pr, pw := io.Pipe()
	defer pr.Close() // ends the goroutine in any case
	go func() { pw.CloseWithError(replay(ctx, first.path, first.Displaced, pw)) }()
	d, err := s.newDraft()
	if err != nil {
		return err
	}
	if err := d.fill(ctx, first.DiffID, parents, below, pr); err != nil {
		return errors.Join(err, d.discard())
	}
	return d.install()
}

// viewOf returns the parents as one tree, or nil when they are not all there.
func (s *Store) viewOf(parents []oci.DiffID) (*view, error) {
	dirs, err := s.Dirs(parents...)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return openView(dirs)
}

// await returns when all parents are in the store.
func (s *Store) await(ctx context.Context, parents []oci.DiffID) error {
	for {
		s.mu.Lock()
		grown := s.grown
		s.mu.Unlock()
		_, err := s.Dirs(parents...)
		if !errors.Is(err, errdefs.ErrNotFound) {
			return err
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// draft is a layer that is being made, in a directory of its own below tmp/.
type draft struct {
	store *Store
	path  string
	record
	sawParents bool // it was made with its parents in view
}

func (s *Store) newDraft() (*draft, error) {
	path, err := os.MkdirTemp(filepath.Join(s.root, "tmp"), "layer-")
	if err != nil {
		return nil, err
	}
	d := &draft{store: s, path: path, record: record{Format: recordFormat, Boot: s.boot}}
	if err := os.Mkdir(filepath.Join(path, "extra"), 0o700); err != nil {
		return nil, errors.Join(err, d.discard())
	}
	return d, nil
}

// discard deletes the draft.
func (d *draft) discard() error { return d.store.trash.Put(d.path) }

// fill extracts the archive into the draft and verifies it.
func (d *draft) fill(ctx context.Context, want oci.DiffID, parents []oci.DiffID, below *view, r io.Reader) error {
	recipe, err := createRecipe(filepath.Join(d.path, "recipe.zst"))
	if err != nil {
		return err
	}
	algorithm := oci.Digest("sha256:")
	if want != "" {
		algorithm = oci.Digest(want)
	}
	src := newArchive(r, algorithm.Hash(), recipe)
	x, err := d.extract(ctx, src, below)
	if err != nil {
		recipe.abandon()
		return err
	}
	if err := recipe.close(); err != nil {
		return fmt.Errorf("write recipe: %w", err)
	}
	got := oci.DiffID(oci.SumDigest(algorithm.Algorithm(), src.hash))
	if want != "" && got != want {
		return errdefs.New(errdefs.ErrDataLoss, "its content has digest %s", got)
	}
	d.OpaqueRoot = x.root.opaque
	d.record.Displaced, d.Root, d.Size = x.record.Displaced, x.record.Root, x.record.Size
	d.DiffID, d.TarSize = got, src.n
	d.Chained, d.sawParents = x.leaning, below != nil
	if d.Chained {
		d.Parents = parents
	}
	return nil
}

// extract runs an extractor over the draft's directories.
func (d *draft) extract(ctx context.Context, src *archive, below *view) (*extractor, error) {
	if err := os.Mkdir(filepath.Join(d.path, "fs"), 0o700); err != nil {
		return nil, err
	}
	root, err := sys.Openat(-1, filepath.Join(d.path, "fs"), sys.OPath|syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer syscall.Close(root)
	extra, err := sys.Openat(-1, filepath.Join(d.path, "extra"), sys.OPath|syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer syscall.Close(extra)
	x := &extractor{
		ctx: ctx, src: src, tar: tar.NewReader(src), below: below, root: newDir(nil, ""),
		fds: newDirFDs(root), extra: extra, buf: make([]byte, 256<<10),
	}
	defer x.fds.reset()
	return x, x.run()
}

// install gives the draft its name. A layer of that name that came first stays, and the draft goes.
func (d *draft) install() error {
	if len(d.record.Displaced) == 0 {
		_ = os.Remove(filepath.Join(d.path, "extra")) // an empty directory does no harm
	}
	b, err := json.Marshal(d.record)
	if err == nil {
		err = os.WriteFile(filepath.Join(d.path, "layer.json"), b, 0o600)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write layer.json: %w", err), d.discard())
	}
	dir := d.dir()
	d.store.leases.Touch(dir)
	came, err := d.store.enter(dir, d)
	if err != nil || !came {
		return errors.Join(err, d.discard())
	}
	d.store.syncer.add(dir)
	return nil
}

// enter renames a finished draft into place and tells who waits; came is false when the layer was there.
func (s *Store) enter(dir string, d *draft) (came bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.layers[dir]; ok {
		return false, nil
	}
	to := filepath.Join(s.root, dir)
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return false, err
	}
	if err := os.Rename(d.path, to); err != nil {
		return false, err
	}
	s.layers[dir] = d.record
	close(s.grown)
	s.grown = make(chan struct{})
	return true, nil
}
