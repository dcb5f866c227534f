package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"davit/kernel/sys"
	"davit/oci/errdefs"
	"davit/oci/rootfs"
)

// Mapping says how a root file system's ids are mapped.
type Mapping struct {
	UserNS   *os.File // nil: not at all
	UID, GID int      // the host's ids of the container's root
}

// Rootfs returns the detached mount of a root file system: a plain directory, or an overlay. An
// overlay needs the new mount interface with layers by descriptor (Linux 6.15 for idmapped ones), or
// falls back to mount(2) in a mount namespace that lives for the call (idmapped from 5.19).
func Rootfs(r rootfs.Rootfs, m Mapping) (*os.File, error) {
	plain := Options{UserNS: m.UserNS, Propagation: syscall.MS_PRIVATE | syscall.MS_REC}
	switch {
	case r.Dir != "":
		plain.Recursive = m.UserNS == nil
		return Tree(r.Dir, plain)
	case r.Upper == "" && len(r.Lower) == 1: // overlayfs wants two layers at least
		plain.Set = sys.AttrReadOnly
		return Tree(r.Lower[0], plain)
	case len(r.Lower) == 0 && r.Upper != "":
		return Tree(r.Upper, plain)
	case len(r.Lower) == 0:
		return nil, errdefs.Invalid("the root file system has no directory")
	}
	l := &layers{rootfs: r, mapping: m}
	// To close a detached mount is to wait for the kernel's readers (RCU): nobody needs to wait for that.
	defer func() { go l.close() }()
	l.openBase()
	if err := l.open(); err != nil {
		return nil, err
	}
	return l.mount()
}

// layers are an overlay's directories, open.
type layers struct {
	rootfs    rootfs.Rootfs
	mapping   Mapping
	base      *os.File   // an idmapped mount that has all of them, or nil
	baseDir   string     // its path on the host
	lower     []*os.File // topmost first
	writable  *os.File   // the parent directory of upper and work; nil for a read-only overlay
	upper     *os.File
	work      *os.File
	upperName string
	workName  string
}

// openBase makes one idmapped mount of the deepest directory that all others are below: it costs as much as
// that of a single layer. Where it does not work each layer gets its own.
func (l *layers) openBase() {
	if l.mapping.UserNS == nil {
		return
	}
	dir := filepath.Dir(l.rootfs.Lower[0])
	for _, other := range append(l.rootfs.Lower[1:len(l.rootfs.Lower):len(l.rootfs.Lower)], l.rootfs.Upper) {
		for other != "" && !strings.HasPrefix(other, dir+"/") && dir != "/" {
			dir = filepath.Dir(dir)
		}
	}
	if dir == "/" {
		return
	}
	if tree, err := Tree(dir, Options{UserNS: l.mapping.UserNS}); err == nil {
		l.base, l.baseDir = tree, dir
	}
}

func (l *layers) open() (err error) {
	for _, dir := range slices.Backward(l.rootfs.Lower) {
		f, err := l.openDir(dir)
		if err != nil {
			return err
		}
		l.lower = append(l.lower, f)
	}
	r := l.rootfs
	if r.Upper == "" {
		return nil
	}
	if filepath.Dir(r.Upper) != filepath.Dir(r.Work) {
		return errdefs.Invalid("upper directory %s and work directory %s are not beside each other", r.Upper, r.Work)
	}
	if l.writable, err = l.openDir(filepath.Dir(r.Upper)); err != nil {
		return err
	}
	l.upperName, l.workName = filepath.Base(r.Upper), filepath.Base(r.Work)
	const flags = syscall.O_DIRECTORY | oPath
	if l.upper, err = sys.OpenIn(l.writable, l.upperName, flags, 0, sys.ResolveBeneath); err != nil {
		return fmt.Errorf("open %s: %w", r.Upper, err)
	}
	if l.work, err = sys.OpenIn(l.writable, l.workName, flags, 0, sys.ResolveBeneath); err != nil {
		return fmt.Errorf("open %s: %w", r.Work, err)
	}
	return nil
}

const oPath = 0x200000 // O_PATH, which package syscall lacks

// openDir returns a descriptor of a directory, in an idmapped mount when ids are mapped.
func (l *layers) openDir(dir string) (*os.File, error) {
	if l.mapping.UserNS == nil {
		f, err := sys.OpenPath(dir)
		if err != nil {
			return nil, fmt.Errorf("open layer %s: %w", dir, err)
		}
		return f, nil
	}
	if f := l.below(dir); f != nil {
		return f, nil
	}
	return Tree(dir, Options{UserNS: l.mapping.UserNS})
}

// below opens a directory in base, which lacks the mounts below it: nil when what is found there is not
// what the path means on the host.
func (l *layers) below(dir string) *os.File {
	if l.base == nil {
		return nil
	}
	name, err := filepath.Rel(l.baseDir, dir)
	if err != nil {
		return nil
	}
	f, err := sys.OpenIn(l.base, name, syscall.O_DIRECTORY|oPath, 0, sys.ResolveBeneath|sys.ResolveNoSymlinks)
	if err != nil {
		return nil
	}
	found, err := f.Stat()
	meant, alsoErr := os.Stat(dir)
	if err != nil || alsoErr != nil || !os.SameFile(found, meant) {
		f.Close()
		return nil
	}
	return f
}

func (l *layers) close() {
	for _, f := range append(l.lower, l.writable, l.upper, l.work, l.base) {
		if f != nil {
			f.Close()
		}
	}
}

// mount mounts the overlay with the credentials of the container's root, which overlayfs then uses for
// everything it does below: else it could not make files whose owner is mapped.
func (l *layers) mount() (tree *os.File, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	do := func() error {
		tree, err = l.byDescriptor()
		return err
	}
	if l.mapping.UserNS != nil {
		err = sys.AsFileOwner(l.mapping.UID, l.mapping.GID, do)
	} else {
		err = do()
	}
	if unknown(err) {
		classic, fallback := l.classic()
		if tree = classic; fallback == nil {
			err = nil
		} else {
			err = errors.Join(err, fallback)
		}
	}
	if err == nil {
		err = l.wantWritable(tree)
	}
	if err != nil {
		return nil, fmt.Errorf("mount overlay of %d layers: %w", len(l.lower), err)
	}
	return tree, nil
}

// wantWritable closes a tree that is read-only and should not be: where overlayfs cannot make its directory
// in the work directory, on a full disk above all, it says so in the kernel's log and mounts all the same.
func (l *layers) wantWritable(tree *os.File) error {
	if l.upper == nil {
		return nil
	}
	readOnly, err := sys.ReadOnly(tree)
	if err == nil && readOnly {
		cause := syscall.EROFS
		if space, err := sys.SpaceOf(l.rootfs.Work); err == nil && space.Full() {
			cause = syscall.ENOSPC
		}
		err = &os.PathError{Op: "mkdir", Path: filepath.Join(l.rootfs.Work, "work"), Err: cause}
	}
	if err != nil {
		tree.Close()
	}
	return err
}

// unknown says whether an error may mean that this kernel does not know an option or an operation:
// overlayfs was not ported to the new mount interface before 6.5, and answers EOPNOTSUPP until then.
func unknown(err error) bool {
	for _, e := range []syscall.Errno{syscall.EINVAL, syscall.ENOSYS, syscall.EBADF, syscall.EOPNOTSUPP} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// byDescriptor uses the new mount interface. Index, metacopy and redirects are off so that the upper
// directory is a plain layer, which can be packed and stacked on others.
func (l *layers) byDescriptor() (*os.File, error) {
	fs, err := sys.FsOpen("overlay")
	if err != nil {
		return nil, err
	}
	defer fs.Close()
	for _, dir := range l.lower {
		if err := sys.FsConfigFD(fs, "lowerdir+", dir); err != nil {
			return nil, explain(fs, err)
		}
	}
	if l.upper != nil {
		if err := l.addUpper(fs); err != nil {
			return nil, explain(fs, err)
		}
	}
	if err := sys.FsConfigString(fs, "source", "overlay"); err != nil {
		return nil, err
	}
	if err := sys.FsCreate(fs); err != nil {
		return nil, explain(fs, err)
	}
	return sys.FsMount(fs, 0)
}

func (l *layers) addUpper(fs *os.File) error {
	if err := sys.FsConfigFD(fs, "upperdir", l.upper); err != nil {
		return err
	}
	if err := sys.FsConfigFD(fs, "workdir", l.work); err != nil {
		return err
	}
	for _, option := range plainUpper {
		if err := sys.FsConfigString(fs, option[0], option[1]); err != nil {
			return err
		}
	}
	if l.rootfs.Volatile {
		return sys.FsConfigFlag(fs, "volatile")
	}
	return nil
}

var plainUpper = [][2]string{{"index", "off"}, {"metacopy", "off"}, {"redirect_dir", "off"}}

func explain(fs *os.File, err error) error {
	if messages := sys.FsMessages(fs); len(messages) > 0 {
		return fmt.Errorf("%s: %w", strings.TrimSpace(strings.Join(messages, "; ")), err)
	}
	return err
}

// classic mounts with mount(2) from a thread in a mount namespace of its own, which ends with the
// thread; the returned tree has left it by then. Layers have short names there, because mount(2) takes
// one page of options, and each is the root of a mount, because that is what can be attached.
func (l *layers) classic() (tree *os.File, err error) {
	own := &layers{rootfs: l.rootfs, mapping: l.mapping}
	defer own.close()
	if err := own.open(); err != nil {
		return nil, err
	}
	err = sys.OnDyingThread(func() error {
		tree, err = own.classicOnThread()
		return err
	})
	return tree, err
}

func (l *layers) classicOnThread() (*os.File, error) {
	if err := sys.Unshare(sys.NewMount); err != nil {
		return nil, fmt.Errorf("unshare mount namespace: %w", err)
	}
	if err := sys.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("make mounts private: %w", err)
	}
	if err := sys.Mount("tmpfs", "/proc", "tmpfs", 0, "mode=755"); err != nil {
		return nil, fmt.Errorf("mount scratch tmpfs: %w", err)
	}
	if err := syscall.Chdir("/proc"); err != nil {
		return nil, err
	}
	options, err := l.attachAll()
	if err != nil {
		return nil, err
	}
	if err := syscall.Mkdir("m", 0o755); err != nil {
		return nil, err
	}
	do := func() error { return sys.Mount("overlay", "m", "overlay", 0, options) }
	if l.mapping.UserNS != nil {
		err = sys.AsFileOwner(l.mapping.UID, l.mapping.GID, do)
	} else {
		err = do()
	}
	if err != nil {
		return nil, fmt.Errorf("mount overlay: %w", err)
	}
	return sys.CloneTree(nil, "m", false)
}

// attachAll attaches the layers below the working directory and returns the overlay's options.
func (l *layers) attachAll() (string, error) {
	var names []string
	for i, dir := range l.lower {
		name := strconv.Itoa(i)
		if err := attach(dir, name, l.rootfs.Lower[len(l.lower)-1-i], l.mapping.UserNS != nil); err != nil {
			return "", err
		}
		names = append(names, name)
	}
	options := "lowerdir=" + strings.Join(names, ":")
	if l.writable == nil {
		return options, nil
	}
	if err := attach(l.writable, "w", filepath.Dir(l.rootfs.Upper), l.mapping.UserNS != nil); err != nil {
		return "", err
	}
	options += ",upperdir=w/" + l.upperName + ",workdir=w/" + l.workName
	for _, option := range plainUpper {
		options += "," + option[0] + "=" + option[1]
	}
	if l.rootfs.Volatile {
		options += ",volatile"
	}
	return options, nil
}

// attach attaches a detached tree, or binds a path, at a new directory.
func attach(tree *os.File, name, path string, detached bool) error {
	if err := syscall.Mkdir(name, 0o755); err != nil {
		return err
	}
	if detached {
		if err := sys.MoveMount(tree, nil, name); err != nil {
			return fmt.Errorf("attach %s: %w", path, err)
		}
		return nil
	}
	if err := sys.Mount(path, name, "", syscall.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", path, err)
	}
	return nil
}
