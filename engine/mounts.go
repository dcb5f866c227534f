package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"

	"davit/engine/container"
	"davit/oci/errdefs"
	"davit/store/volume"
)

// volumesFor finds or makes what the container's mounts come from, and fills new volumes with what the
// image has at their place.
func (c *Containers) volumesFor(ctx context.Context, r *container.Record, u *undo) error {
	root := &lazyRoot{shared: c.shared, id: r.ID}
	defer root.close()
	for i := range r.Mounts {
		m := &r.Mounts[i]
		var err error
		switch m.Type {
		case mount.TypeBind:
			err = bindSource(m)
		case mount.TypeVolume:
			err = c.volumeFor(ctx, r, m, u, root)
		case mount.TypeImage:
			err = c.imageMount(ctx, r, m, u)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// bindSource checks that the path of a bind mount is there; -v makes a missing directory.
func bindSource(m *container.Mount) error {
	_, err := os.Stat(m.Source)
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return errdefs.New(errdefs.ErrInvalid, "invalid mount config for type \"bind\": %w", err)
	case !m.CreateSource:
		return errdefs.Invalid("invalid mount config for type \"bind\": bind source path does not exist: %s", m.Source)
	}
	if err := os.MkdirAll(m.Source, 0o755); err != nil {
		return errdefs.New(errdefs.ErrInvalid, "error while creating mount source path '%s': %w", m.Source, err)
	}
	return nil
}

func (c *Containers) volumeFor(ctx context.Context, r *container.Record, m *container.Mount, u *undo, root *lazyRoot) error {
	if m.Source != "" {
		return nil // inherited by --volumes-from, complete
	}
	_, err := c.Options.Volumes.Get(ctx, m.Name)
	isNew := m.Name == "" || err != nil
	v, err := c.Options.Volumes.Create(ctx, m.Name, m.Driver, m.VolumeOptions, m.VolumeLabels)
	if err != nil {
		return err
	}
	m.Name, m.Source = v.Name, v.Path
	if isNew {
		c.bus.Publish(events.VolumeEventType, events.ActionCreate, v.Name, map[string]string{"driver": "local"})
		u.add(func() {
			if err := c.Options.Volumes.Remove(context.Background(), v.Name, nil); err != nil {
				c.Log.Error("remove volume", "volume", v.Name, "error", err)
			}
		})
	}
	if _, mounted := v.Mount(); m.NoCopy || mounted || !empty(v.Path) {
		return nil
	}
	return c.copyUp(ctx, r, m, v, root)
}

// copyUp copies what the image has at a mount's destination into an empty volume.
func (c *Containers) copyUp(ctx context.Context, r *container.Record, m *container.Mount, v volume.Volume, root *lazyRoot) error {
	dir, err := root.open(ctx)
	if err != nil {
		return err
	}
	from, err := openInRoot(dir, m.Destination)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("copy into volume %s: %w", v.Name, err)
	}
	defer from.Close()
	info, err := from.Stat()
	if err != nil || !info.IsDir() {
		return err
	}
	return c.Options.Volumes.CopyUp(ctx, v.Name, procPath(from))
}

func procPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

func empty(dir string) bool {
	f, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer f.Close()
	names, _ := f.Readdirnames(1)
	return len(names) == 0
}

// lazyRoot is a container's root, mounted when it is first needed.
type lazyRoot struct {
	*shared
	id  string
	dir *os.File
}

func (l *lazyRoot) open(ctx context.Context) (*os.File, error) {
	if l.dir != nil {
		return l.dir, nil
	}
	root, err := l.Snapshots.Rootfs(l.id)
	if err != nil {
		return nil, err
	}
	l.dir, err = l.Host.MountRoot(ctx, root, true)
	return l.dir, err
}

func (l *lazyRoot) close() {
	if l.dir != nil {
		l.dir.Close()
	}
}

// imageMount prepares the root of another image as a directory to bind: that of its topmost layer when
// it has one only, and otherwise a view.
func (c *Containers) imageMount(ctx context.Context, r *container.Record, m *container.Mount, u *undo) error {
	img, err := c.Options.Images.Resolve(ctx, m.Name, nil)
	if err != nil {
		return noSuchImage(m.Name)
	}
	if len(img.Layers) != 1 {
		return errdefs.NotImplemented("mount of image %s: only images of one layer can be mounted", m.Name)
	}
	dir, err := c.Layers.Dir(img.Layers...)
	if err != nil {
		return err
	}
	m.Source = filepath.Join(dir, filepath.FromSlash(strings.TrimPrefix(m.Subpath, "/")))
	return nil
}
