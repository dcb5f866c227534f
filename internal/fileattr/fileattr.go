// Package fileattr carries a file's attributes, everything but type, name and content, from one file to
// another.
package fileattr

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"davit/kernel/sys"
)

// OverlayXattrs is the prefix of overlayfs's own xattrs. They describe a directory's place in one
// overlay and are never carried over.
const OverlayXattrs = "trusted.overlay."

// Attr are the attributes of a file.
type Attr struct {
	Mode   uint32 // permissions with set-uid, set-gid and sticky; of no meaning for a symbolic link
	UID    int
	GID    int
	Mtime  syscall.Timespec
	Xattrs map[string]string // POSIX ACLs and file capabilities among them
}

// Of reads the attributes of name in dirfd, whose stat is known.
func Of(dirfd int, name string, st syscall.Stat_t) (*Attr, error) {
	xattrs, err := readXattrs(dirfd, name)
	if err != nil {
		return nil, err
	}
	return &Attr{Mode: st.Mode & 0o7777, UID: int(st.Uid), GID: int(st.Gid), Mtime: st.Mtim, Xattrs: xattrs}, nil
}

func readXattrs(dirfd int, path string) (map[string]string, error) {
	names, err := sys.Listxattrat(dirfd, path)
	if err != nil {
		return nil, fmt.Errorf("list xattrs of %s: %w", path, err)
	}
	var xattrs map[string]string
	for _, name := range names {
		if strings.HasPrefix(name, OverlayXattrs) {
			continue
		}
		value, err := sys.Getxattrat(dirfd, path, name)
		if err != nil {
			return nil, fmt.Errorf("read xattr %s of %s: %w", name, path, err)
		}
		if xattrs == nil {
			xattrs = map[string]string{}
		}
		xattrs[name] = string(value)
	}
	return xattrs, nil
}

// Set gives the attributes to an open file that its owner, 0:0, has just made. The order is the one in
// which no step undoes another: chown clears set-uid bits and file capabilities.
func (a *Attr) Set(fd int) error {
	if a.UID != 0 || a.GID != 0 {
		if err := syscall.Fchown(fd, a.UID, a.GID); err != nil {
			return fmt.Errorf("chown: %w", err)
		}
	}
	if err := syscall.Fchmod(fd, a.Mode); err != nil {
		return fmt.Errorf("chmod: %w", err)
	}
	for name, value := range a.Xattrs {
		if err := tolerable(sys.Fsetxattr(fd, name, []byte(value))); err != nil {
			return fmt.Errorf("set xattr %s: %w", name, err)
		}
	}
	if err := sys.Utimensat(fd, "", a.Mtime, a.Mtime); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

// SetAt is Set for what is not opened: symbolic links (isLink), devices, fifos.
func (a *Attr) SetAt(dirfd int, name string, isLink bool) error {
	if a.UID != 0 || a.GID != 0 {
		if err := sys.Fchownat(dirfd, name, a.UID, a.GID); err != nil {
			return fmt.Errorf("chown: %w", err)
		}
	}
	if !isLink {
		if err := sys.Fchmodat(dirfd, name, a.Mode); err != nil {
			return fmt.Errorf("chmod: %w", err)
		}
	}
	for key, value := range a.Xattrs {
		if err := tolerable(sys.Setxattrat(dirfd, name, key, []byte(value))); err != nil {
			return fmt.Errorf("set xattr %s: %w", key, err)
		}
	}
	if err := sys.Utimensat(dirfd, name, a.Mtime, a.Mtime); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

// tolerable forgives xattrs that this file system or kind of file cannot have: user.* on a symbolic
// link, those of a security module that is not loaded.
func tolerable(err error) error {
	if errors.Is(err, syscall.ENOTSUP) || errors.Is(err, syscall.EPERM) {
		return nil
	}
	return err
}

// Copy gives the directory dst, made by 0:0, the attributes of the directory src.
func Copy(dst, src string) error {
	from, err := syscall.Open(src, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("copy attributes of %s: %w", src, err)
	}
	defer syscall.Close(from)
	var st syscall.Stat_t
	if err := syscall.Fstat(from, &st); err != nil {
		return fmt.Errorf("copy attributes of %s: %w", src, err)
	}
	attr, err := Of(from, ".", st)
	if err != nil {
		return fmt.Errorf("copy attributes of %s: %w", src, err)
	}
	to, err := syscall.Open(dst, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("copy attributes to %s: %w", dst, err)
	}
	defer syscall.Close(to)
	return attr.Set(to)
}
