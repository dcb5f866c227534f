package files

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"davit/oci/errdefs"
	"davit/store/layer"
)

// Kind is what a file is, by the letter that ls shows.
type Kind byte

// The kinds. A Hardlink is one whose target is not in the same layer; others look like their target.
const (
	Regular  Kind = '-'
	Dir      Kind = 'd'
	Symlink  Kind = 'l'
	Hardlink Kind = 'h'
	Char     Kind = 'c'
	Block    Kind = 'b'
	Fifo     Kind = 'p'
)

// File is one file as a layer describes it.
type File struct {
	Name     string // the last element of its path
	Target   string // what a link points to, the numbers of a device
	Size     int64  // bytes
	UID, GID int
	Mode     uint32 // permissions with the setuid, setgid and sticky bits: at most 07777
	Kind     Kind
	Implied  bool     // a directory that the layer has files in, and says nothing of
	Sum      [16]byte // of content and extended attributes: the first half of a SHA-256
}

// Index lists the files of one layer. It does not change and may be shared.
type Index struct {
	dirs map[string]*directory // by cleaned path, "" for the root
	cost int64                 // roughly the bytes of memory it takes
}

// directory is what one layer has in a directory.
type directory struct {
	files  []File   // by name
	hidden []string // names of lower layers that whiteouts remove, sorted
	opaque bool     // nothing of lower layers shows
}

// Limits bound what reading one layer may take.
type Limits struct {
	Entries int   // files and directories
	Memory  int64 // bytes of the Index, roughly
}

const (
	whiteoutPrefix = ".wh."
	opaqueMarker   = ".wh..wh..opq"
	longestPath    = 4096 // bytes: Linux opens nothing longer (PATH_MAX)
	entryCost      = 96   // bytes of a File without its strings
	directoryCost  = 160
)

// reader makes an Index.
type reader struct {
	index   *Index
	limits  Limits
	entries int
	links   []link
}

// link is a hard link, which the archive describes by its target alone.
type link struct{ at, target string }

// Read indexes a layer: a tar archive, compressed or not. It fails with ErrExhausted when the layer passes
// the limits, with ErrInvalid when it is no archive, and when ctx ends.
func Read(ctx context.Context, blob io.Reader, limits Limits) (*Index, error) {
	plain, _, err := layer.Decompress(blob)
	if err != nil {
		return nil, errdefs.As(errdefs.ErrInvalid, err)
	}
	x := &reader{index: &Index{dirs: map[string]*directory{"": {}}, cost: directoryCost}, limits: limits}
	err = x.archive(ctx, tar.NewReader(plain))
	if err = errors.Join(err, plain.Close()); err != nil {
		return nil, err
	}
	x.finish()
	return x.index, nil
}

func (x *reader) archive(ctx context.Context, archive *tar.Reader) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return errdefs.Invalid("read layer: %w", err)
		}
		if err := x.entry(ctx, h, archive); err != nil {
			return err
		}
	}
}

func (x *reader) entry(ctx context.Context, h *tar.Header, content io.Reader) error {
	name := clean(h.Name)
	if name == "" || len(name) > longestPath {
		return nil // the root itself; or what no file system can hold
	}
	parent, base := split(name)
	dir, err := x.ensure(parent)
	if err != nil {
		return err
	}
	if err := x.spend(entryCost + len(base) + len(h.Linkname)); err != nil {
		return err
	}
	switch {
	case base == opaqueMarker:
		dir.opaque = true
		return nil
	case strings.HasPrefix(base, whiteoutPrefix):
		dir.hidden = append(dir.hidden, strings.Clone(strings.TrimPrefix(base, whiteoutPrefix)))
		return nil
	case h.Typeflag == tar.TypeChar && h.Devmajor == 0 && h.Devminor == 0: // overlayfs' form of a whiteout
		dir.hidden = append(dir.hidden, strings.Clone(base))
		return nil
	}
	return x.file(ctx, h, dir, name, content)
}

func (x *reader) file(ctx context.Context, h *tar.Header, dir *directory, name string, content io.Reader) error {
	_, base := split(name)
	f := File{Name: strings.Clone(base), Kind: kindOf(h.Typeflag), UID: h.Uid, GID: h.Gid, Mode: uint32(h.Mode) & 0o7777}
	switch f.Kind {
	case 0:
		return nil // headers that are no files
	case Dir:
		if x.index.dirs[name] == nil {
			if err := x.spend(directoryCost + len(name)); err != nil {
				return err
			}
			x.index.dirs[strings.Clone(name)] = &directory{}
		}
	case Symlink:
		f.Target = h.Linkname
	case Hardlink:
		f.Target = "/" + clean(h.Linkname)
		x.links = append(x.links, link{strings.Clone(name), clean(h.Linkname)})
	case Char, Block:
		f.Target = fmt.Sprintf("%d, %d", h.Devmajor, h.Devminor)
	case Regular:
		f.Size = h.Size
	}
	sum, err := fingerprint(ctx, h, content)
	if err != nil {
		return err
	}
	f.Sum = sum
	dir.files = append(dir.files, f)
	return nil
}

func kindOf(flag byte) Kind {
	switch flag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse, 0:
		return Regular
	case tar.TypeDir:
		return Dir
	case tar.TypeSymlink:
		return Symlink
	case tar.TypeLink:
		return Hardlink
	case tar.TypeChar:
		return Char
	case tar.TypeBlock:
		return Block
	case tar.TypeFifo:
		return Fifo
	}
	return 0
}

// fingerprint hashes content and extended attributes.
func fingerprint(ctx context.Context, h *tar.Header, content io.Reader) (sum [16]byte, err error) {
	hash := sha256.New()
	if _, err := io.Copy(hash, interruptible{ctx, content}); err != nil {
		if ctx.Err() != nil {
			return sum, ctx.Err()
		}
		return sum, errdefs.Invalid("read layer: %w", err)
	}
	for _, key := range slices.Sorted(maps.Keys(h.PAXRecords)) {
		if strings.HasPrefix(key, "SCHILY.xattr.") {
			fmt.Fprintf(hash, "\x00%s\x00%s", key, h.PAXRecords[key])
		}
	}
	copy(sum[:], hash.Sum(nil))
	return sum, nil
}

// interruptible ends reading with its context: one file may have terabytes of compressed zeros.
type interruptible struct {
	ctx context.Context
	r   io.Reader
}

func (i interruptible) Read(p []byte) (int, error) {
	if err := i.ctx.Err(); err != nil {
		return 0, err
	}
	return i.r.Read(p)
}

// ensure returns the directory of a path and makes those that the archive only implies.
func (x *reader) ensure(name string) (*directory, error) {
	if dir := x.index.dirs[name]; dir != nil {
		return dir, nil
	}
	above, _ := split(name)
	parent, err := x.ensure(above)
	if err != nil {
		return nil, err
	}
	if err := x.spend(entryCost + directoryCost + len(name)); err != nil {
		return nil, err
	}
	name = strings.Clone(name)
	_, base := split(name)
	parent.files = append(parent.files, File{Name: base, Kind: Dir, Mode: 0o755, Implied: true})
	dir := &directory{}
	x.index.dirs[name] = dir
	return dir, nil
}

func (x *reader) spend(cost int) error {
	x.entries++
	x.index.cost += int64(cost)
	if x.entries > x.limits.Entries {
		return errdefs.New(errdefs.ErrExhausted, "the layer has more than %d files", x.limits.Entries)
	}
	if x.index.cost > x.limits.Memory {
		return errdefs.New(errdefs.ErrExhausted, "the list of the layer's files is larger than %d MiB", x.limits.Memory>>20)
	}
	return nil
}

// finish sorts; of several entries of one name the last one counts, as when unpacking.
func (x *reader) finish() {
	for _, dir := range x.index.dirs {
		slices.Sort(dir.hidden)
		slices.SortStableFunc(dir.files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
		kept := dir.files[:0]
		for i, f := range dir.files {
			if i+1 == len(dir.files) || dir.files[i+1].Name != f.Name {
				kept = append(kept, f)
			}
		}
		dir.files = slices.Clip(kept)
	}
	for _, l := range x.links {
		at, target := x.index.file(l.at), x.index.file(l.target)
		if at != nil && at.Kind == Hardlink && target != nil && target.Kind != Dir && target.Kind != Hardlink {
			name, to := at.Name, at.Target
			*at = *target
			at.Name = name
			if at.Kind == Regular {
				at.Target = to
			}
		}
	}
}

func (i *Index) file(name string) *File {
	parent, base := split(name)
	dir := i.dirs[parent]
	if dir == nil {
		return nil
	}
	if at, ok := dir.find(base); ok {
		return &dir.files[at]
	}
	return nil
}

func (d *directory) find(name string) (int, bool) {
	return slices.BinarySearchFunc(d.files, name, func(f File, name string) int { return strings.Compare(f.Name, name) })
}

func (d *directory) hides(name string) bool {
	_, found := slices.BinarySearch(d.hidden, name)
	return found
}

// clean returns a path as it is inside a root: without leading slash, "." or "..".
func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// split cuts off the last element.
func split(name string) (parent, base string) {
	i := strings.LastIndexByte(name, '/')
	return name[:max(i, 0)], name[i+1:]
}

func join(parent, base string) string {
	if parent == "" {
		return base
	}
	return parent + "/" + base
}
