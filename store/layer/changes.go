package layer

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"

	"davit/kernel/sys"
)

// Kind is what happened to a path; the values are those of the Engine API's ContainerChange.
type Kind int

// The kinds of change.
const (
	Modified Kind = 0 // C
	Added    Kind = 1 // A
	Deleted  Kind = 2 // D
)

// Change is one line of docker diff. Path is absolute in the container.
type Change struct {
	Path string
	Kind Kind
}

// Changes compares an overlay's upper directory with the directories below it, lowest first, and
// returns what differs, sorted by path. A directory that was merely copied up is listed as Modified when
// something in it changed; below a deleted directory nothing is listed.
func Changes(ctx context.Context, upper string, lowers []string) ([]Change, error) {
	below, err := openView(lowers)
	if err != nil {
		return nil, fmt.Errorf("compare layers: %w", err)
	}
	defer below.close()
	root, err := sys.Openat(-1, upper, syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("compare layers: %w", err)
	}
	defer syscall.Close(root)
	c := &comparison{ctx: ctx, upper: root, below: below}
	if _, err := c.directory("", true); err != nil {
		return nil, fmt.Errorf("compare layers: %w", err)
	}
	slices.SortFunc(c.changes, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	return c.changes, nil
}

// comparison is one run of Changes.
type comparison struct {
	ctx     context.Context
	upper   int
	below   *view
	changes []Change
}

func (c *comparison) add(path string, kind Kind) {
	c.changes = append(c.changes, Change{"/" + path, kind})
}

// directory compares what is in a directory of the upper layer and says whether anything differs. merged
// says whether the layers below have a directory at its path.
func (c *comparison) directory(path string, merged bool) (changed bool, err error) {
	names, err := readNames(c.upper, path)
	if err != nil {
		return false, err
	}
	for _, name := range names {
		if err := c.ctx.Err(); err != nil {
			return false, err
		}
		differs, err := c.entry(join(path, name), merged)
		if err != nil {
			return false, err
		}
		changed = changed || differs
	}
	if path == "" || !merged {
		return changed, nil
	}
	gone, err := c.goneBelow(path, names)
	return changed || gone, err
}

// entry compares one path of the upper layer.
func (c *comparison) entry(path string, merged bool) (changed bool, err error) {
	st, err := sys.Fstatat(c.upper, path)
	if err != nil {
		return false, err
	}
	var old found
	existed := false
	if merged {
		if old, existed, err = c.below.lookup(path); err != nil {
			return false, err
		}
	}
	isDir := st.Mode&syscall.S_IFMT == syscall.S_IFDIR
	wasDir := existed && old.stat.Mode&syscall.S_IFMT == syscall.S_IFDIR
	switch {
	case isWhiteout(st):
		if existed {
			c.add(path, Deleted)
		}
		return existed, nil
	case isDir && wasDir:
		changed, err = c.directory(path, true)
		if changed = changed || !sameAttributes(st, old.stat); changed {
			c.add(path, Modified)
		}
		return changed, err
	case existed:
		c.add(path, Modified)
	default:
		c.add(path, Added)
	}
	if isDir {
		_, err = c.directory(path, false)
	}
	return true, err
}

// sameAttributes compares what chmod, chown and changes in a directory leave behind.
func sameAttributes(a, b syscall.Stat_t) bool {
	return a.Mode == b.Mode && a.Uid == b.Uid && a.Gid == b.Gid && a.Mtim == b.Mtim
}

// goneBelow lists what an opaque directory hides and does not have itself: it was removed and made anew.
func (c *comparison) goneBelow(path string, names []string) (changed bool, err error) {
	opaque, err := isOpaque(c.upper, path)
	if err != nil || !opaque {
		return false, err
	}
	below, err := c.below.names(path)
	if err != nil {
		return false, err
	}
	for _, name := range below {
		if _, still := slices.BinarySearch(names, name); !still {
			c.add(join(path, name), Deleted)
			changed = true
		}
	}
	return changed, nil
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "/" + name
}

// names lists a directory of the view, sorted.
func (v *view) names(path string) ([]string, error) {
	seen := map[string]bool{} // name: visible, or hidden by a whiteout
	for i := len(v.fds) - 1; i >= 0; i-- {
		st, state, err := lookupIn(v.fds[i], path)
		if err != nil {
			return nil, err
		}
		if state == hidden || state == present && st.Mode&syscall.S_IFMT != syscall.S_IFDIR {
			break
		}
		if state == absent {
			continue
		}
		if err := gather(v.fds[i], path, seen); err != nil {
			return nil, err
		}
		if opaque, err := isOpaque(v.fds[i], path); err != nil || opaque {
			return visible(seen), err
		}
	}
	return visible(seen), nil
}

// gather adds one layer's names of a directory to those that the layers above it have.
func gather(layer int, path string, seen map[string]bool) error {
	names, err := readNames(layer, path)
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, above := seen[name]; above {
			continue
		}
		st, err := sys.Fstatat(layer, join(path, name))
		if err != nil {
			return err
		}
		seen[name] = !isWhiteout(st)
	}
	return nil
}

func visible(seen map[string]bool) []string {
	maps.DeleteFunc(seen, func(_ string, shown bool) bool { return !shown })
	return slices.Sorted(maps.Keys(seen))
}

// readNames lists a directory, sorted; an empty path is dirfd itself.
func readNames(dirfd int, path string) ([]string, error) {
	fd, err := sys.OpenBeneath(dirfd, cmp.Or(path, "."), syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("read directory %s: %w", path, err)
	}
	d := os.NewFile(uintptr(fd), path)
	defer d.Close()
	names, err := d.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}
