package op

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"davit/build/tree"
	"davit/kernel/sys"
	"davit/oci/errdefs"
)

// whiteoutPrefix marks deletions in a layer's tar (image-spec, layer.md, "Whiteouts"); no file may
// have it in its name.
const whiteoutPrefix = ".wh."

// draft is a layer in the making: files are written into an overlay upper directory without mounting
// the overlay. A directory that the layers below have is made with the metadata that it has there.
type draft struct {
	upper string
	lower []string    // directories of the layers below, lowest first
	dirs  []made      // directories made or filled, whose times are set in the end
	links linkedFiles // files placed so far, for hard links
}

type made struct {
	real    string
	modTime time.Time
}

type linkedFiles map[tree.FileID]string

// place is a directory of the draft.
type place struct {
	name  string   // in the tree
	real  string   // where it is in the upper directory
	below []string // the same directory in the layers below, highest first; nil if it is new
}

// owner is who new files belong to.
type owner struct{ uid, gid int }

// newDraft begins to write into upper, which is empty and has its root's metadata.
func newDraft(upper string, lower []string) (*draft, error) {
	info, err := os.Stat(upper)
	if err != nil {
		return nil, fmt.Errorf("open layer: %w", err)
	}
	return &draft{upper: upper, lower: lower, links: linkedFiles{}, dirs: []made{{upper, info.ModTime()}}}, nil
}

// view is what overlayfs would show at this moment.
func (d *draft) view() *tree.Union {
	return tree.NewUnion(append(slices.Clone(d.lower), d.upper))
}

// root is the draft's root directory.
func (d *draft) root() place {
	below := slices.Clone(d.lower)
	slices.Reverse(below)
	return place{name: ".", real: d.upper, below: below}
}

// directory returns the directory to which name leads through symbolic links, making what is missing
// for the given owner.
func (d *draft) directory(name string, o owner) (place, error) {
	resolved, err := tree.Resolve(d.view(), name)
	if err != nil {
		return place{}, err
	}
	at := d.root()
	if resolved == "." {
		return at, nil
	}
	for element := range strings.SplitSeq(resolved, "/") {
		if at, err = d.enter(at, element, o); err != nil {
			return place{}, err
		}
	}
	return at, nil
}

// enter makes sure that the directory at has a subdirectory of that name.
func (d *draft) enter(at place, element string, o owner) (place, error) {
	next := place{name: tree.Join(at.name, element), real: at.real + "/" + element}
	real, parts, err := tree.Lookup(at.below, element)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return place{}, err
	}
	next.below = parts
	info, err := os.Lstat(next.real)
	switch {
	case err == nil && info.IsDir():
		return next, nil
	case err == nil, real != "" && parts == nil:
		return place{}, &fs.PathError{Op: "mkdir", Path: "/" + next.name, Err: syscall.ENOTDIR}
	case !errors.Is(err, fs.ErrNotExist):
		return place{}, err
	}
	if err := checkName(element); err != nil {
		return place{}, err
	}
	if err := os.Mkdir(next.real, 0o700); err != nil {
		return place{}, err
	}
	e := tree.Entry{Mode: fs.ModeDir | 0o755, UID: o.uid, GID: o.gid, ModTime: time.Now()}
	if real != "" {
		if e, err = tree.LayerEntry(next.name, real); err != nil {
			return place{}, err
		}
	}
	return next, d.describe(next.real, e)
}

func checkName(element string) error {
	if strings.HasPrefix(element, whiteoutPrefix) {
		return errdefs.Invalid("file name %q: names that begin with %q mark deletions in image layers", element, whiteoutPrefix)
	}
	return nil
}

// put places what e describes as name in the directory at; content is for a regular file. What is
// there already it replaces, except that a directory and a directory become one.
func (d *draft) put(at place, name string, e tree.Entry, content func() (io.ReadCloser, error)) error {
	if e.IsDir() {
		_, err := d.putDirectory(at, name, e)
		return err
	}
	if err := d.vacate(at, name); err != nil {
		return err
	}
	real := at.real + "/" + name
	if old, ok := d.links[e.File]; ok && e.File != (tree.FileID{}) {
		return os.Link(old, real)
	}
	if err := create(real, e, content); err != nil {
		return err
	}
	if e.Mode.IsRegular() && e.File != (tree.FileID{}) {
		d.links[e.File] = real
	}
	return d.describe(real, e)
}

// putDirectory places a directory, or gives the one that is there the metadata of e.
func (d *draft) putDirectory(at place, name string, e tree.Entry) (place, error) {
	next, err := d.merge(at, name, owner{e.UID, e.GID})
	if err != nil {
		return place{}, err
	}
	return next, d.describe(next.real, e)
}

// merge is enter that follows a symbolic link to a directory: an image's /lib -> usr/lib stays a link
// when a directory lib is copied over it.
func (d *draft) merge(at place, name string, o owner) (place, error) {
	e, err := d.view().Lstat(tree.Join(at.name, name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return d.enter(at, name, o)
	case err != nil:
		return place{}, err
	case e.IsDir():
		return d.enter(at, name, o)
	}
	if e.Mode.Type() == fs.ModeSymlink {
		if to, err := tree.Stat(d.view(), e.Path); err == nil && to.IsDir() {
			return d.directory(to.Path, o)
		}
	}
	return place{}, errdefs.Invalid("cannot copy to non-directory: /%s", e.Path)
}

// vacate makes room for something that is no directory.
func (d *draft) vacate(at place, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	_, parts, err := tree.Lookup(at.below, name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	info, err := os.Lstat(at.real + "/" + name)
	if err == nil && !info.IsDir() {
		return os.Remove(at.real + "/" + name)
	}
	if err == nil || parts != nil {
		return errdefs.Invalid("cannot replace directory /%s with a file", tree.Join(at.name, name))
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// create makes a file that is no directory.
func create(real string, e tree.Entry, content func() (io.ReadCloser, error)) error {
	device := tree.DeviceNumber(e.Major, e.Minor)
	switch e.Mode.Type() {
	case 0:
		return createRegular(real, content)
	case fs.ModeSymlink:
		return os.Symlink(e.Link, real)
	case fs.ModeNamedPipe:
		return mknod(real, syscall.S_IFIFO, 0)
	case fs.ModeDevice:
		return mknod(real, syscall.S_IFBLK, device)
	case fs.ModeDevice | fs.ModeCharDevice:
		if device == 0 {
			return errdefs.Invalid("character device 0/0 at %s: it means a deletion in overlayfs", e.Path)
		}
		return mknod(real, syscall.S_IFCHR, device)
	}
	return errdefs.Invalid("%s is of a kind (%s) that no layer holds", e.Path, e.Mode.Type())
}

func mknod(real string, kind uint32, device int) error {
	if err := syscall.Mknod(real, kind|0o600, device); err != nil {
		return &fs.PathError{Op: "mknod", Path: real, Err: err}
	}
	return nil
}

func createRegular(real string, content func() (io.ReadCloser, error)) (err error) {
	from, err := content()
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(real, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	if _, err := io.Copy(to, from); err != nil {
		return fmt.Errorf("copy to %s: %w", path.Base(real), err)
	}
	return nil
}

// describe gives the file real owner, mode, extended attributes and time of e. A directory's time is
// set in the end, because filling it changes it.
func (d *draft) describe(real string, e tree.Entry) error {
	if err := os.Lchown(real, e.UID, e.GID); err != nil {
		return err
	}
	if e.Mode.Type() != fs.ModeSymlink {
		if err := os.Chmod(real, e.Mode&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky)); err != nil {
			return err
		}
	}
	for name, value := range e.Xattrs {
		if err := syscall.Setxattr(real, name, []byte(value), 0); err != nil {
			return &fs.PathError{Op: "setxattr " + name, Path: real, Err: err}
		}
	}
	if e.IsDir() {
		d.dirs = append(d.dirs, made{real, e.ModTime})
		return nil
	}
	return sys.SetModTime(real, e.ModTime)
}

// finish sets the directories' times; of one described twice the last counts.
func (d *draft) finish() error {
	for _, dir := range d.dirs {
		if err := sys.SetModTime(dir.real, dir.modTime); err != nil {
			return err
		}
	}
	return nil
}
