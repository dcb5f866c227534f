package layer

import (
	"context"
	"io"

	"davit/oci/errdefs"
)

// Pack writes the OCI layer tar of an overlay upper directory: entries sorted by name, parents first,
// numeric owners, times to the nanosecond, hard links, xattrs (PAX SCHILY.xattr), no access times. The
// same directory gives the same bytes. Whiteouts become .wh.name entries, opaque directories a
// .wh..wh..opq entry; overlayfs's own xattrs are left out. Sockets have no form in a tar and are left
// out too. A directory that overlayfs made with redirect_dir or metacopy does not hold its content and
// is refused (errdefs.ErrInvalid), as is a file whose name begins with .wh.
//
// Of a plain directory without whiteouts it writes the tar of its files.
func Pack(ctx context.Context, w io.Writer, upper string) error {
	return errdefs.NotImplemented("layer.Pack")
}
