package delta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"davit/oci"
	"davit/store/chunk"
)

// Writer writes a delta. Its first error comes from all later calls.
type Writer struct {
	zstd *zstd.Encoder
	err  error
}

// NewWriter begins a delta of an archive of size bytes.
func NewWriter(w io.Writer, size int64, bases []oci.DiffID) (*Writer, error) {
	z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(window))
	if err != nil {
		return nil, err
	}
	head := binary.AppendUvarint([]byte(magic), uint64(size))
	head = binary.AppendUvarint(head, uint64(len(bases)))
	for _, base := range bases {
		head = binary.AppendUvarint(head, uint64(len(base)))
		head = append(head, base...)
	}
	d := &Writer{zstd: z}
	return d, d.write(head)
}

// window bounds how far back, in bytes, the compression looks: what a reader has to remember.
const window = 4 << 20

func (d *Writer) write(b []byte) error {
	if d.err == nil {
		_, d.err = d.zstd.Write(b)
	}
	return d.err
}

// Copy says that the next size bytes are those of a base at an offset.
func (d *Writer) Copy(base int, offset, size int64) error {
	b := binary.AppendUvarint([]byte{opCopy}, uint64(base))
	b = binary.AppendUvarint(b, uint64(offset))
	return d.write(binary.AppendUvarint(b, uint64(size)))
}

// Literal sends bytes.
func (d *Writer) Literal(b []byte) error {
	if err := d.write(binary.AppendUvarint([]byte{opLiteral}, uint64(len(b)))); err != nil {
		return err
	}
	return d.write(b)
}

// Close ends the delta. One that is left without is not complete, and its reader knows.
func (d *Writer) Close() error {
	if err := d.write([]byte{opEnd}); err != nil {
		return err
	}
	return d.zstd.Close()
}

// Write sends a plan for a list; literal returns the bytes of the list's chunks that are asked for, in order.
func Write(w io.Writer, want chunk.List, ops []Op, bases []oci.DiffID, literal func(n int) ([]byte, error)) error {
	d, err := NewWriter(w, want.Bytes(), bases)
	if err != nil {
		return fmt.Errorf("write delta: %w", err)
	}
	for _, op := range ops {
		if err := d.op(op, literal); err != nil {
			return fmt.Errorf("write delta: %w", err)
		}
	}
	return d.Close()
}

func (d *Writer) op(op Op, literal func(n int) ([]byte, error)) error {
	if op.Base >= 0 {
		return d.Copy(op.Base, op.Offset, op.Size)
	}
	for n := op.First; n < op.First+op.Chunks; n++ {
		b, err := literal(n)
		if err != nil {
			return err
		}
		if err := d.Literal(b); err != nil {
			return err
		}
	}
	return nil
}

// FromArchive returns a source of literals for Write that reads the wanted list's own archive once. ops are
// the plan; chunks that it does not send are passed over.
func FromArchive(archive io.Reader, want chunk.List) func(n int) ([]byte, error) {
	at := 0
	buf := make([]byte, chunk.Max)
	return func(n int) ([]byte, error) {
		var skip int64
		for ; at < n; at++ {
			skip += int64(want[at].Size)
		}
		if _, err := io.CopyN(io.Discard, archive, skip); err != nil {
			return nil, unexpected(err)
		}
		b := buf[:want[n].Size]
		_, err := io.ReadFull(archive, b)
		at = n + 1
		return b, unexpected(err)
	}
}

// unexpected says that an end is one too early.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
