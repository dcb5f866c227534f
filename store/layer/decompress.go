package layer

import (
	"io"

	"davit/oci/errdefs"
)

// Compression names how a layer blob is compressed.
type Compression string

// The compressions that Decompress recognises.
const (
	Plain Compression = "plain"
	Gzip  Compression = "gzip"
	Zstd  Compression = "zstd"
	Bzip2 Compression = "bzip2"
	Xz    Compression = "xz"
)

// Decompress looks at the first bytes of r and returns its uncompressed content. Decompression runs
// ahead of the reader in a goroutine, which ends at the end of r, on an error, or at Close; Close does
// not close r, and after it r is no longer read.
func Decompress(r io.Reader) (io.ReadCloser, Compression, error) {
	return nil, "", errdefs.NotImplemented("layer.Decompress")
}
