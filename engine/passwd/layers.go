package passwd

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"davit/oci/rootfs"
)

const (
	// maxFile is the most that is read of a file, in bytes.
	maxFile = 4 << 20
	// maxLinks is how many symbolic links a path may lead through, as in path_resolution(7).
	maxLinks = 40
)

// Read returns the content of a regular file as the root's processes see it, nil when there is none.
// Symbolic links are followed within the root. Nothing outside the root's directories is opened,
// whatever the files in it are and however they change meanwhile.
func Read(root rootfs.Rootfs, name string) ([]byte, error) {
	dirs := directories(root)
	pending, done := split(name), []string(nil)
	for links := 0; len(pending) > 0; {
		next := pending[0]
		pending = pending[1:]
		if next == ".." {
			done = done[:max(0, len(done)-1)]
			continue
		}
		found, err := find(dirs, append(slices.Clone(done), next))
		if err != nil || found.layer == "" {
			return nil, err
		}
		switch {
		case found.link != "":
			if links++; links > maxLinks {
				return nil, fmt.Errorf("read %s: %w", name, syscall.ELOOP)
			}
			if path.IsAbs(found.link) {
				done = nil
			}
			pending = append(split(found.link), pending...)
		case len(pending) == 0:
			return readRegular(found, name)
		default:
			done = append(done, next)
		}
	}
	return nil, nil
}

func split(name string) []string {
	return slices.DeleteFunc(strings.Split(name, "/"), func(s string) bool { return s == "" || s == "." })
}

// directories returns what an overlay is made of, topmost first.
func directories(root rootfs.Rootfs) []string {
	if root.Dir != "" {
		return []string{root.Dir}
	}
	dirs := slices.Clone(root.Lower)
	if root.Upper != "" {
		dirs = append(dirs, root.Upper)
	}
	slices.Reverse(dirs)
	return dirs
}

// place is where a path was found: in which layer, and its target when it is a link.
type place struct {
	layer, name, link string
	regular           bool
}

// find looks for a path without links in the layers as overlayfs would: the topmost wins, a whiteout
// or something other than a directory on the way hides what is below, and so does an opaque directory.
func find(dirs, components []string) (place, error) {
	for _, dir := range dirs {
		p, hidesBelow, err := findIn(dir, components)
		if err != nil || p.layer != "" || hidesBelow {
			return p, err
		}
	}
	return place{}, nil
}

func findIn(dir string, components []string) (p place, hidesBelow bool, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return place{}, false, fmt.Errorf("open layer: %w", err)
	}
	defer root.Close()
	for i := range components {
		name := filepath.Join(components[:i+1]...)
		info, err := root.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			return place{}, hidesBelow, nil
		}
		if err != nil {
			return place{}, true, fmt.Errorf("look up %s: %w", name, err)
		}
		last := i == len(components)-1
		switch {
		case whiteout(info):
			return place{}, true, nil
		case last && info.Mode()&fs.ModeSymlink != 0:
			link, err := root.Readlink(name)
			return place{layer: dir, name: name, link: link}, true, err
		case last:
			return place{layer: dir, name: name, regular: info.Mode().IsRegular()}, true, nil
		case !info.IsDir():
			return place{}, true, nil
		}
		hidesBelow = hidesBelow || opaque(filepath.Join(dir, name))
	}
	return place{}, hidesBelow, nil
}

// whiteout says whether a file stands for a deleted one (overlayfs.rst, "whiteouts and opaque directories").
func whiteout(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.Mode()&fs.ModeCharDevice != 0 && st.Rdev == 0
}

func opaque(dir string) bool {
	var value [1]byte
	n, err := syscall.Getxattr(dir, "trusted.overlay.opaque", value[:])
	return err == nil && n == 1 && value[0] == 'y'
}

func readRegular(p place, name string) ([]byte, error) {
	if !p.regular {
		return nil, nil
	}
	root, err := os.OpenRoot(p.layer)
	if err != nil {
		return nil, fmt.Errorf("open layer: %w", err)
	}
	defer root.Close()
	f, err := root.OpenFile(p.name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}
