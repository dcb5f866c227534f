package tree

import (
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"
)

// InfoEntry turns what the host says of a file into an Entry, without link target and xattrs.
func InfoEntry(name string, info fs.FileInfo) Entry {
	e := Entry{Path: name, Mode: info.Mode(), ModTime: info.ModTime()}
	if e.Mode.IsRegular() {
		e.Size = info.Size()
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return e
	}
	e.UID, e.GID = int(st.Uid), int(st.Gid)
	e.File = FileID{Dev: st.Dev, Ino: st.Ino}
	e.Changed = time.Unix(st.Ctim.Unix())
	if e.Mode&fs.ModeDevice != 0 {
		e.Major, e.Minor = deviceNumbers(st.Rdev)
	}
	return e
}

// deviceNumbers splits a device number as makedev(3) composes it.
func deviceNumbers(rdev uint64) (major, minor uint32) {
	major = uint32(rdev>>8)&0xfff | uint32(rdev>>32)&^uint32(0xfff)
	minor = uint32(rdev)&0xff | uint32(rdev>>12)&^uint32(0xff)
	return major, minor
}

// DeviceNumber is the inverse: what mknod(2) takes.
func DeviceNumber(major, minor uint32) int {
	return int(uint64(minor&0xff) | uint64(major&0xfff)<<8 | uint64(minor&^uint32(0xff))<<12 | uint64(major&^uint32(0xfff))<<32)
}

// readXattrs returns the extended attributes of a file that is no symbolic link, for which keep holds.
// A file system without them has none.
func readXattrs(real string, keep func(string) bool) (map[string]string, error) {
	size, err := syscall.Listxattr(real, nil)
	if err != nil || size == 0 {
		return nil, ignoreUnsupported(err, "listxattr", real)
	}
	list := make([]byte, size)
	if size, err = syscall.Listxattr(real, list); err != nil {
		return nil, &os.PathError{Op: "listxattr", Path: real, Err: err}
	}
	xattrs := map[string]string{}
	for name := range strings.SplitSeq(strings.TrimRight(string(list[:size]), "\x00"), "\x00") {
		if name == "" || !keep(name) {
			continue
		}
		value, err := getXattr(real, name)
		if err != nil {
			return nil, err
		}
		xattrs[name] = value
	}
	if len(xattrs) == 0 {
		return nil, nil
	}
	return xattrs, nil
}

func getXattr(real, name string) (string, error) {
	var buffer [256]byte
	n, err := syscall.Getxattr(real, name, buffer[:])
	if err == nil {
		return string(buffer[:n]), nil
	}
	if err != syscall.ERANGE {
		return "", &os.PathError{Op: "getxattr " + name, Path: real, Err: err}
	}
	large := make([]byte, 64<<10) // XATTR_SIZE_MAX of xattr(7)
	if n, err = syscall.Getxattr(real, name, large); err != nil {
		return "", &os.PathError{Op: "getxattr " + name, Path: real, Err: err}
	}
	return string(large[:n]), nil
}

func ignoreUnsupported(err error, op, real string) error {
	if err == nil || err == syscall.ENOTSUP {
		return nil
	}
	return &os.PathError{Op: op, Path: real, Err: err}
}
