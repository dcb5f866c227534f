package layer

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"davit/internal/fileattr"
	"davit/kernel/sys"
)

// view shows stacked layer directories as overlayfs would, one path at a time.
type view struct {
	fds []int // of the directories, lowest first
}

// openView opens the directories, lowest first.
func openView(dirs []string) (*view, error) {
	v := &view{}
	for _, d := range dirs {
		fd, err := sys.Openat(-1, d, sys.OPath|syscall.O_DIRECTORY, 0)
		if err != nil {
			v.close()
			return nil, fmt.Errorf("open %s: %w", d, err)
		}
		v.fds = append(v.fds, fd)
	}
	return v, nil
}

func (v *view) close() {
	for _, fd := range v.fds {
		syscall.Close(fd)
	}
	v.fds = nil
}

// found is a file of the view.
type found struct {
	fd   int // of the layer that has it; belongs to the view
	path string
	stat syscall.Stat_t
}

// lookup finds path, which is clean and relative; symbolic links in it are not followed, and hide what
// lies below them.
func (v *view) lookup(path string) (found, bool, error) {
	for i := len(v.fds) - 1; i >= 0; i-- {
		st, state, err := lookupIn(v.fds[i], path)
		if err != nil {
			return found{}, false, err
		}
		switch state {
		case present:
			return found{v.fds[i], path, st}, true, nil
		case hidden:
			return found{}, false, nil
		}
	}
	return found{}, false, nil
}

// What one layer says about a path.
type presence int

const (
	absent  presence = iota // ask the layer below
	present                 // here it is
	hidden                  // whatever is below, it cannot be seen
)

// lookupIn walks path in one layer, a component at a time, so that a symbolic link is never passed.
func lookupIn(layer int, path string) (st syscall.Stat_t, state presence, err error) {
	opaque := false
	for end := 0; end < len(path); {
		next := strings.IndexByte(path[end+1:], '/')
		if next < 0 {
			end = len(path)
		} else {
			end += 1 + next
		}
		st, err = sys.Fstatat(layer, path[:end])
		if errors.Is(err, syscall.ENOENT) {
			if opaque {
				return st, hidden, nil
			}
			return st, absent, nil
		}
		if err != nil {
			return st, absent, fmt.Errorf("look up %s: %w", path, err)
		}
		if isWhiteout(st) || end < len(path) && st.Mode&syscall.S_IFMT != syscall.S_IFDIR {
			return st, hidden, nil
		}
		if end < len(path) && !opaque {
			if opaque, err = isOpaque(layer, path[:end]); err != nil {
				return st, absent, err
			}
		}
	}
	return st, present, nil
}

// isWhiteout says whether overlayfs takes a file for a whiteout.
func isWhiteout(st syscall.Stat_t) bool {
	return st.Mode&syscall.S_IFMT == syscall.S_IFCHR && st.Rdev == 0
}

const opaqueXattr = fileattr.OverlayXattrs + "opaque"

// isOpaque says whether a directory hides what the layers below have at its path.
func isOpaque(dirfd int, path string) (bool, error) {
	value, err := sys.Getxattrat(dirfd, path, opaqueXattr)
	switch {
	case err == nil:
		return string(value) == "y", nil
	case errors.Is(err, syscall.ENODATA), errors.Is(err, syscall.ENOTSUP):
		return false, nil
	}
	return false, fmt.Errorf("read %s of %s: %w", opaqueXattr, path, err)
}
