package tree

import (
	"archive/tar"
	"strings"
)

// paxXattr begins the PAX records that carry extended attributes.
const paxXattr = "SCHILY.xattr."

// TarEntry turns the header of a tar archive's member into the entry name. A hard link is described
// as a regular file without content.
func TarEntry(name string, h *tar.Header) Entry {
	e := Entry{
		Path: name, Mode: h.FileInfo().Mode(), UID: h.Uid, GID: h.Gid, ModTime: h.ModTime,
		Major: uint32(h.Devmajor), Minor: uint32(h.Devminor),
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		e.Size = h.Size
	case tar.TypeSymlink:
		e.Link = h.Linkname
	}
	for record, value := range h.PAXRecords {
		if xattr, ok := strings.CutPrefix(record, paxXattr); ok && keepLayerXattr(xattr) {
			if e.Xattrs == nil {
				e.Xattrs = map[string]string{}
			}
			e.Xattrs[xattr] = value
		}
	}
	return e
}
