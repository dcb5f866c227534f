package layer

import (
	"fmt"
	"path"
	"strings"
	"syscall"

	"davit/internal/fileattr"
	"davit/kernel/sys"
	"davit/oci/errdefs"
)

// The tree is what an extractor has made so far, in memory: the directory was empty when it began and
// nobody else writes there. So names are resolved, duplicates noticed and symbolic links followed
// without asking the kernel, which is asked to refuse any surprise (sys.OpenBeneath).

// maxPath is the longest path, in bytes, that a layer may have: nobody could open a longer one.
const maxPath = 4096

type kind uint8

const (
	kindDir kind = iota
	kindFile
	kindSymlink
	kindWhiteout
	kindOther // device, fifo
)

// node is one name in the layer.
type node struct {
	name   string
	parent *node // nil: the root
	kind   kind
	target string // of a symbolic link
	*dir          // of a directory
}

// dir is what a directory has beyond its name.
type dir struct {
	children map[string]*node
	opaque   bool           // nothing of the layers below is to be seen in it
	attr     *fileattr.Attr // set when everything is in place; nil: nobody said, see impliedAttributes
}

func newDir(parent *node, name string) *node {
	return &node{name: name, parent: parent, kind: kindDir, dir: &dir{children: map[string]*node{}}}
}

// path returns the node's path below the root; the root's is ".".
func (n *node) path() string {
	if n.parent == nil {
		return "."
	}
	if n.parent.parent == nil {
		return n.name
	}
	return n.parent.path() + "/" + n.name
}

// join returns the path of a name in directory n.
func (n *node) join(name string) string {
	if n.parent == nil {
		return name
	}
	return n.path() + "/" + name
}

// hidesBelow says whether no lower layer can be seen in the directory.
func (n *node) hidesBelow() bool {
	for ; n != nil; n = n.parent {
		if n.opaque {
			return true
		}
	}
	return false
}

// walkDirs calls do for n and every directory below it.
func (n *node) walkDirs(do func(*node) error) error {
	if err := do(n); err != nil {
		return err
	}
	for _, child := range n.children {
		if child.kind == kindDir {
			if err := child.walkDirs(do); err != nil {
				return err
			}
		}
	}
	return nil
}

// cleanName makes a name in a tar relative to the layer's root, without "." and ".."; the root is ".".
// Names that lead out of the root are refused.
func cleanName(name string) (string, error) {
	clean := path.Clean(strings.TrimLeft(name, "/"))
	switch {
	case clean == ".." || strings.HasPrefix(clean, "../"):
		return "", errdefs.Invalid("%q leads out of the layer", name)
	case len(clean) > maxPath:
		return "", errdefs.Invalid("path of %d bytes is longer than the %d that can be opened", len(clean), maxPath)
	case strings.IndexByte(clean, 0) >= 0:
		return "", errdefs.Invalid("%q holds a NUL byte", name)
	}
	return clean, nil
}

// dirFDs keeps descriptors of the directories used last, so that an entry costs no path walk.
type dirFDs struct {
	root  int
	open  map[*node]int
	order []*node // oldest first
}

const maxDirFDs = 32

func newDirFDs(root int) *dirFDs { return &dirFDs{root: root, open: map[*node]int{}} }

// get returns a descriptor (O_PATH) of a directory. It is valid until the next call.
func (c *dirFDs) get(n *node) (int, error) {
	if n.parent == nil {
		return c.root, nil
	}
	if fd, ok := c.open[n]; ok {
		return fd, nil
	}
	fd, err := sys.OpenBeneath(c.root, n.path(), sys.OPath|syscall.O_DIRECTORY, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", n.path(), err)
	}
	if len(c.order) >= maxDirFDs {
		c.drop(c.order[0])
		c.order = c.order[1:]
	}
	c.open[n] = fd
	c.order = append(c.order, n)
	return fd, nil
}

func (c *dirFDs) drop(n *node) {
	syscall.Close(c.open[n])
	delete(c.open, n)
}

// reset closes all descriptors but the root's; needed when a directory moves away.
func (c *dirFDs) reset() {
	for n := range c.open {
		c.drop(n)
	}
	c.order = c.order[:0]
}
