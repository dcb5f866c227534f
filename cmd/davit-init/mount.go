package main

import (
	"golang.org/x/sys/unix"

	"davit/ociruntime/step"
)

// attachRoot attaches the detached mount that holds the root file system at a directory of the host's
// tree, in this namespace only. From here on every path is resolved inside it. The host's tree stays
// below until PivotRoot: the kernel gives a user namespace a procfs and sysfs only beside existing ones.
func (p *process) attachRoot(tree int, at string) error {
	var err error
	if p.hostNull, err = openNull(); err != nil {
		return err
	}
	if p.hostRoot, err = unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return err
	}
	p.root = tree
	return unix.MoveMount(tree, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// openNull opens the host's /dev/null and makes sure that it is the null device.
func openNull() (int, error) {
	fd, err := unix.Open("/dev/null", unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, detail("open /dev/null", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return -1, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(1, 3) {
		return -1, detail("/dev/null of the host is not the null device", nil)
	}
	return fd, nil
}

// mountNew makes a new file system and attaches it at a path inside the root.
func (p *process) mountNew(s *step.Step, copyUp bool) error {
	mode := uint32(0o755)
	if s.Type == "tmpfs" {
		mode = 0o1777 // as the kernel's own default, where there was no directory to take the mode of
	}
	target, err := p.openDir(s.Path, mode)
	if err != nil {
		return detail("open target", err)
	}
	defer unix.Close(target)
	options := s.List
	if s.Type == "tmpfs" {
		options = withMode(options, target)
	}
	var tree int
	if needsClassic(s) {
		return classicMount(s, target)
	}
	if tree, err = newTree(s.Type, s.Source, options, int(s.Words[0])); err != nil {
		return err
	}
	if copyUp {
		if err := copyTree(target, tree); err != nil {
			return detail("copy up", err)
		}
	}
	if s.Words[2] != 0 {
		if err := setAttr(tree, true, 0, s.Words[2]); err != nil {
			return err
		}
	}
	if err := attach(tree, target); err != nil {
		return detail("attach", err)
	}
	if s.Type == "proc" && s.Path == "/proc" {
		p.proc = tree
		return nil
	}
	return unix.Close(tree)
}

// newTree returns a detached mount of a new file system.
func newTree(fsType, source string, options []string, attributes int) (int, error) {
	fs, err := unix.Fsopen(fsType, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	if source != "" {
		if err := unix.FsconfigSetString(fs, "source", source); err != nil {
			return -1, detail("set source", err)
		}
	}
	for _, option := range options {
		if err := setOption(fs, option); err != nil {
			return -1, explain(fs, detail("option "+option, err))
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, explain(fs, err)
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attributes)
}

func setOption(fs int, option string) error {
	for i := range len(option) {
		if option[i] == '=' {
			return unix.FsconfigSetString(fs, option[:i], option[i+1:])
		}
	}
	return unix.FsconfigSetFlag(fs, option)
}

// explain puts what the kernel says about a file system context before the error.
func explain(fs int, err error) error {
	buffer := make([]byte, 1024)
	n, readErr := unix.Read(fs, buffer)
	if readErr != nil || n < 3 {
		return err
	}
	text := string(buffer[2:n]) // after "e "
	if text[len(text)-1] == '\n' {
		text = text[:len(text)-1]
	}
	return detail(text, err)
}

// withMode gives a new tmpfs the mode of the directory that it covers, unless the options say one.
func withMode(options []string, target int) []string {
	for _, option := range options {
		if len(option) > 5 && option[:5] == "mode=" {
			return options
		}
	}
	var st unix.Stat_t
	if unix.Fstat(target, &st) != nil {
		return options
	}
	octal := []byte("mode=0000")
	for i, mode := len(octal)-1, st.Mode&0o7777; mode != 0; i, mode = i-1, mode>>3 {
		octal[i] = '0' + byte(mode&7)
	}
	return append([]string{string(octal)}, options...)
}

// needsClassic reports whether an option is too long for fsconfig, which takes 255 bytes.
func needsClassic(s *step.Step) bool {
	for _, option := range s.List {
		if len(option) > 250 {
			return true
		}
	}
	return false
}

// classicMount mounts with mount(2), whose options together may have a page.
func classicMount(s *step.Step, target int) error {
	data := ""
	for i, option := range s.List {
		if i > 0 {
			data += ","
		}
		data += option
	}
	if err := unix.Mount(s.Source, "/proc/self/fd/"+decimal(target), s.Type, 0, data); err != nil {
		return err
	}
	mounted, err := unix.Open("/proc/self/fd/"+decimal(target)+"/.", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(mounted)
	return setAttr(mounted, false, s.Words[0], s.Words[2])
}

// mountFile attaches a mount that the runtime prepared.
func (p *process) mountFile(s *step.Step) error {
	tree := p.files[s.File]
	dir, err := isDir(tree)
	if err != nil {
		return err
	}
	target, err := p.openTarget(s.Path, dir)
	if err != nil {
		return detail("open target", err)
	}
	defer unix.Close(target)
	if err := attach(tree, target); err != nil {
		return err
	}
	p.files[s.File] = -1
	return unix.Close(tree)
}

func attach(tree, target int) error {
	return unix.MoveMount(tree, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

func setAttr(mount int, recursive bool, set, propagation uint64) error {
	if set == 0 && propagation == 0 {
		return nil
	}
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return unix.MountSetattr(mount, "", flags, &unix.MountAttr{Attr_set: set, Propagation: propagation})
}

func cloneTree(fd int) (int, error) {
	const flags = unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH | unix.AT_RECURSIVE
	return unix.OpenTree(fd, "", flags)
}

// pivot makes the attached root the root of the namespace and drops the host's tree, which
// pivot_root(".", ".") has put on top of it.
func (p *process) pivot() error {
	if err := unix.Fchdir(p.root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return detail("detach the host's tree", err)
	}
	return p.enterRoot()
}

func (p *process) changeRoot() error {
	if err := unix.Fchdir(p.root); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil && err != unix.EINVAL {
		return detail("move to /", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return p.enterRoot()
}

func (p *process) enterRoot() error {
	unix.Close(p.hostNull)
	unix.Close(p.hostRoot)
	p.hostNull, p.hostRoot = -1, -1
	return unix.Chdir("/")
}

func decimal(n int) string {
	if n < 10 {
		return string([]byte{'0' + byte(n)})
	}
	return decimal(n/10) + string([]byte{'0' + byte(n%10)})
}
