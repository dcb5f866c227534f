package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"syscall"

	"davit/internal/fileattr"
	"davit/kernel/sys"
	"davit/oci/errdefs"
)

// maxLinks is how many symbolic links one path may lead through (path_resolution(7)).
const maxLinks = 40

// dir returns the directory that a path leads to, with the layer's root as "/": symbolic links are
// followed and ".." stops there. Directories that are missing are made; see implied.
func (x *extractor) dir(p string) (*node, error) {
	if x.lastDir != nil && p == x.lastPath {
		return x.lastDir, nil
	}
	cur, links := x.root, 0
	for rest := p; rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		next, err := x.step(cur, name)
		if err != nil {
			return nil, err
		}
		if next.kind != kindSymlink {
			cur = next
			continue
		}
		if links++; links > maxLinks {
			return nil, errdefs.Invalid("%s: too many levels of symbolic links", p)
		}
		if strings.HasPrefix(next.target, "/") {
			cur = x.root
		}
		rest = next.target + "/" + rest
	}
	x.lastPath, x.lastDir = p, cur
	return cur, nil
}

// step goes from a directory to a name in it: a directory, or a symbolic link to follow.
func (x *extractor) step(cur *node, name string) (*node, error) {
	switch name {
	case "", ".":
		return cur, nil
	case "..":
		if cur.parent == nil {
			return cur, nil
		}
		return cur.parent, nil
	}
	child := cur.children[name]
	switch {
	case child == nil:
		return x.implied(cur, name)
	case child.kind == kindDir, child.kind == kindSymlink:
		return child, nil
	case child.kind == kindWhiteout:
		return x.impliedOverWhiteout(cur, name)
	}
	return nil, errdefs.New(errdefs.ErrInvalid, "%s: %w", child.path(), errNotDirectory)
}

// errNotDirectory says that something else is where a directory is needed.
var errNotDirectory = errors.New("not a directory")

// implied makes a directory that the archive names only as the parent of something. In an overlay it
// lies before a directory of that name below and would hide its owner and mode; or there is a symbolic
// link below that shall be followed. So the layer leans on its parents, whether they are known or not.
func (x *extractor) implied(cur *node, name string) (*node, error) {
	var attr *fileattr.Attr
	if !cur.hidesBelow() {
		x.leaning = true
		if x.below != nil {
			f, _, err := x.below.lookup(cur.join(name))
			if err != nil {
				return nil, err
			}
			switch f.stat.Mode & syscall.S_IFMT {
			case syscall.S_IFLNK: // one that is missing has no type at all
				target, err := sys.Readlinkat(f.fd, f.path)
				return &node{name: name, parent: cur, kind: kindSymlink, target: target}, err
			case syscall.S_IFDIR:
				if attr, err = fileattr.Of(f.fd, f.path, f.stat); err != nil {
					return nil, err
				}
			}
		}
	}
	return x.mkdir(cur, name, attr)
}

// impliedOverWhiteout makes the directory where a whiteout of the same archive was.
func (x *extractor) impliedOverWhiteout(cur *node, name string) (*node, error) {
	if _, _, err := x.makeRoom(cur, name, true); err != nil {
		return nil, err
	}
	n, err := x.mkdir(cur, name, nil)
	if err == nil {
		n.opaque = true
	}
	return n, err
}

func (x *extractor) mkdir(cur *node, name string, attr *fileattr.Attr) (*node, error) {
	n := newDir(cur, name)
	if len(n.path()) > maxPath {
		return nil, errdefs.Invalid("path of more than %d bytes cannot be opened", maxPath)
	}
	fd, err := x.fds.get(cur)
	if err != nil {
		return nil, err
	}
	if err := sys.Mkdirat(fd, name, 0o700); err != nil {
		return nil, fmt.Errorf("make directory %s: %w", n.path(), err)
	}
	n.attr = attr
	cur.children[name] = n
	return n, nil
}

// hardLink makes a second name for a file of this layer, or for one below, which then is copied up to
// its own place first, as overlayfs does. While the parents are not at hand, such a link is left out:
// the layer is going to be made once more, over them.
func (x *extractor) hardLink(h *tar.Header, parent *node, name string) error {
	link, err := cleanName(h.Linkname)
	if err != nil {
		return err
	}
	targetPath, targetName := path.Split(link)
	targetDir, err := x.dir(targetPath)
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", h.Linkname, err)
	}
	target := targetDir.children[targetName]
	if target == nil && !targetDir.hidesBelow() {
		x.leaning = true
		if x.below == nil {
			return nil
		}
		if target, err = x.copyUp(targetDir, targetName); err != nil {
			return fmt.Errorf("hard link to %q: %w", h.Linkname, err)
		}
	}
	if target == nil || target.kind == kindDir || target.kind == kindWhiteout {
		return errdefs.Invalid("hard link to %q, which is not a file of this image", h.Linkname)
	}
	if target == parent.children[name] {
		return nil
	}
	if _, _, err := x.makeRoom(parent, name, false); err != nil {
		return err
	}
	return x.link(target, parent, name)
}

// link makes name in parent a hard link to target.
func (x *extractor) link(target, parent *node, name string) error {
	targetFD, err := x.fds.get(target.parent)
	if err != nil {
		return err
	}
	if targetFD, err = syscall.Dup(targetFD); err != nil { // get's result lasts until the next call
		return err
	}
	defer syscall.Close(targetFD)
	fd, err := x.fds.get(parent)
	if err != nil {
		return err
	}
	if err := sys.Linkat(targetFD, target.name, fd, name); err != nil {
		return fmt.Errorf("hard link to %s: %w", target.path(), err)
	}
	parent.children[name] = &node{name: name, parent: parent, kind: target.kind, target: target.target}
	return nil
}

// copyUp copies a file of a lower layer into this one; nil when there is none.
func (x *extractor) copyUp(parent *node, name string) (*node, error) {
	f, ok, err := x.below.lookup(parent.join(name))
	if !ok || err != nil {
		return nil, err
	}
	attr, err := fileattr.Of(f.fd, f.path, f.stat)
	if err != nil {
		return nil, err
	}
	fd, err := x.fds.get(parent)
	if err != nil {
		return nil, err
	}
	n := &node{name: name, parent: parent}
	switch f.stat.Mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		n.kind, err = kindFile, x.copyContent(f, fd, name, attr)
	case syscall.S_IFLNK:
		n.kind = kindSymlink
		if n.target, err = sys.Readlinkat(f.fd, f.path); err == nil {
			err = makeSymlink(fd, name, n.target, attr)
		}
	default:
		return nil, errdefs.Invalid("%s is neither a regular file nor a symbolic link", n.path())
	}
	if err != nil {
		return nil, fmt.Errorf("copy up %s: %w", n.path(), err)
	}
	parent.children[name] = n
	return n, nil
}

func (x *extractor) copyContent(f found, dirfd int, name string, attr *fileattr.Attr) error {
	in, err := sys.OpenBeneath(f.fd, f.path, syscall.O_RDONLY, 0)
	if err != nil {
		return err
	}
	src := os.NewFile(uintptr(in), f.path)
	defer src.Close()
	out, err := sys.Openat(dirfd, name, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	dst := os.NewFile(uintptr(out), name)
	defer dst.Close()
	if _, err := io.Copy(dst, src); err != nil {
		return err
	}
	return attr.Set(out)
}
