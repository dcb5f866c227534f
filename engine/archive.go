package engine

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"davit/engine/container"
	"davit/oci/errdefs"
	"davit/store/layer"
)

// Archives reads and writes containers' files, as tar archives.
type Archives struct{ *shared }

// reach finds a container and opens its files, to write to them or to read only.
func (x *Archives) reach(ctx context.Context, name, file string, write bool) (*container.Record, *filesystem, error) {
	a, err := x.roster.find(name)
	if err != nil {
		return nil, nil, err
	}
	if file == "" {
		return nil, nil, errdefs.Invalid("bad parameter: missing path")
	}
	r := a.record()
	f, err := x.open(ctx, r, file, write)
	return r, f, err
}

// Stat describes a path in a container; a link is described itself.
func (x *Archives) Stat(ctx context.Context, name, file string) (wire.PathStat, error) {
	_, f, err := x.reach(ctx, name, file, false)
	if err != nil {
		return wire.PathStat{}, err
	}
	defer f.release()
	return f.stat(name, file)
}

func (f *filesystem) stat(container, file string) (wire.PathStat, error) {
	parent, base, info, err := f.lookUp(file)
	if err != nil {
		if errors.Is(err, errdefs.ErrNotFound) {
			err = errdefs.NotFound("Could not find the file %s in container %s", file, container)
		}
		return wire.PathStat{}, err
	}
	defer parent.Close()
	s := wire.PathStat{Name: path.Base(path.Join("/", file)), Size: info.Size(), Mode: info.Mode(), Mtime: info.ModTime()}
	if info.Mode()&fs.ModeSymlink != 0 {
		s.LinkTarget = f.target(parent, base, file)
	}
	return s, nil
}

// target is where a link leads, as a path in the container.
func (f *filesystem) target(parent *os.File, base, file string) string {
	root, err := os.OpenRoot(procPath(parent))
	if err != nil {
		return ""
	}
	defer root.Close()
	link, err := root.Readlink(base)
	if err != nil {
		return ""
	}
	if !path.IsAbs(link) {
		link = path.Join(path.Dir(path.Join("/", file)), link)
	}
	return path.Clean(link)
}

// Get returns a tar archive of a path in a container, rooted at its last part, and its description.
func (x *Archives) Get(ctx context.Context, name, file string) (wire.PathStat, io.ReadCloser, error) {
	r, f, err := x.reach(ctx, name, file, false)
	if err != nil {
		return wire.PathStat{}, nil, err
	}
	s, err := f.stat(name, file)
	if err != nil {
		f.release()
		return wire.PathStat{}, nil, err
	}
	parent, base, _, err := f.lookUp(file)
	if err != nil {
		f.release()
		return wire.PathStat{}, nil, err
	}
	as := s.Name
	if strings.HasSuffix(file, "/.") {
		as = "."
	}
	x.tell(r, events.ActionArchivePath, nil)
	return s, pipe(func(w io.Writer) error {
		defer f.release()
		defer parent.Close()
		return packTree(ctx, w, parent, base, as, f.owner)
	}), nil
}

// pipe turns a function that writes into a reader; closing the reader makes the writing fail.
func pipe(write func(io.Writer) error) io.ReadCloser {
	r, w := io.Pipe()
	go func() { w.CloseWithError(write(w)) }()
	return r
}

// Export returns the tar archive of a container's whole root, without its volumes.
func (x *Archives) Export(ctx context.Context, name string) (io.ReadCloser, error) {
	a, err := x.roster.find(name)
	if err != nil {
		return nil, err
	}
	r := a.record()
	root, err := x.Snapshots.Rootfs(r.ID)
	if err != nil {
		return nil, err
	}
	dir, err := x.Host.MountRoot(ctx, root, true)
	if err != nil {
		return nil, err
	}
	x.tell(r, events.ActionExport, nil)
	return pipe(func(w io.Writer) error {
		defer dir.Close()
		return packTree(ctx, w, dir, ".", "", 0) // names without "." before them
	}), nil
}

// PutOptions say how to extract.
type PutOptions struct {
	NoOverwrite bool // a directory does not replace a file, nor a file a directory
	CopyOwner   bool // everything belongs to the container's user
}

// Put extracts a tar archive, compressed or not, into a directory of a container.
func (x *Archives) Put(ctx context.Context, name, file string, tar io.Reader, o PutOptions) error {
	r, f, err := x.reach(ctx, name, file, true)
	if err != nil {
		return err
	}
	defer f.release()
	dir, err := openInRoot(f.dir, f.inside(file))
	if err != nil {
		return errdefs.NotFound("Could not find the file %s in container %s", file, name)
	}
	info, err := dir.Stat()
	dir.Close()
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return errdefs.Invalid("extraction point is not a directory")
	}
	if !f.RW {
		return errdefs.Forbidden("container rootfs is marked read-only")
	}
	plain, _, err := layer.Decompress(tar)
	if err != nil {
		return errdefs.As(errdefs.ErrInvalid, err)
	}
	defer plain.Close()
	e := extraction{root: f.dir, base: f.inside(file), owner: f.owner, noOverwrite: o.NoOverwrite}
	if o.CopyOwner {
		user, err := x.lookup(r, r.Config.User)
		if err != nil {
			return err
		}
		e.everythingTo = &user
	}
	if err := x.Host.AsOwner(f.owner, func() error { return e.run(ctx, plain) }); err != nil {
		if errors.Is(err, syscall.EROFS) {
			return errdefs.Forbidden("mounted volume is marked read-only")
		}
		return err
	}
	x.tell(r, events.ActionExtractToDir, nil)
	return nil
}
