package engine

import (
	"archive/tar"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	pathrs "github.com/cyphar/filepath-securejoin/pathrs-lite"

	"davit/engine/container"
	"davit/oci/errdefs"
)

// extraction writes a tar archive below base in a root. Every entry's directory is looked up as a
// process in that root would find it, so no entry and no link leads outside.
type extraction struct {
	root         *os.File
	base         string
	owner        uint32 // the id on files of the container's id 0
	noOverwrite  bool
	everythingTo *container.User

	dirs []dirTime // set last: what is put into a directory changes its time
}

type dirTime struct {
	name string
	time time.Time
}

func (e *extraction) run(ctx context.Context, r io.Reader) error {
	entries := tar.NewReader(r)
	for {
		h, err := entries.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return errdefs.New(errdefs.ErrInvalid, "read archive: %w", err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := e.entry(h, entries); err != nil {
			return fmt.Errorf("extract %s: %w", h.Name, err)
		}
	}
	for _, d := range e.dirs {
		if dir, err := openInRoot(e.root, d.name); err == nil {
			err = os.Chtimes(procPath(dir), d.time, d.time)
			dir.Close()
			if err != nil {
				return fmt.Errorf("extract %s: %w", d.name, err)
			}
		}
	}
	return nil
}

func (e *extraction) entry(h *tar.Header, content io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	full := path.Join(e.base, path.Join("/", h.Name))
	if full == e.base {
		return nil // the directory itself is not the archive's to change
	}
	dir, err := e.parent(path.Dir(full))
	if err != nil {
		return err
	}
	defer dir.Close()
	root, err := os.OpenRoot(procPath(dir))
	if err != nil {
		return err
	}
	defer root.Close()
	name := path.Base(full)
	made, err := e.makeRoom(root, name, h)
	if err != nil {
		return err
	}
	if !made {
		if err := e.create(root, dir, name, h, content); err != nil {
			return err
		}
	}
	return e.attributes(dir, name, full, h)
}

// parent opens a directory, making what is missing of it.
func (e *extraction) parent(name string) (*os.File, error) {
	dir, err := openInRoot(e.root, name)
	if errors.Is(err, fs.ErrNotExist) {
		return pathrs.MkdirAllHandle(e.root, name, 0o755)
	}
	return dir, err
}

// makeRoom takes away what is in the way; true: a directory is there already and stays.
func (e *extraction) makeRoom(root *os.Root, name string, h *tar.Header) (bool, error) {
	info, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	wantsDir := h.Typeflag == tar.TypeDir
	switch {
	case info.IsDir() && wantsDir:
		return true, nil
	case e.noOverwrite && info.IsDir() != wantsDir && info.IsDir():
		return false, errdefs.Invalid("cannot overwrite directory \"%s\" with non-directory", h.Name)
	case e.noOverwrite && info.IsDir() != wantsDir:
		return false, errdefs.Invalid("cannot overwrite non-directory \"%s\" with directory", h.Name)
	}
	if info.Mode().IsRegular() && h.Typeflag == tar.TypeReg {
		return false, nil // it is replaced once the new content is there
	}
	return false, root.RemoveAll(name)
}

func (e *extraction) create(root *os.Root, dir *os.File, name string, h *tar.Header, content io.Reader) error {
	switch h.Typeflag {
	case tar.TypeDir:
		return root.Mkdir(name, 0o700)
	case tar.TypeReg:
		return createFile(root, name, content)
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, name)
	case tar.TypeLink:
		return e.link(dir, name, h.Linkname)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return syscall.Mknod(procPath(dir)+"/"+name, nodeMode(h), device(h))
	}
	return errdefs.Invalid("entry type %q is not supported", h.Typeflag)
}

// createFile makes a file, or replaces one, as a whole: while its content comes, and when there is no room
// for all of it, what had the name keeps it.
func createFile(root *os.Root, name string, content io.Reader) error {
	draft := ".davit-" + rand.Text()
	f, err := root.OpenFile(draft, os.O_CREATE|os.O_EXCL|os.O_WRONLY|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return unnamed(err)
	}
	_, err = io.Copy(f, content)
	if err = errors.Join(unnamed(err), f.Close()); err == nil {
		err = root.Rename(draft, name)
	}
	if err != nil {
		return errors.Join(err, root.Remove(draft))
	}
	return nil
}

// unnamed takes the name of a draft, which says nothing to anybody, off an error.
func unnamed(err error) error {
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		return p.Err
	}
	return err
}

// link makes a hard link to a file of the archive.
func (e *extraction) link(dir *os.File, name, target string) error {
	full := path.Join(e.base, path.Join("/", target))
	from, err := openInRoot(e.root, path.Dir(full))
	if err != nil {
		return err
	}
	defer from.Close()
	return os.Link(procPath(from)+"/"+path.Base(full), procPath(dir)+"/"+name)
}

func nodeMode(h *tar.Header) uint32 {
	kind := map[byte]uint32{tar.TypeChar: syscall.S_IFCHR, tar.TypeBlock: syscall.S_IFBLK, tar.TypeFifo: syscall.S_IFIFO}[h.Typeflag]
	return kind | 0o600
}

// device packs device numbers as mknod(2) takes them (makedev(3)).
func device(h *tar.Header) int {
	major, minor := uint64(h.Devmajor), uint64(h.Devminor)
	return int(major&0xfff<<8 | major&^0xfff<<32 | minor&0xff | minor&^0xff<<12)
}

// attributes sets owner, mode, capabilities and times, in the order in which they do not undo each
// other.
func (e *extraction) attributes(dir *os.File, name, full string, h *tar.Header) error {
	at := procPath(dir) + "/" + name
	uid, gid := uint32(h.Uid), uint32(h.Gid)
	if u := e.everythingTo; u != nil {
		uid, gid = u.UID, u.GID
	}
	if err := os.Lchown(at, int(e.owner+uid), int(e.owner+gid)); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeSymlink || h.Typeflag == tar.TypeLink {
		return nil
	}
	// What was just made is no link, and only the container itself could put one in its place: the mode
	// of a file inside it is all that it could change.
	f, err := openInRoot(e.root, full)
	if err != nil {
		return err
	}
	defer f.Close()
	at = procPath(f)
	if err := os.Chmod(at, h.FileInfo().Mode()); err != nil {
		return err
	}
	for key, value := range h.PAXRecords {
		if attr, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok && attr == "security.capability" {
			if err := syscall.Setxattr(at, attr, []byte(value), 0); err != nil {
				return err
			}
		}
	}
	if h.Typeflag == tar.TypeDir {
		e.dirs = append(e.dirs, dirTime{full, h.ModTime})
		return nil
	}
	return os.Chtimes(at, h.ModTime, h.ModTime)
}
