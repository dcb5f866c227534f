package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"davit/internal/fileattr"
	"davit/kernel/sys"
	"davit/oci/errdefs"
)

// Pack writes the OCI layer tar of an overlay upper directory: entries sorted by name, parents first,
// numeric owners, times to the nanosecond, hard links, xattrs (PAX SCHILY.xattr), no access times. The
// same directory gives the same bytes. Whiteouts become .wh.name entries, opaque directories a
// .wh..wh..opq entry; overlayfs's own xattrs are left out. Sockets have no form in a tar and are left
// out too. The root directory has an entry unless it is 0755, owned by 0:0 and without xattrs. A
// directory that overlayfs made with redirect_dir or metacopy does not hold its content and is refused
// (errdefs.ErrInvalid), as is a file whose name begins with .wh.
//
// Of a plain directory without whiteouts it writes the tar of its files. Files that vanish meanwhile are
// left out; one that shrinks while it is read is an error.
func Pack(ctx context.Context, w io.Writer, upper string) error {
	return packWithout(ctx, w, upper, nil)
}

// packWithout is Pack that leaves out the entries at some paths, written "/etc/hosts", and all below them.
func packWithout(ctx context.Context, w io.Writer, upper string, omit map[string]bool) error {
	if _, err := pack(ctx, &sink{w: w}, upper, omit); err != nil {
		return fmt.Errorf("pack %s: %w", upper, err)
	}
	return nil
}

// sink takes an archive that is being written, and records in the recipe, when there is one, the bytes
// that are not the content of a file.
type sink struct {
	w       io.Writer
	recipe  *recipeWriter
	content bool
	n       int64
}

func (s *sink) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.n += int64(n)
	if s.recipe != nil && !s.content {
		s.recipe.addRaw(p[:n])
	}
	return n, err
}

// packer writes the archive of one directory.
type packer struct {
	ctx   context.Context
	out   *sink
	tar   *tar.Writer
	links map[inode]string // the first name of files with several
	buf   []byte
	size  int64 // of all regular files
	omit  map[string]bool
}

type inode struct{ dev, ino uint64 }

// pack returns the sum of the sizes of the regular files.
func pack(ctx context.Context, out *sink, dir string, omit map[string]bool) (int64, error) {
	fd, err := syscall.Open(dir, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	p := &packer{ctx: ctx, out: out, tar: tar.NewWriter(out), links: map[inode]string{}, buf: make([]byte, 256<<10), omit: omit}
	if err := errors.Join(p.root(fd), p.directory(fd, "")); err != nil { // directory closes fd
		return 0, err
	}
	return p.size, p.tar.Close()
}

// root writes an entry of the root directory where it is not as directories are by default.
func (p *packer) root(fd int) error {
	e, err := examine(fd, ".")
	if err != nil {
		return err
	}
	if e.plainRoot() {
		return nil
	}
	return p.tar.WriteHeader(e.header("./"))
}

// plainRoot says whether a root directory needs no entry.
func (e *examined) plainRoot() bool {
	return e.stat.Mode&0o7777 == 0o755 && e.stat.Uid == 0 && e.stat.Gid == 0 && len(e.xattrs) == 0
}

// directory writes what is in the directory fd, which it closes. prefix is its path and a slash.
func (p *packer) directory(fd int, prefix string) error {
	d := os.NewFile(uintptr(fd), prefix)
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if err := p.ctx.Err(); err != nil {
			return err
		}
		if p.omit["/"+prefix+name] {
			continue
		}
		err := p.entry(fd, prefix, name)
		if errors.Is(err, errVanished) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", prefix+name, err)
		}
	}
	return nil
}

// entry writes one name of the directory fd, with everything below it.
func (p *packer) entry(fd int, prefix, name string) error {
	if strings.HasPrefix(name, whiteoutPrefix) {
		return errdefs.Invalid("a name that begins with %s cannot be in a layer", whiteoutPrefix)
	}
	e, err := examine(fd, name)
	if err != nil {
		return err
	}
	switch kind := e.stat.Mode & syscall.S_IFMT; {
	case isWhiteout(e.stat):
		return p.mark(prefix + whiteoutPrefix + name)
	case kind == syscall.S_IFDIR:
		return p.subdirectory(fd, name, e, prefix+name+"/")
	case kind == syscall.S_IFSOCK:
		return nil
	case e.stat.Nlink > 1:
		id := inode{e.stat.Dev, e.stat.Ino}
		if first, ok := p.links[id]; ok {
			h := e.header(prefix + name)
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			return p.tar.WriteHeader(h)
		}
		p.links[id] = prefix + name
	}
	if e.stat.Mode&syscall.S_IFMT == syscall.S_IFREG {
		return p.file(fd, name, e, prefix+name)
	}
	return p.special(fd, name, e, prefix+name)
}

// mark writes an empty file that stands for a deletion.
func (p *packer) mark(path string) error {
	return p.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: path, ModTime: time.Unix(0, 0)})
}

func (p *packer) subdirectory(fd int, name string, e *examined, path string) error {
	sub, err := sys.OpenBeneath(fd, name, syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return vanished(err)
	}
	err = p.tar.WriteHeader(e.header(path))
	if err == nil && e.opaque {
		err = p.mark(path + whiteoutOpaque)
	}
	if err != nil {
		return errors.Join(err, syscall.Close(sub))
	}
	return p.directory(sub, path)
}

func (p *packer) file(dirfd int, name string, e *examined, path string) error {
	fd, err := sys.OpenBeneath(dirfd, name, syscall.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return vanished(err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if err := p.tar.WriteHeader(e.header(path)); err != nil {
		return err
	}
	p.size += e.stat.Size
	if e.stat.Size == 0 {
		return nil
	}
	if p.out.recipe != nil {
		p.out.recipe.addFile(path, e.stat.Size)
	}
	p.out.content = true
	defer func() { p.out.content = false }()
	n, err := io.CopyBuffer(onlyWriter{p.tar}, onlyReader{io.LimitReader(f, e.stat.Size)}, p.buf)
	if err == nil && n < e.stat.Size {
		err = fmt.Errorf("the file shrank while it was read: %w", io.ErrUnexpectedEOF)
	}
	return err
}

// special writes a symbolic link, a device or a fifo.
func (p *packer) special(dirfd int, name string, e *examined, path string) error {
	h := e.header(path)
	switch e.stat.Mode & syscall.S_IFMT {
	case syscall.S_IFLNK:
		target, err := sys.Readlinkat(dirfd, name)
		if err != nil {
			return vanished(err)
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, target
	case syscall.S_IFCHR:
		h.Typeflag = tar.TypeChar
	case syscall.S_IFBLK:
		h.Typeflag = tar.TypeBlock
	case syscall.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	default:
		return errdefs.Invalid("file of unknown type %#o", e.stat.Mode)
	}
	if h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock {
		h.Devmajor, h.Devminor = int64(sys.Major(e.stat.Rdev)), int64(sys.Minor(e.stat.Rdev))
	}
	return p.tar.WriteHeader(h)
}

// examined is what the file system says of one name in an upper directory.
type examined struct {
	stat   syscall.Stat_t
	xattrs map[string]string // without overlayfs's own
	opaque bool
}

// errVanished says that a file was deleted while its directory was read.
var errVanished = errors.New("file vanished")

// vanished gives the error of a file that is no longer there its name.
func vanished(err error) error {
	if errors.Is(err, syscall.ENOENT) {
		return errVanished
	}
	return err
}

func examine(dirfd int, name string) (*examined, error) {
	st, err := sys.Fstatat(dirfd, name)
	if err != nil {
		return nil, vanished(err)
	}
	e := &examined{stat: st}
	if isWhiteout(st) || st.Mode&syscall.S_IFMT == syscall.S_IFSOCK {
		return e, nil
	}
	names, err := sys.Listxattrat(dirfd, name)
	if err != nil {
		return nil, vanished(err)
	}
	for _, key := range names {
		value, err := sys.Getxattrat(dirfd, name, key)
		if errors.Is(err, syscall.ENODATA) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, vanished(err)
		}
		if err := e.xattr(key, string(value)); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// xattr takes one xattr, or understands what overlayfs says by it.
func (e *examined) xattr(key, value string) error {
	own, ok := strings.CutPrefix(key, fileattr.OverlayXattrs)
	if !ok {
		if e.xattrs == nil {
			e.xattrs = map[string]string{}
		}
		e.xattrs[key] = value
		return nil
	}
	switch {
	case own == "redirect", own == "metacopy", own == "whiteout", own == "opaque" && value != "y":
		return errdefs.Invalid("overlayfs kept it by %s, which says that its content is elsewhere; layers are mounted without redirect_dir and metacopy", key)
	case own == "opaque":
		e.opaque = true
	}
	return nil
}

// header returns the entry of a file or directory; the caller completes that of other types.
func (e *examined) header(path string) *tar.Header {
	h := &tar.Header{
		Typeflag: tar.TypeReg, Name: path, Size: e.stat.Size, Mode: int64(e.stat.Mode & 0o7777),
		Uid: int(e.stat.Uid), Gid: int(e.stat.Gid), ModTime: time.Unix(e.stat.Mtim.Sec, e.stat.Mtim.Nsec),
	}
	switch e.stat.Mode & syscall.S_IFMT {
	case syscall.S_IFREG:
	case syscall.S_IFDIR:
		h.Typeflag, h.Size = tar.TypeDir, 0
	default:
		h.Size = 0
	}
	if e.stat.Mtim.Nsec != 0 {
		h.Format = tar.FormatPAX // the only one that has them
	}
	for key, value := range e.xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[xattrRecord+key] = value
	}
	return h
}

// packHashed packs a directory for its digest and recipe alone.
func packHashed(ctx context.Context, dir string, h hash.Hash, recipe *recipeWriter) (size, tarSize int64, err error) {
	out := &sink{w: h, recipe: recipe}
	size, err = pack(ctx, out, dir, nil)
	return size, out.n, err
}
