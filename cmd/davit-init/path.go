package main

import (
	"golang.org/x/sys/unix"
)

// open opens a path inside the container's root and never outside of it: absolute paths, links and
// ".." are taken relative to the root, and links of procfs that lead elsewhere are refused.
func (p *process) open(path string, flags int, mode uint32) (int, error) {
	return openIn(p.root, path, flags, mode)
}

func openIn(root int, path string, flags int, mode uint32) (int, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Mode:    uint64(mode),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(root, path, &how)
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
}

// makeDir makes the directory and its parents unless they exist.
func (p *process) makeDir(path string, mode uint32) error {
	fd, err := p.openDir(path, mode)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// openDir returns an O_PATH descriptor of the directory, which it makes with its parents if missing.
func (p *process) openDir(path string, mode uint32) (int, error) {
	fd, err := p.open(path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != unix.ENOENT {
		return fd, err
	}
	parent, last := split(path)
	if last == "" {
		return p.openDir(parent, mode)
	}
	dir, err := p.openDir(parent, 0o755)
	if err != nil {
		return -1, err
	}
	defer unix.Close(dir)
	err = unix.Mkdirat(dir, last, mode)
	if err != nil && err != unix.EEXIST {
		return -1, err
	}
	if err == nil && mode&0o7000 != 0 {
		unix.Fchmodat(dir, last, mode, 0) // mkdir takes no set-id and sticky bits on every file system
	}
	fd, err = p.open(path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err == unix.ENOENT {
		return p.openLinked(dir, parent, last, mode)
	}
	return fd, err
}

// openLinked makes the directory that a link says, which was found to lead nowhere.
func (p *process) openLinked(dir int, parent, name string, mode uint32) (int, error) {
	if p.links++; p.links > 40 {
		return -1, unix.ELOOP
	}
	says := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, says)
	if err != nil || n == 0 {
		return -1, unix.ENOENT
	}
	if says[0] == '/' {
		return p.openDir(string(says[:n]), mode)
	}
	return p.openDir(parent+"/"+string(says[:n]), mode)
}

// openTarget returns an O_PATH descriptor of a mount's target, which it makes if missing: a directory
// or an empty file.
func (p *process) openTarget(path string, dir bool) (int, error) {
	if dir {
		return p.openDir(path, 0o755)
	}
	fd, err := p.open(path, unix.O_PATH, 0)
	if err != unix.ENOENT {
		return fd, err
	}
	parent, _ := split(path)
	if err := p.makeDir(parent, 0o755); err != nil {
		return -1, err
	}
	made, err := p.open(path, unix.O_CREAT|unix.O_RDONLY|unix.O_NONBLOCK, 0o644)
	if err != nil {
		return -1, err
	}
	unix.Close(made)
	return p.open(path, unix.O_PATH, 0)
}

// openParent returns a descriptor of the directory that path's last element is in, and that element.
func (p *process) openParent(path string) (int, string, error) {
	parent, last := split(path)
	dir, err := p.openDir(parent, 0o755)
	return dir, last, err
}

// split cuts a path before its last element; what a trailing slash leaves is an empty one.
func split(path string) (parent, last string) {
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] == '/' {
			return path[:max(i, 1)], path[i+1:]
		}
	}
	return "/", path
}

func isDir(fd int) (bool, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return st.Mode&unix.S_IFMT == unix.S_IFDIR, err
}

func under(path, dir string) bool {
	return len(path) > len(dir) && path[:len(dir)] == dir && path[len(dir)] == '/'
}
