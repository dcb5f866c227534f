package webhook

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"davit/internal/atomicfile"
)

// queue keeps the lines that one endpoint is still to get, in files that any reader can follow:
//
//	<dir>/<number>.log    lines, the oldest in the lowest number
//	<dir>/done            "<number> <offset>": the lines before that are delivered
//
// A line is in the file when append returns, so a killed process loses none; nothing is synced, so a machine
// that goes down may lose the last ones. One process has a queue at a time.
type queue struct {
	dir     string
	segment int64 // size at which the next file is begun
	wake    chan struct{}

	mu       sync.Mutex
	limit    int64      // of all files together
	segments []*segment // oldest first
	out      *os.File   // the last of them, once something is appended
	at       position   // of the oldest line that is not delivered
}

type segment struct {
	number  uint64
	size    int64
	pending int // lines from at on
}

type position struct {
	number uint64
	offset int64
}

// openQueue finds what an earlier process left.
func openQueue(dir string, limit int64) (*queue, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open queue: %w", err)
	}
	q := &queue{dir: dir, wake: make(chan struct{}, 1)}
	q.setLimit(limit)
	names, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		return nil, fmt.Errorf("open queue: %w", err)
	}
	if q.at, err = readPosition(filepath.Join(dir, "done")); err != nil {
		return nil, fmt.Errorf("open queue %s: %w", dir, err)
	}
	for _, name := range names {
		number, err := strconv.ParseUint(strings.TrimSuffix(filepath.Base(name), ".log"), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("open queue: %s is no segment", name)
		}
		q.segments = append(q.segments, &segment{number: number})
	}
	slices.SortFunc(q.segments, func(a, b *segment) int { return int(int64(a.number) - int64(b.number)) })
	for len(q.segments) > 0 && q.segments[0].number < q.at.number {
		if err := q.dropFirst(); err != nil {
			return nil, err
		}
	}
	for _, s := range q.segments {
		if err := q.measure(s); err != nil {
			return nil, fmt.Errorf("open queue %s: %w", dir, err)
		}
	}
	return q, nil
}

func readPosition(path string) (p position, err error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return p, nil
	}
	if err == nil {
		_, err = fmt.Sscanf(string(text), "%d %d", &p.number, &p.offset)
	}
	return p, err
}

func (q *queue) path(number uint64) string {
	return filepath.Join(q.dir, fmt.Sprintf("%012d.log", number))
}

// measure counts a segment's lines, and cuts off one that was not written to its end: nobody was told that
// it is there.
func (q *queue) measure(s *segment) error {
	content, err := os.ReadFile(q.path(s.number))
	if err != nil {
		return err
	}
	whole := content[:bytes.LastIndexByte(content, '\n')+1]
	if len(whole) < len(content) {
		if err := os.Truncate(q.path(s.number), int64(len(whole))); err != nil {
			return err
		}
	}
	s.size = int64(len(whole))
	if q.at.number < s.number || s.size < q.at.offset {
		s.pending = bytes.Count(whole, []byte("\n"))
		if q.at.number == s.number { // a cursor beyond the end is none
			q.at.offset = 0
		}
	} else {
		s.pending = bytes.Count(whole[q.at.offset:], []byte("\n"))
	}
	return nil
}

// setLimit bounds the bytes of the files; the next append drops what is beyond.
func (q *queue) setLimit(bytes int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.limit, q.segment = bytes, min(1<<20, bytes/4)
}

// append adds a line, and returns how many of the oldest were dropped for it.
func (q *queue) append(line []byte) (dropped int, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	last, err := q.last()
	if err != nil {
		return 0, err
	}
	if _, err := q.out.Write(line); err != nil {
		return 0, errors.Join(fmt.Errorf("keep event: %w", err), q.out.Truncate(last.size))
	}
	last.size += int64(len(line))
	last.pending++
	for q.size() > q.limit && len(q.segments) > 1 {
		dropped += q.segments[0].pending
		if err := q.dropFirst(); err != nil {
			return dropped, err
		}
	}
	select {
	case q.wake <- struct{}{}:
	default: // it is awake
	}
	return dropped, nil
}

// last returns the segment to append to, whose file is out.
func (q *queue) last() (*segment, error) {
	number := q.at.number + 1
	if n := len(q.segments); n > 0 {
		last := q.segments[n-1]
		if q.out != nil && last.size < q.segment {
			return last, nil
		}
		number = last.number + 1
	}
	file, err := os.OpenFile(q.path(number), os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("keep event: %w", err)
	}
	if err := q.closeOut(); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	q.out = file
	q.segments = append(q.segments, &segment{number: number})
	return q.segments[len(q.segments)-1], nil
}

func (q *queue) size() (sum int64) {
	for _, s := range q.segments {
		sum += s.size
	}
	return sum
}

func (q *queue) pending() (sum int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, s := range q.segments {
		sum += s.pending
	}
	return sum
}

// dropFirst forgets the oldest segment. The cursor on disk may still name it, which openQueue understands.
func (q *queue) dropFirst() error {
	first := q.segments[0]
	q.segments = q.segments[1:]
	if len(q.segments) == 0 {
		if err := q.closeOut(); err != nil {
			return err
		}
	}
	if q.at.number <= first.number {
		q.at = position{first.number + 1, 0}
	}
	if err := os.Remove(q.path(first.number)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("drop events: %w", err)
	}
	return nil
}

// next returns the oldest line that is not delivered; ok is false when there is none.
func (q *queue) next() (line []byte, at position, ok bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.segments) > 0 && q.segments[0].pending == 0 {
		if len(q.segments) == 1 && q.segments[0].size < q.segment {
			return nil, q.at, false, nil
		}
		if err := q.dropFirst(); err != nil {
			return nil, q.at, false, err
		}
	}
	if len(q.segments) == 0 {
		return nil, q.at, false, nil
	}
	if first := q.segments[0].number; q.at.number != first {
		q.at = position{first, 0}
	}
	line, err = q.read(q.at)
	return line, q.at, err == nil, err
}

func (q *queue) read(at position) ([]byte, error) {
	file, err := os.Open(q.path(at.number))
	if err != nil {
		return nil, fmt.Errorf("read event: %w", err)
	}
	defer file.Close()
	line, err := bufio.NewReader(io.NewSectionReader(file, at.offset, 1<<30)).ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("read event: %w", err)
	}
	return line, nil
}

// done says that the line at a position, of so many bytes, is delivered. One that was dropped meanwhile has
// been counted already.
func (q *queue) done(at position, length int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if at != q.at || len(q.segments) == 0 {
		return nil
	}
	q.at.offset += int64(length)
	q.segments[0].pending--
	text := fmt.Appendf(nil, "%d %d", q.at.number, q.at.offset)
	if err := atomicfile.WriteUnsynced(filepath.Join(q.dir, "done"), text, 0o600); err != nil {
		return fmt.Errorf("note delivery: %w", err)
	}
	return nil
}

func (q *queue) closeOut() (err error) {
	if q.out != nil {
		err = q.out.Close()
		q.out = nil
	}
	return err
}

func (q *queue) close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closeOut()
}

// skip forgets the oldest segment, which cannot be read, and returns how many lines that were.
func (q *queue) skip(at position) (dropped int, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.segments) == 0 || q.segments[0].number != at.number {
		return 0, nil
	}
	dropped = q.segments[0].pending
	return dropped, q.dropFirst()
}

// remove forgets everything, and returns how many lines that were.
func (q *queue) remove() (int, error) {
	n := q.pending()
	return n, errors.Join(q.close(), os.RemoveAll(q.dir))
}
