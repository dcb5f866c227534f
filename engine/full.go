package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/docker/go-units"

	"davit/kernel/sys"
	"davit/oci/errdefs"
)

// Explain says of an error that comes of a full disk which disk that is and what makes room; any other it
// returns as it is.
func (y *System) Explain(err error) error {
	if !errdefs.NoSpace(err) {
		return err
	}
	where, what := y.Root, err.Error()
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		where = existing(p.Path, y.Root)
		if doing, _, _ := strings.Cut(what, ": "); strings.HasSuffix(what, ": "+p.Error()) {
			what = doing + ": " + p.Error() // the steps between say nothing to who reads it
		}
	}
	space, statErr := sys.SpaceOf(where)
	if statErr != nil {
		return errdefs.As(errdefs.ErrExhausted, err)
	}
	left := fmt.Sprintf("%s of %s free", units.HumanSize(float64(space.Free)), units.HumanSize(float64(space.Size)))
	if space.Inodes > 0 && space.InodesFree == 0 {
		left = fmt.Sprintf("none of %d inodes free", space.Inodes)
	}
	if errors.Is(err, syscall.EDQUOT) {
		left = "used up the quota of its owner"
	}
	if !sameDisk(where, y.Root) {
		return &fullError{fmt.Sprintf("%s: the disk of %s has %s now", what, where, left), err}
	}
	return &fullError{fmt.Sprintf(`%s: the disk of %s has %s now; "davit system df" shows what takes it, "davit system prune" makes room`, what, y.Root, left), err}
}

// fullError is an error that comes of a full disk, in words for who meets it.
type fullError struct {
	message string
	cause   error
}

func (e *fullError) Error() string   { return e.message }
func (e *fullError) Unwrap() []error { return []error{errdefs.ErrExhausted, e.cause} }

// existing returns path or the nearest directory above it that is there; otherwise for what has no place of
// its own in the engine's file system.
func existing(path, otherwise string) string {
	if !filepath.IsAbs(path) || strings.HasPrefix(path, "/proc/") {
		return otherwise
	}
	for path != "/" {
		if _, err := os.Lstat(path); err == nil {
			return path
		}
		path = filepath.Dir(path)
	}
	return otherwise
}

func sameDisk(a, b string) bool {
	var x, y syscall.Stat_t
	return syscall.Stat(a, &x) == nil && syscall.Stat(b, &y) == nil && x.Dev == y.Dev
}

// afterFull gives back, when err comes of a full disk, what the operation that failed had made already:
// nothing refers to it.
func (s *shared) afterFull(ctx context.Context, err error) {
	if !errdefs.NoSpace(err) {
		return
	}
	if _, err := s.Collect(context.WithoutCancel(ctx)); err != nil {
		s.Log.Warn("collect after a full disk", "error", err)
	}
}
