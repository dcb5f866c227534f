package layer

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"strings"
	"syscall"

	"davit/internal/fileattr"
	"davit/kernel/sys"
	"davit/oci/errdefs"
)

const (
	whiteoutPrefix = ".wh."
	whiteoutMeta   = ".wh..wh."
	whiteoutOpaque = ".wh..wh..opq"
)

// archive reads a tar archive, hashing every byte and recording in the recipe those that are not the
// content of a file.
type archive struct {
	r       io.Reader
	hash    hash.Hash
	recipe  *recipeWriter
	content bool // what is read now is the content of a file that the recipe refers to
	n       int64
}

func (a *archive) Read(p []byte) (int, error) {
	n, err := a.r.Read(p)
	a.hash.Write(p[:n])
	a.n += int64(n)
	if !a.content {
		a.recipe.addRaw(p[:n])
	}
	return n, err
}

// extractor turns one tar archive into the directory of a layer.
type extractor struct {
	ctx    context.Context
	src    *archive
	tar    *tar.Reader
	below  *view // the parents, when they are at hand
	root   *node
	fds    *dirFDs
	extra  int // descriptor of the directory extra/
	buf    []byte
	record record // displaced files, size and root are filled in

	// leaning says that the archive does not stand alone: what came out depends on the parents, or
	// would have.
	leaning bool

	lastPath string // of the directory that dir returned last
	lastDir  *node
}

// run extracts the archive to its end.
func (x *extractor) run() error {
	for {
		if err := x.ctx.Err(); err != nil {
			return err
		}
		header, err := x.tar.Next()
		if err == io.EOF {
			break
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) { // names are checked here
			return errdefs.As(errdefs.ErrInvalid, fmt.Errorf("read tar: %w", err))
		}
		if err := x.entry(header); err != nil {
			return fmt.Errorf("unpack %q: %w", header.Name, err)
		}
	}
	if _, err := io.Copy(io.Discard, x.src); err != nil { // padding after the end mark
		return fmt.Errorf("read tar: %w", err)
	}
	return x.finish()
}

// entry makes what one header describes.
func (x *extractor) entry(h *tar.Header) error {
	if !isFileType(h.Typeflag) {
		return nil // global headers, volume labels: nothing on disk, all in the recipe
	}
	name, err := cleanName(h.Name)
	if err != nil {
		return err
	}
	if name == "." {
		return x.rootEntry(h)
	}
	parentPath, base := path.Split(name)
	if strings.HasPrefix(parentPath, whiteoutPrefix) || strings.Contains(parentPath, "/"+whiteoutPrefix) {
		return errdefs.Invalid("a whiteout cannot be a directory")
	}
	parent, err := x.dir(parentPath)
	if errors.Is(err, errNotDirectory) && strings.HasPrefix(base, whiteoutPrefix) {
		return nil // what it was in is no directory any more: it hides all there was
	}
	if err != nil {
		return err
	}
	switch {
	case base == whiteoutOpaque:
		parent.opaque = true
		return nil
	case strings.HasPrefix(base, whiteoutMeta):
		return nil // aufs's own
	case strings.HasPrefix(base, whiteoutPrefix):
		return x.whiteout(parent, strings.TrimPrefix(base, whiteoutPrefix))
	case isWhiteoutDevice(h):
		return x.whiteout(parent, base)
	}
	return x.file(h, parent, base)
}

func isFileType(flag byte) bool {
	switch flag {
	case tar.TypeReg, tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeDir,
		tar.TypeFifo, tar.TypeCont, tar.TypeGNUSparse, 0:
		return true
	}
	return false
}

// isWhiteoutDevice recognises overlayfs's form of a whiteout. As a device it would be one anyway.
func isWhiteoutDevice(h *tar.Header) bool {
	return h.Typeflag == tar.TypeChar && h.Devmajor == 0 && h.Devminor == 0
}

// rootEntry takes the attributes of the layer's root directory.
func (x *extractor) rootEntry(h *tar.Header) error {
	if h.Typeflag != tar.TypeDir {
		return errdefs.Invalid("the root of a layer must be a directory")
	}
	attr, err := headerAttributes(h)
	if err != nil {
		return err
	}
	x.root.attr = attr
	x.record.Root = true
	return nil
}

// whiteout hides the name in the layers below. What this layer itself has there stays; a directory then
// is opaque.
func (x *extractor) whiteout(parent *node, name string) error {
	if name == "" || name == "." || name == ".." {
		return errdefs.Invalid("whiteout of %q", name)
	}
	if existing := parent.children[name]; existing != nil {
		if existing.kind == kindDir {
			existing.opaque = true
		}
		return nil
	}
	fd, err := x.fds.get(parent)
	if err != nil {
		return err
	}
	if err := sys.Mknodat(fd, name, syscall.S_IFCHR, 0); err != nil {
		return fmt.Errorf("make whiteout: %w", err)
	}
	parent.children[name] = &node{name: name, parent: parent, kind: kindWhiteout}
	return nil
}

// file makes the file, link, directory or device of a header.
func (x *extractor) file(h *tar.Header, parent *node, name string) error {
	attr, err := headerAttributes(h)
	if err != nil {
		return err
	}
	if h.Typeflag == tar.TypeLink {
		return x.hardLink(h, parent, name)
	}
	reuse, overWhiteout, err := x.makeRoom(parent, name, h.Typeflag == tar.TypeDir)
	if err != nil {
		return err
	}
	if reuse != nil {
		reuse.attr = attr
		return nil
	}
	fd, err := x.fds.get(parent)
	if err != nil {
		return err
	}
	n := &node{name: name, parent: parent, kind: kindOther}
	switch h.Typeflag {
	case tar.TypeDir:
		n = newDir(parent, name)
		n.attr, n.opaque = attr, overWhiteout
		err = sys.Mkdirat(fd, name, 0o700)
	case tar.TypeSymlink:
		n.kind, n.target = kindSymlink, h.Linkname
		err = makeSymlink(fd, name, h.Linkname, attr)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		err = makeSpecial(fd, name, h, attr)
	default:
		n.kind = kindFile
		err = x.regular(fd, n, h, attr)
	}
	if err == nil {
		parent.children[name] = n
	}
	return err
}

// makeRoom prepares for a new entry where there may be an older one, which it replaces. A directory
// that comes twice is returned for reuse.
func (x *extractor) makeRoom(parent *node, name string, isDir bool) (reuse *node, overWhiteout bool, err error) {
	existing := parent.children[name]
	if existing == nil {
		return nil, false, nil
	}
	if existing.kind == kindDir && isDir {
		return existing, false, nil
	}
	fd, err := x.fds.get(parent)
	if err != nil {
		return nil, false, err
	}
	delete(parent.children, name)
	x.lastDir = nil
	switch existing.kind {
	case kindDir, kindFile:
		return nil, false, x.displace(fd, existing)
	}
	if err := sys.Unlinkat(fd, name, 0); err != nil {
		return nil, false, fmt.Errorf("replace: %w", err)
	}
	return nil, existing.kind == kindWhiteout, nil
}

// displace moves a replaced file or directory to extra/, because the recipe refers to its content.
func (x *extractor) displace(parentFD int, n *node) error {
	d := displaced{Payloads: x.src.recipe.payloads, Path: n.path(), Extra: len(x.record.Displaced)}
	if err := sys.Renameat(parentFD, n.name, x.extra, d.extraName()); err != nil {
		return fmt.Errorf("replace: %w", err)
	}
	x.fds.reset()
	x.record.Displaced = append(x.record.Displaced, d)
	return nil
}

// regular writes a file's content and attributes.
func (x *extractor) regular(parentFD int, n *node, h *tar.Header, attr *fileattr.Attr) error {
	fd, err := sys.Openat(parentFD, n.name, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), n.name)
	if isSparse(h) {
		// The archive holds the file's parts and a map of them, which stay in the recipe.
		err = x.copySparse(f, h.Size)
	} else if h.Size > 0 {
		x.src.recipe.addFile(n.path(), h.Size)
		x.src.content = true
		_, err = io.CopyBuffer(onlyWriter{f}, onlyReader{x.tar}, x.buf)
		x.src.content = false
	}
	x.record.Size += h.Size
	if err == nil {
		err = attr.Set(fd)
	}
	return errors.Join(err, f.Close())
}

// onlyWriter and onlyReader hide methods by which io.CopyBuffer would go around its buffer.
type (
	onlyWriter struct{ io.Writer }
	onlyReader struct{ io.Reader }
)

// isSparse says whether an entry's content in the archive is not simply the file's content.
func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// copySparse writes an entry's content and leaves holes where it is zero. An archive of a few bytes can
// ask for any size: the file system has to agree first.
func (x *extractor) copySparse(f *os.File, size int64) error {
	if err := f.Truncate(size); err != nil {
		return err
	}
	for at := int64(0); ; {
		if err := x.ctx.Err(); err != nil {
			return err
		}
		n, err := fill(x.tar, x.buf)
		if n > 0 && !isZero(x.buf[:n]) {
			if err := writeParts(f, x.buf[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// writeParts writes the blocks of p that are not zero.
func writeParts(f *os.File, p []byte, at int64) error {
	const block = 4096
	for ; len(p) > 0; at += block {
		part := p[:min(block, len(p))]
		p = p[len(part):]
		if isZero(part) {
			continue
		}
		if _, err := f.WriteAt(part, at); err != nil {
			return err
		}
	}
	return nil
}

func isZero(p []byte) bool {
	return len(p) == 0 || p[0] == 0 && bytes.Equal(p[:len(p)-1], p[1:])
}

// finish sets what has to wait until a directory is complete: its attributes (a default ACL or a set-gid
// bit would pass to files made in it, and every file made changes its time) and its being opaque.
func (x *extractor) finish() error {
	return x.root.walkDirs(func(n *node) error {
		if n.opaque && n.parent != nil {
			if err := x.dropWhiteouts(n); err != nil {
				return err
			}
		}
		attr := n.attr
		if attr == nil {
			attr = impliedAttributes()
		}
		fd, err := sys.OpenBeneath(x.fds.root, n.path(), syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
		if err != nil {
			return fmt.Errorf("finish directory %s: %w", n.path(), err)
		}
		defer syscall.Close(fd)
		if n.opaque && n.parent != nil {
			if err := sys.Fsetxattr(fd, opaqueXattr, []byte("y")); err != nil {
				return fmt.Errorf("make %s opaque: %w", n.path(), err)
			}
		}
		if err := attr.Set(fd); err != nil {
			return fmt.Errorf("finish directory %s: %w", n.path(), err)
		}
		return nil
	})
}

// impliedAttributes are those of a directory that only occurs in other entries' names.
func impliedAttributes() *fileattr.Attr { return &fileattr.Attr{Mode: 0o755} }

// dropWhiteouts removes the whiteouts in an opaque directory: there is nothing to hide, and readdir
// in a directory that overlayfs need not merge would show them.
func (x *extractor) dropWhiteouts(opaque *node) error {
	return opaque.walkDirs(func(n *node) error {
		for name, child := range n.children {
			if child.kind != kindWhiteout {
				continue
			}
			fd, err := x.fds.get(n)
			if err != nil {
				return err
			}
			if err := sys.Unlinkat(fd, name, 0); err != nil {
				return fmt.Errorf("drop whiteout %s: %w", child.path(), err)
			}
			delete(n.children, name)
		}
		return nil
	})
}

// newArchive prepares reading r.
func newArchive(r io.Reader, h hash.Hash, recipe *recipeWriter) *archive {
	if _, ahead := r.(*readAhead); !ahead { // reading a header at a time is dear otherwise
		r = bufio.NewReaderSize(r, 128<<10)
	}
	return &archive{r: r, hash: h, recipe: recipe}
}
