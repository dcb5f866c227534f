// Package mount makes detached mounts: trees that are in no mount table yet, held by a descriptor, to
// be attached in a container's namespace by its init. Nothing here touches the host's mount table.
//
// With a user namespace the trees are idmapped: files keep their owners on disk, and the container sees
// them shifted into its own range.
package mount

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"davit/kernel/sys"
	"davit/oci/errdefs"
)

// Options change a copied tree.
type Options struct {
	Recursive        bool     // with the mounts below
	Set, Clear       uint64   // attributes of the tree's own mount, as mount_setattr(2) has them
	SetAll, ClearAll uint64   // attributes of all its mounts
	Propagation      uint64   // MS_PRIVATE and its kind, with MS_REC for all mounts; 0 leaves it
	UserNS           *os.File // map ids by this namespace; nil leaves them
	MapAll           bool     // also those of the mounts below
	MapIfPossible    bool     // what cannot be mapped is left unmapped: its files belong to nobody there
}

// Tree returns a detached copy of the mount at path. It follows links in path. When the file system
// there cannot be idmapped the error is ErrUnsupported and says so.
func Tree(path string, o Options) (*os.File, error) {
	tree, err := sys.CloneTree(nil, path, o.Recursive)
	if err != nil {
		return nil, fmt.Errorf("open mount source %s: %w", path, err)
	}
	if err := o.apply(tree); err != nil {
		tree.Close()
		return nil, fmt.Errorf("prepare mount of %s: %w", path, err)
	}
	return tree, nil
}

func (o Options) apply(tree *os.File) error {
	if o.UserNS != nil {
		if err := o.idmap(tree); err != nil {
			return err
		}
	}
	if p := o.Propagation &^ syscall.MS_REC; p != 0 {
		if err := sys.MountSetattr(tree, o.Propagation&syscall.MS_REC != 0, 0, 0, p, nil); err != nil {
			return fmt.Errorf("set propagation: %w", err)
		}
	}
	if o.SetAll|o.ClearAll != 0 {
		if err := sys.MountSetattr(tree, true, o.SetAll, o.ClearAll, 0, nil); err != nil {
			return fmt.Errorf("set attributes of all mounts: %w", err)
		}
	}
	if o.Set|o.Clear != 0 {
		if err := sys.MountSetattr(tree, false, o.Set, o.Clear, 0, nil); err != nil {
			return fmt.Errorf("set attributes: %w", err)
		}
	}
	return nil
}

// idmap maps the tree. If that may fail, what is below is given up first, then all of it: a device file,
// a socket on an odd file system or the host's root is of use unmapped too.
func (o Options) idmap(tree *os.File) error {
	err := idmap(tree, o.MapAll, o.UserNS)
	if !o.MapIfPossible || !errors.Is(err, errdefs.ErrUnsupported) {
		return err
	}
	if o.MapAll {
		err = idmap(tree, false, o.UserNS)
	}
	if errors.Is(err, errdefs.ErrUnsupported) {
		return nil
	}
	return err
}

func idmap(tree *os.File, all bool, userns *os.File) error {
	err := sys.MountSetattr(tree, all, sys.AttrIDMap, 0, 0, userns)
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOSYS) {
		return errdefs.New(errdefs.ErrUnsupported, "this file system cannot be idmapped: %w", err)
	}
	if err != nil {
		return fmt.Errorf("idmap: %w", err)
	}
	return nil
}
