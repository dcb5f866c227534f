package delta

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"davit/oci"
	"davit/oci/errdefs"
)

// Archive is the tar archive of a layer that is here.
type Archive interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// Reader makes the archive out of a delta. It is an io.Reader of it.
type Reader struct {
	zstd  *zstd.Decoder
	in    *bufio.Reader
	bases []oci.DiffID
	open  []Archive
	size  int64
	left  int64 // bytes of the archive to come

	kind   byte // of the record in hand, which makes n bytes more
	n      int64
	base   Archive
	offset int64
}

// NewReader reads the head of a delta. An archive of more than limit bytes is refused: a few bytes of a
// delta can stand for very many. Damage of any kind is errdefs.ErrDataLoss, here and in Read.
func NewReader(r io.Reader, limit int64) (*Reader, error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(2*window))
	if err != nil {
		return nil, fmt.Errorf("read delta: %w", err)
	}
	d := &Reader{zstd: z, in: bufio.NewReaderSize(z, 64<<10)}
	if err := d.head(limit); err != nil {
		z.Close()
		return nil, damaged(err)
	}
	return d, nil
}

func damaged(err error) error {
	return errdefs.As(errdefs.ErrDataLoss, fmt.Errorf("read delta: %w", unexpected(err)))
}

func (d *Reader) head(limit int64) error {
	head := make([]byte, len(magic))
	if _, err := io.ReadFull(d.in, head); err != nil {
		return err
	}
	if string(head) != magic {
		return fmt.Errorf("it begins with %q", head)
	}
	var err error
	if d.size, err = d.number(limit); err != nil {
		return fmt.Errorf("size of the archive: %w", err)
	}
	d.left = d.size
	count, err := d.number(MaxBases)
	if err != nil {
		return fmt.Errorf("number of layers: %w", err)
	}
	for range count {
		id, err := d.diffID()
		if err != nil {
			return err
		}
		d.bases = append(d.bases, id)
	}
	return nil
}

func (d *Reader) diffID() (oci.DiffID, error) {
	const longest = len("sha512:") + 128
	length, err := d.number(int64(longest))
	if err != nil {
		return "", err
	}
	b := make([]byte, length)
	if _, err := io.ReadFull(d.in, b); err != nil {
		return "", err
	}
	id, err := oci.ParseDigest(string(b))
	return oci.DiffID(id), err
}

// number reads an unsigned number that must not exceed the limit.
func (d *Reader) number(limit int64) (int64, error) {
	n, err := binary.ReadUvarint(d.in)
	if err == nil && n > uint64(max(limit, 0)) {
		err = fmt.Errorf("%d is more than %d", n, limit)
	}
	return int64(n), err
}

// Bases returns the layers that the delta copies from.
func (d *Reader) Bases() []oci.DiffID { return d.bases }

// Size returns the bytes of the archive, as the delta says.
func (d *Reader) Size() int64 { return d.size }

// Use opens the bases, before the first Read. Close closes them.
func (d *Reader) Use(open func(oci.DiffID) (Archive, error)) error {
	for _, id := range d.bases {
		base, err := open(id)
		if err != nil {
			return fmt.Errorf("open layer %s, which the delta copies from: %w", oci.Digest(id).Short(), err)
		}
		d.open = append(d.open, base)
	}
	return nil
}

// Read implements io.Reader.
func (d *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for d.n == 0 {
		if d.kind == opEnd {
			return 0, io.EOF
		}
		if err := d.record(); err != nil {
			return 0, damaged(err)
		}
	}
	p = p[:min(int64(len(p)), d.n)]
	var n int
	var err error
	if d.kind == opCopy {
		n, err = d.base.ReadAt(p, d.offset)
		if err == io.EOF && n == len(p) {
			err = nil
		}
		d.offset += int64(n)
	} else {
		n, err = d.in.Read(p)
	}
	d.n -= int64(n)
	d.left -= int64(n)
	if err != nil {
		return n, damaged(err)
	}
	return n, nil
}

// record reads the next record.
func (d *Reader) record() (err error) {
	if d.kind, err = d.in.ReadByte(); err != nil {
		return err
	}
	switch d.kind {
	case opEnd:
		if d.left != 0 {
			return fmt.Errorf("it ends %d bytes before the archive does", d.left)
		}
		return nil
	case opLiteral:
		d.n, err = d.number(d.left)
	case opCopy:
		err = d.copyRecord()
	default:
		return fmt.Errorf("record of unknown kind %q", d.kind)
	}
	if err == nil && d.n == 0 {
		return fmt.Errorf("record of no bytes") // of which a small stream could hold very many
	}
	return err
}

func (d *Reader) copyRecord() error {
	number, err := d.number(int64(len(d.open)) - 1)
	if err != nil {
		return fmt.Errorf("number of a layer: %w", err)
	}
	if len(d.open) == 0 {
		return fmt.Errorf("it copies from a layer and names none")
	}
	d.base = d.open[number]
	if d.offset, err = d.number(d.base.Size()); err != nil {
		return fmt.Errorf("offset in a layer: %w", err)
	}
	d.n, err = d.number(min(d.left, d.base.Size()-d.offset))
	return err
}

// Close lets go of the bases.
func (d *Reader) Close() error {
	d.zstd.Close()
	var first error
	for _, base := range d.open {
		if err := base.Close(); err != nil && first == nil {
			first = err
		}
	}
	d.open = nil
	return first
}
