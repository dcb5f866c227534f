package layer

import (
	"archive/tar"
	"math"
	"strings"
	"syscall"

	"davit/internal/fileattr"
	"davit/kernel/sys"
	"davit/oci/errdefs"
)

// xattrRecord is the prefix of the PAX records that hold xattrs.
const xattrRecord = "SCHILY.xattr."

// headerAttributes takes the attributes from a header.
func headerAttributes(h *tar.Header) (*fileattr.Attr, error) {
	// 2^32-1 is the kernel's "leave as it is".
	if h.Uid < 0 || h.Uid >= math.MaxUint32 || h.Gid < 0 || h.Gid >= math.MaxUint32 {
		return nil, errdefs.Invalid("owner %d:%d is out of range", h.Uid, h.Gid)
	}
	attr := &fileattr.Attr{Mode: uint32(h.Mode & 0o7777), UID: h.Uid, GID: h.Gid}
	if !h.ModTime.IsZero() {
		attr.Mtime = syscall.Timespec{Sec: h.ModTime.Unix(), Nsec: int64(h.ModTime.Nanosecond())}
	}
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, xattrRecord)
		if !ok || strings.HasPrefix(name, fileattr.OverlayXattrs) { // overlayfs's own are not the image's to set
			continue
		}
		if attr.Xattrs == nil {
			attr.Xattrs = map[string]string{}
		}
		attr.Xattrs[name] = value
	}
	return attr, nil
}

func makeSymlink(dirfd int, name, target string, attr *fileattr.Attr) error {
	if err := sys.Symlinkat(target, dirfd, name); err != nil {
		return err
	}
	return attr.SetAt(dirfd, name, true)
}

// makeSpecial makes a device or a fifo. Devices are harmless where they lie: no user of the host can
// reach the store, and containers see layers through mounts with their own device rules.
func makeSpecial(dirfd int, name string, h *tar.Header, attr *fileattr.Attr) error {
	types := map[byte]uint32{tar.TypeChar: syscall.S_IFCHR, tar.TypeBlock: syscall.S_IFBLK, tar.TypeFifo: syscall.S_IFIFO}
	if h.Devmajor < 0 || h.Devmajor > 0xfff || h.Devminor < 0 || h.Devminor > 0xfffff {
		return errdefs.Invalid("device %d:%d is out of range", h.Devmajor, h.Devminor)
	}
	device := sys.Makedev(uint32(h.Devmajor), uint32(h.Devminor))
	if err := sys.Mknodat(dirfd, name, types[h.Typeflag]|0o600, device); err != nil {
		return err
	}
	return attr.SetAt(dirfd, name, false)
}
