package logs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
	"unicode/utf8"
)

// MaxLine is how many bytes of output one entry holds; a longer line is split.
const MaxLine = 16 << 10

// WriterOptions say where a Writer writes and how much it keeps.
type WriterOptions struct {
	Path     string            // the current file; it and its directory are made for the first entry
	MaxSize  int64             // bytes in one file; 0: unlimited
	MaxFiles int               // files in all, the current one included; less than 1 means 1
	Attrs    map[string]string // written with each entry
	Buffers  *Buffers          // shared among writers; nil: the writer's own
}

// Buffers lends memory to writers while they write, so that an idle one holds none.
type Buffers struct{ pool sync.Pool }

func (p *Buffers) get() []byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return make([]byte, 0, 64<<10)
}

func (p *Buffers) put(b []byte) { p.pool.Put(&b) }

// Writer appends output to a log. Its methods may be called concurrently.
//
// A file that cannot be written (disk full) loses entries, never blocks and never stops the writer:
// Failures counts what was lost.
type Writer struct {
	options WriterOptions
	attrs   string // JSON

	mu      sync.Mutex
	file    *os.File
	size    int64
	torn    bool // the file may end in a part of a line
	partial map[Stream][]byte
	lost    int
	last    error
}

// NewWriter makes a writer that appends to the log; what is there stays.
func NewWriter(o WriterOptions) (*Writer, error) {
	if o.Buffers == nil {
		o.Buffers = new(Buffers)
	}
	w := &Writer{options: o, partial: make(map[Stream][]byte)}
	if len(o.Attrs) > 0 {
		attrs, err := json.Marshal(o.Attrs)
		if err != nil {
			return nil, fmt.Errorf("encode log attributes: %w", err)
		}
		w.attrs = string(attrs)
	}
	return w, nil
}

func (w *Writer) open() error {
	file, err := openAppending(w.options.Path)
	if errors.Is(err, os.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(w.options.Path), 0o710); err == nil {
			file, err = openAppending(w.options.Path)
		}
	}
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return fmt.Errorf("open log: %w", err)
	}
	w.file, w.size = file, info.Size()
	return nil
}

func openAppending(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
}

// Write logs output of a stream. Complete lines are in the file when it returns, the beginning of a
// line waits for the rest of it, for MaxLine bytes or for Flush.
func (w *Writer) Write(stream Stream, p []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.batch()
	if held := w.partial[stream]; len(held) > 0 {
		end := bytes.IndexByte(p, '\n') + 1
		if end == 0 {
			end = len(p)
		}
		end = min(end, MaxLine-len(held))
		held = append(held, p[:end]...)
		p = p[end:]
		if !complete(held) {
			w.partial[stream] = held
			b.flush()
			return
		}
		delete(w.partial, stream)
		p = w.addHeld(b, stream, held, p)
	}
	w.addLines(b, stream, p)
	b.flush()
}

// complete says whether a piece of output makes an entry by itself.
func complete(line []byte) bool {
	return len(line) >= MaxLine || line[len(line)-1] == '\n'
}

// addHeld adds a line of which the beginning was held back. A character cut off by MaxLine goes back in
// front of the rest.
func (w *Writer) addHeld(b *batch, stream Stream, held, rest []byte) []byte {
	line := wholeRunes(held)
	b.add(stream, line)
	if cut := held[len(line):]; len(cut) > 0 {
		return append(bytes.Clone(cut), rest...)
	}
	return rest
}

// addLines adds the complete lines of p and holds back the last piece.
func (w *Writer) addLines(b *batch, stream Stream, p []byte) {
	for len(p) > 0 {
		line := p
		if end := bytes.IndexByte(p, '\n'); end >= 0 {
			line = p[:end+1]
		}
		if len(line) > MaxLine {
			line = wholeRunes(line[:MaxLine])
		} else if !complete(line) {
			w.partial[stream] = bytes.Clone(line)
			return
		}
		b.add(stream, line)
		p = p[len(line):]
	}
}

// wholeRunes cuts an incomplete UTF-8 sequence off the end of a piece.
func wholeRunes(p []byte) []byte {
	for i := len(p) - 1; i >= 0 && i >= len(p)-utf8.UTFMax; i-- {
		if utf8.RuneStart(p[i]) {
			if !utf8.FullRune(p[i:]) {
				return p[:i]
			}
			break
		}
	}
	return p
}

// Flush logs the beginning of a line that is held back: the stream has ended.
func (w *Writer) Flush(stream Stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	held := w.partial[stream]
	if len(held) == 0 {
		return
	}
	delete(w.partial, stream)
	b := w.batch()
	b.add(stream, held)
	b.flush()
}

// Held returns a copy of the beginnings of lines that are held back, by stream, for Restore in the
// process that takes over.
func (w *Writer) Held() map[Stream][]byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	held := make(map[Stream][]byte, len(w.partial))
	for stream, line := range w.partial {
		held[stream] = bytes.Clone(line)
	}
	return held
}

// Restore puts back what Held returned.
func (w *Writer) Restore(held map[Stream][]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for stream, line := range held {
		w.partial[stream] = line
	}
}

// Failures returns how many entries were lost and why the last one was.
func (w *Writer) Failures() (lost int, last error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lost, w.last
}

// Close closes the file. What Flush was not called for is lost.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		return nil
	}
	err := w.file.Close()
	w.file = nil
	return err
}

// batch collects entries of one moment and writes them at once.
type batch struct {
	w       *Writer
	at      []byte // the time, formatted once
	buf     []byte
	entries int
}

func (w *Writer) batch() *batch {
	b := &batch{w: w, buf: w.options.Buffers.get()}
	b.at = time.Now().UTC().AppendFormat(make([]byte, 0, len(time.RFC3339Nano)), time.RFC3339Nano)
	return b
}

// add appends an entry. Where it would make the file too large, what was collected is written and the
// file rotated first, so that no file exceeds MaxSize by more than the one entry it holds.
func (b *batch) add(stream Stream, line []byte) {
	start := len(b.buf)
	b.buf = appendRecord(b.buf, line, stream, b.w.attrs, b.at)
	b.entries++
	limit := b.w.options.MaxSize
	if limit <= 0 || b.w.size+int64(len(b.buf)) <= limit {
		return
	}
	last := bytes.Clone(b.buf[start:])
	b.buf, b.entries = b.buf[:start], b.entries-1
	b.write()
	if b.w.full(int64(len(last))) {
		b.w.rotate()
	}
	b.buf, b.entries = append(b.buf, last...), 1
}

// full says whether n more bytes are too many. Only here is it noticed that the file was cleared.
func (w *Writer) full(n int64) bool {
	if w.file == nil {
		return false
	}
	if info, err := w.file.Stat(); err == nil {
		w.size = info.Size()
	}
	return w.size > 0 && w.size+n > w.options.MaxSize
}

// flush writes the rest and gives the buffer back.
func (b *batch) flush() {
	b.write()
	b.w.options.Buffers.put(b.buf)
}

func (b *batch) write() {
	if len(b.buf) == 0 {
		return
	}
	if err := b.w.append(b.buf); err != nil {
		b.w.lost += b.entries
		b.w.last = err
	}
	b.buf, b.entries = b.buf[:0], 0
}

// append writes to the file. After a write that failed halfway the next one begins on a new line.
func (w *Writer) append(p []byte) error {
	if w.file == nil {
		if err := w.open(); err != nil {
			return err
		}
	}
	if w.torn {
		if n, err := w.file.Write([]byte{'\n'}); err != nil {
			return fmt.Errorf("write log: %w", err)
		} else {
			w.size += int64(n)
		}
		w.torn = false
	}
	n, err := w.file.Write(p)
	w.size += int64(n)
	if err != nil {
		w.torn = n > 0
		return fmt.Errorf("write log: %w", err)
	}
	return nil
}

// rotate moves every file one number up, the last one away, and begins a new one. When that fails the
// present file goes on growing: output is worth more than the limit.
func (w *Writer) rotate() {
	path, files := w.options.Path, max(w.options.MaxFiles, 1)
	if files == 1 {
		if err := os.Truncate(path, 0); err != nil {
			w.last = fmt.Errorf("rotate log: %w", err)
			return
		}
		w.size = 0
		return
	}
	for i := files - 1; i > 0; i-- {
		if err := os.Rename(numbered(path, i-1), numbered(path, i)); err != nil && !errors.Is(err, os.ErrNotExist) {
			w.last = fmt.Errorf("rotate log: %w", err)
			return
		}
	}
	if w.file != nil {
		w.file.Close()
		w.file = nil
	}
	if err := w.open(); err != nil {
		w.last = err
	}
}

// numbered returns the path of the i-th file before the current one, which is number 0.
func numbered(path string, i int) string {
	if i == 0 {
		return path
	}
	return fmt.Sprintf("%s.%d", path, i)
}
