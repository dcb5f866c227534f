package engine

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
)

// packer writes a tree as a tar archive, opening nothing outside of it however it changes meanwhile.
type packer struct {
	root  *os.Root
	tar   *tar.Writer
	owner uint32               // the id on files of the container's id 0
	links map[[2]uint64]string // device and inode of files with several names, to the first in the archive
}

// packTree writes dir/base, with everything below it, under the name as. Ids on files are owner higher
// than in the archive.
func packTree(ctx context.Context, w io.Writer, dir *os.File, base, as string, owner uint32) error {
	root, err := os.OpenRoot(procPath(dir))
	if err != nil {
		return fmt.Errorf("pack %s: %w", base, err)
	}
	defer root.Close()
	p := &packer{root: root, tar: tar.NewWriter(w), owner: owner, links: map[[2]uint64]string{}}
	if err := p.walk(ctx, base, as); err != nil {
		return fmt.Errorf("pack %s: %w", base, err)
	}
	return p.tar.Close()
}

// walk adds base and what is below it. A link is added itself, wherever it leads.
func (p *packer) walk(ctx context.Context, base, as string) error {
	if info, err := p.root.Lstat(base); err != nil || !info.IsDir() {
		return errors.Join(err, p.add(base, as))
	}
	return fs.WalkDir(p.root.FS(), base, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if base != "." {
			name = path.Clean(name)
			return p.add(name, inArchive(as, strings.TrimPrefix(name, base)))
		}
		return p.add(name, inArchive(as, name))
	})
}

// inArchive is the name of an entry below as, which may be "/". What lies in "." keeps that before it, because clients
// put the name of their own in its place.
func inArchive(as, name string) string {
	if joined := path.Join(as, name); as != "." || joined == "." {
		return joined
	}
	return "./" + strings.TrimPrefix(path.Clean(name), "/")
}

func (p *packer) add(name, as string) error {
	info, err := p.root.Lstat(name)
	if err != nil || info.Mode()&fs.ModeSocket != 0 {
		return err
	}
	link := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if link, err = p.root.Readlink(name); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	h.Name, h.Format, h.Uname, h.Gname = as, tar.FormatPAX, "", ""
	if info.IsDir() && as != "/" {
		h.Name += "/"
	}
	st := info.Sys().(*syscall.Stat_t)
	h.Uid, h.Gid = p.inContainer(st.Uid), p.inContainer(st.Gid)
	if st.Nlink > 1 && !info.IsDir() {
		key := [2]uint64{uint64(st.Dev), st.Ino}
		if first, ok := p.links[key]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			return p.tar.WriteHeader(h)
		}
		p.links[key] = as
	}
	if !info.Mode().IsRegular() {
		return p.tar.WriteHeader(h)
	}
	return p.addFile(name, h)
}

// inContainer turns an id on the host into the container's.
func (p *packer) inContainer(id uint32) int {
	if id < p.owner {
		return int(id)
	}
	return int(id - p.owner)
}

// addFile writes a regular file, padded or cut to the size in its header should it change meanwhile.
func (p *packer) addFile(name string, h *tar.Header) error {
	f, err := p.root.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if capability := fileCapability(f); capability != "" {
		h.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": capability}
	}
	if err := p.tar.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.CopyN(p.tar, f, h.Size)
	if err == io.EOF {
		_, err = io.CopyN(p.tar, zeros{}, h.Size-n)
	}
	return err
}

// fileCapability returns a file's capabilities (capabilities(7)) in their binary form.
func fileCapability(f *os.File) string {
	var b [64]byte
	n, err := syscall.Getxattr(procPath(f), "security.capability", b[:])
	if err != nil {
		return ""
	}
	return string(b[:n])
}

// zeros reads as zero bytes without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
