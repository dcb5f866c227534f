package logs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

// lines reads a growing file line by line, with positioned reads.
type lines struct {
	file  *os.File
	read  int64  // offset of the next byte to read from the file
	buf   []byte // what is read and not yet returned begins at buf[start:]
	start int
}

const readSize = 64 << 10

// set goes over to another file, which belongs to l from now on.
func (l *lines) set(f *os.File, offset int64) {
	l.close()
	l.file, l.read = f, offset
	l.buf, l.start = l.buf[:0], 0
}

func (l *lines) close() {
	closeFile(l.file)
	l.file = nil
}

// in says whether f is the present file.
func (l *lines) in(f *os.File) (bool, error) {
	if l.file == nil {
		return false, nil
	}
	a, err := l.file.Stat()
	if err != nil {
		return false, fmt.Errorf("read log: %w", err)
	}
	b, err := f.Stat()
	if err != nil {
		return false, fmt.Errorf("read log: %w", err)
	}
	return os.SameFile(a, b), nil
}

// next returns the next line with its newline, or nil when there is no complete one yet. The line is
// valid until the next call.
func (l *lines) next() ([]byte, error) {
	searched := 0
	for {
		rest := l.buf[l.start:]
		if end := bytes.IndexByte(rest[searched:], '\n'); end >= 0 {
			line := rest[:searched+end+1]
			l.start += len(line)
			return line, nil
		}
		searched = len(rest)
		more, err := l.fill()
		if err != nil || !more {
			return nil, err
		}
	}
}

// fill reads on. It says whether there was anything.
func (l *lines) fill() (bool, error) {
	if l.file == nil {
		return false, nil
	}
	l.buf = append(l.buf[:0], l.buf[l.start:]...)
	l.start = 0
	l.buf = append(l.buf, make([]byte, readSize)...)
	n, err := l.file.ReadAt(l.buf[len(l.buf)-readSize:], l.read)
	l.buf = l.buf[:len(l.buf)-readSize+n]
	l.read += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("read log: %w", err)
	}
	return n > 0, nil
}

// rewindIfCleared goes back to the beginning of a file that was cut since. It is recognised by being
// shorter than what was read, or, when it has grown again meanwhile, by what was read last not ending
// where it did.
func (l *lines) rewindIfCleared() error {
	if l.file == nil || l.read == 0 {
		return nil
	}
	info, err := l.file.Stat()
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	boundary := l.read - int64(len(l.buf)-l.start) // where the next line begins
	cut := info.Size() < l.read
	if !cut && boundary > 0 {
		var before [1]byte
		if _, err := l.file.ReadAt(before[:], boundary-1); err != nil || before[0] != '\n' {
			cut = true
		}
	}
	if cut {
		l.read, l.buf, l.start = 0, l.buf[:0], 0
	}
	return nil
}
