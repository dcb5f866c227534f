package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"syscall"

	"davit/kernel/sys"
	"davit/oci"
	"davit/oci/errdefs"
)

// Archive is a layer's tar archive as a file to be read at any place. Unlike Tar it verifies nothing. It may
// be used by several goroutines.
type Archive struct {
	root  int      // descriptor of the layer's directory
	raw   *os.File // what of the archive is not the content of files; it has no name
	parts []part
	size  int64

	mu   sync.Mutex
	path string // of the file that was read last
	file *os.File
}

// part is a stretch of an archive.
type part struct {
	at, size int64  // in the archive
	raw      int64  // offset in the raw file, when path is empty
	path     string // below the layer's directory
}

// Archive opens the archive of the topmost of layers. The layer should be under a lease until Close.
func (s *Store) Archive(ctx context.Context, layers ...oci.DiffID) (*Archive, error) {
	r, err := s.need(layers)
	if err != nil {
		return nil, err
	}
	a, err := openArchive(ctx, filepath.Join(s.root, r.dir()), filepath.Join(s.root, "tmp"), r.Displaced)
	if err != nil {
		return nil, fmt.Errorf("open archive of layer %s: %w", r.DiffID, err)
	}
	return a, nil
}

func openArchive(ctx context.Context, dir, tmp string, moved []displaced) (_ *Archive, err error) {
	a := &Archive{root: -1}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Close())
		}
	}()
	if a.raw, err = os.CreateTemp(tmp, "raw-"); err != nil {
		return nil, err
	}
	if err := os.Remove(a.raw.Name()); err != nil {
		return nil, err
	}
	if a.root, err = sys.Openat(-1, dir, sys.OPath|syscall.O_DIRECTORY, 0); err != nil {
		return nil, err
	}
	recipe, err := openRecipe(filepath.Join(dir, "recipe.zst"))
	if err != nil {
		return nil, err
	}
	defer recipe.close()
	return a, a.index(ctx, recipe, moved)
}

// index learns from the recipe where each byte of the archive is.
func (a *Archive) index(ctx context.Context, recipe *recipeReader, moved []displaced) error {
	var raw int64
	for payloads := 0; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		kind, n, path, err := recipe.next()
		if err != nil {
			return err
		}
		p := part{at: a.size, size: n}
		switch kind {
		case recipeEnd:
			return nil
		case recipeRaw:
			p.raw = raw
			raw += n
			if _, err := io.CopyN(a.raw, recipe.r, n); err != nil {
				return err
			}
		case recipeFile:
			p.path = locate(path, payloads, moved)
			payloads++
		}
		a.parts = append(a.parts, p)
		a.size += n
	}
}

// Size returns the bytes of the archive.
func (a *Archive) Size() int64 { return a.size }

// ReadAt implements io.ReaderAt. A file that is not as long as it was is errdefs.ErrDataLoss.
func (a *Archive) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errdefs.Invalid("read at %d", off)
	}
	i := sort.Search(len(a.parts), func(i int) bool { return a.parts[i].at+a.parts[i].size > off })
	for ; n < len(p) && i < len(a.parts); i++ {
		part := a.parts[i]
		skip := off + int64(n) - part.at
		want := p[n:min(int64(len(p)), int64(n)+part.size-skip)]
		if part.path == "" {
			_, err = a.raw.ReadAt(want, part.raw+skip)
		} else {
			err = a.readFile(want, part.path, skip)
		}
		if err != nil {
			return n, fmt.Errorf("read archive of layer: %w", err)
		}
		n += len(want)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// readFile fills p from a file of the layer; the file stays open for the next read.
func (a *Archive) readFile(p []byte, path string, at int64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file == nil || a.path != path {
		if a.file != nil {
			a.file.Close()
			a.file = nil
		}
		fd, err := sys.OpenBeneath(a.root, path, syscall.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			return errdefs.As(errdefs.ErrDataLoss, fmt.Errorf("open %s: %w", path, err))
		}
		a.path, a.file = path, os.NewFile(uintptr(fd), path)
	}
	if _, err := a.file.ReadAt(p, at); err != nil {
		return errdefs.As(errdefs.ErrDataLoss, unexpected(err))
	}
	return nil
}

// Close closes the archive.
func (a *Archive) Close() error {
	var err error
	if a.file != nil {
		err = a.file.Close()
	}
	if a.raw != nil {
		err = errors.Join(err, a.raw.Close())
	}
	if a.root >= 0 {
		err = errors.Join(err, syscall.Close(a.root))
	}
	a.file, a.raw, a.root = nil, nil, -1
	return err
}
