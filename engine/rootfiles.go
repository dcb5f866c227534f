package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	pathrs "github.com/cyphar/filepath-securejoin/pathrs-lite"
	"github.com/moby/moby/api/types/mount"

	"davit/engine/container"
	"davit/oci/errdefs"
)

// oPath is O_PATH of open(2), which package syscall does not have.
const oPath = 0x200000

// openInRoot opens a path as a process whose root is dir would find it: links lead nowhere else,
// however the tree changes meanwhile. The file is open as with O_PATH.
func openInRoot(dir *os.File, name string) (*os.File, error) {
	return pathrs.OpenatInRoot(dir, name)
}

// filesystem is a container's file system, as the engine reaches it.
type filesystem struct {
	dir     *os.File // its root, or the root of the mount that a path lies in
	prefix  string   // where dir is in the container
	owner   uint32   // the id on files of the container's id 0
	RW      bool
	release func()
}

// open reaches a container's files: those of a running one through its first process, so that its
// mounts are there too; those of another from its layers, or for a path in a volume from that. Reading needs
// no place on the disk.
func (s *shared) open(ctx context.Context, r *container.Record, name string, write bool) (*filesystem, error) {
	rw := !r.HostConfig.ReadonlyRootfs
	if r.State.Status.Alive() {
		dir, err := os.OpenFile(procRoot(r.State.Pid), oPath|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("reach container's files: %w", err)
		}
		return &filesystem{dir: dir, prefix: "/", owner: r.UserNS.Base, RW: rw || within(r, name), release: func() { dir.Close() }}, nil
	}
	if m, ok := mountAt(r, name); ok {
		dir, err := os.OpenFile(m.Source, oPath|syscall.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("reach container's files: %w", err)
		}
		return &filesystem{dir: dir, prefix: m.Destination, RW: m.RW, release: func() { dir.Close() }}, nil
	}
	root, err := s.Snapshots.Rootfs(r.ID)
	if err != nil {
		return nil, err
	}
	dir, err := s.Host.MountRoot(ctx, root, !write)
	if err != nil {
		return nil, fmt.Errorf("reach container's files: %w", err)
	}
	return &filesystem{dir: dir, prefix: "/", RW: rw, release: func() { dir.Close() }}, nil
}

// mountAt returns the volume or bind mount that a path lies in.
func mountAt(r *container.Record, name string) (container.Mount, bool) {
	clean := path.Join("/", name)
	best := container.Mount{}
	for _, m := range r.Mounts {
		inside := clean == m.Destination || strings.HasPrefix(clean, m.Destination+"/")
		if m.Type != mount.TypeTmpfs && inside && len(m.Destination) > len(best.Destination) {
			best = m
		}
	}
	return best, best.Destination != ""
}

// within says whether a path lies in a mount that may be written to.
func within(r *container.Record, name string) bool {
	m, ok := mountAt(r, name)
	return ok && m.RW
}

// inside makes a path of the container relative to the file system's root.
func (f *filesystem) inside(name string) string {
	rest := strings.TrimPrefix(path.Join("/", name), f.prefix)
	return path.Join("/", rest)
}

// lookUp finds a path without following a link in its last part; its parent directory is open.
func (f *filesystem) lookUp(name string) (parent *os.File, base string, info fs.FileInfo, err error) {
	clean := f.inside(name)
	if clean == "/" {
		handle, err := openInRoot(f.dir, "/")
		if err != nil {
			return nil, "", nil, err
		}
		info, err := handle.Stat()
		return handle, ".", info, err
	}
	parent, err = openInRoot(f.dir, path.Dir(clean))
	if err != nil {
		return nil, "", nil, noSuchPath(name, err)
	}
	root, err := os.OpenRoot(procPath(parent))
	if err != nil {
		parent.Close()
		return nil, "", nil, noSuchPath(name, err)
	}
	defer root.Close()
	if info, err = root.Lstat(path.Base(clean)); err != nil {
		parent.Close()
		return nil, "", nil, noSuchPath(name, err)
	}
	if strings.HasSuffix(name, "/") && !info.IsDir() && info.Mode()&fs.ModeSymlink == 0 {
		parent.Close()
		return nil, "", nil, errdefs.Invalid("%s: not a directory", name)
	}
	return parent, path.Base(clean), info, nil
}

func noSuchPath(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return errdefs.NotFound("Could not find the file %s in container", name)
	}
	return err
}
