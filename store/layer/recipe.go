package layer

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"
)

// A recipe is how to make a layer's tar archive from its directory. It is a zstd stream of records:
//
//	"davit layer recipe 1\n"
//	'R' uvarint(n) n bytes                              bytes of the archive as they are
//	'F' uvarint(size) uvarint(len(path)) path           size bytes, the content of a file
//	'E'                                                 the end
//
// path is relative to fs/, in clean form, free of symbolic links. A file that a later entry of the same
// archive replaced lies in extra/; see displaced.
const (
	recipeMagic = "davit layer recipe 1\n"
	recipeRaw   = 'R'
	recipeFile  = 'F'
	recipeEnd   = 'E'

	rawChunk = 64 << 10 // bytes of archive gathered into one record
)

// displaced says that what was at Path when Payloads files had been recorded moved to extra/<Extra>:
// it holds for the recipe's first Payloads files whose path is Path or below it.
type displaced struct {
	Payloads int    `json:"payloads"`
	Path     string `json:"path"`
	Extra    int    `json:"extra"`
}

// recipeWriter writes a recipe. Its first error is returned by close, so that callers need not look at
// each step.
type recipeWriter struct {
	file     *os.File
	zstd     *zstd.Encoder
	raw      []byte
	payloads int
	err      error
}

func createRecipe(path string) (*recipeWriter, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	z, err := zstd.NewWriter(f, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(512<<10), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	w := &recipeWriter{file: f, zstd: z, raw: make([]byte, 0, rawChunk)}
	w.write([]byte(recipeMagic))
	return w, nil
}

func (w *recipeWriter) write(p []byte) {
	if w.err == nil {
		_, w.err = w.zstd.Write(p)
	}
}

// addRaw records bytes of the archive.
func (w *recipeWriter) addRaw(p []byte) {
	for len(p) > 0 {
		n := min(len(p), rawChunk-len(w.raw))
		w.raw = append(w.raw, p[:n]...)
		p = p[n:]
		if len(w.raw) == rawChunk {
			w.flush()
		}
	}
}

// flush writes the gathered bytes as one record.
func (w *recipeWriter) flush() {
	if len(w.raw) == 0 {
		return
	}
	w.write(binary.AppendUvarint([]byte{recipeRaw}, uint64(len(w.raw))))
	w.write(w.raw)
	w.raw = w.raw[:0]
}

// addFile records that size bytes of the archive are the content of the file at path.
func (w *recipeWriter) addFile(path string, size int64) {
	w.flush()
	record := binary.AppendUvarint([]byte{recipeFile}, uint64(size))
	record = binary.AppendUvarint(record, uint64(len(path)))
	w.write(append(record, path...))
	w.payloads++
}

// close ends the recipe and returns the first error of all.
func (w *recipeWriter) close() error {
	w.flush()
	w.write([]byte{recipeEnd})
	return errors.Join(w.err, w.zstd.Close(), w.file.Close())
}

// abandon closes a recipe that nobody will read.
func (w *recipeWriter) abandon() {
	w.zstd.Close()
	w.file.Close()
}

// recipeReader yields the records of a recipe.
type recipeReader struct {
	file *os.File
	zstd *zstd.Decoder
	r    *bufio.Reader
}

func openRecipe(path string) (*recipeReader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	r := &recipeReader{file: f, zstd: z, r: bufio.NewReader(z)}
	magic := make([]byte, len(recipeMagic))
	if _, err := io.ReadFull(r.r, magic); err != nil || string(magic) != recipeMagic {
		r.close()
		return nil, fmt.Errorf("%s is not a layer recipe of this version", path)
	}
	return r, nil
}

// next returns the next record: raw, whose n bytes the caller copies from the returned reader, or a
// file's path and size n. At the end kind is recipeEnd.
func (r *recipeReader) next() (kind byte, n int64, path string, err error) {
	if kind, err = r.r.ReadByte(); err != nil {
		return 0, 0, "", unexpected(err)
	}
	if kind == recipeEnd {
		return kind, 0, "", nil
	}
	size, err := binary.ReadUvarint(r.r)
	if err != nil || kind == recipeRaw {
		return kind, int64(size), "", unexpected(err)
	}
	if kind != recipeFile {
		return 0, 0, "", fmt.Errorf("recipe has a record of unknown kind %q", kind)
	}
	length, err := binary.ReadUvarint(r.r)
	if err != nil || length > maxPath {
		return 0, 0, "", fmt.Errorf("recipe has a path of %d bytes: %w", length, unexpected(err))
	}
	name := make([]byte, length)
	_, err = io.ReadFull(r.r, name)
	return kind, int64(size), string(name), unexpected(err)
}

// unexpected says that an end of file is one too early.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (r *recipeReader) close() {
	r.zstd.Close()
	r.file.Close()
}
