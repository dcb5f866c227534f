package logs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// tail returns the file and offset where the last n entries begin.
func tail(files []*os.File, n int) (int, int64, error) {
	for i := len(files) - 1; i >= 0; i-- {
		offset, found, err := lastLines(files[i], n)
		if err != nil {
			return 0, 0, err
		}
		if n -= found; n <= 0 {
			return i, offset, nil
		}
	}
	return 0, 0, nil
}

// lastLines returns where the last n complete lines of a file begin, and how many there are (at most n).
// It reads backwards, as much as it needs.
func lastLines(f *os.File, n int) (offset int64, found int, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, 0, fmt.Errorf("read log: %w", err)
	}
	block := make([]byte, readSize)
	newlines := 0 // the n+1st from the end stands before the wanted lines
	for end := info.Size(); end > 0; {
		begin := max(end-readSize, 0)
		part := block[:end-begin]
		if _, err := f.ReadAt(part, begin); err != nil && !errors.Is(err, io.EOF) {
			return 0, 0, fmt.Errorf("read log: %w", err)
		}
		for at := bytes.LastIndexByte(part, '\n'); at >= 0; at = bytes.LastIndexByte(part[:at], '\n') {
			if newlines++; newlines > n {
				return begin + int64(at) + 1, n, nil
			}
		}
		end = begin
	}
	return 0, newlines, nil
}

// since returns the file and offset of the first entry not before t, or a place shortly before it.
func since(files []*os.File, t time.Time) (int, int64, error) {
	for i := len(files) - 1; i >= 0; i-- {
		first, _, ok, err := timeAt(files[i], 0)
		if err != nil {
			return 0, 0, err
		}
		if ok && first.Before(t) {
			offset, err := bisect(files[i], t)
			return i, offset, err
		}
	}
	return 0, 0, nil
}

// bisect returns the beginning of a line at or shortly before the first one not before t. The line at
// the file's beginning is before t.
func bisect(f *os.File, t time.Time) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("read log: %w", err)
	}
	low, high := int64(0), info.Size()
	for high-low > readSize {
		middle := low + (high-low)/2
		at, begin, ok, err := timeAt(f, middle)
		if err != nil {
			return 0, err
		}
		if ok && begin < high && at.Before(t) {
			low = begin
		} else {
			high = middle
		}
	}
	return low, nil
}

// timeAt returns the time and offset of the first whole line at or after offset; ok is false when
// there is none nearby.
func timeAt(f *os.File, offset int64) (at time.Time, begin int64, ok bool, err error) {
	l := lines{file: f, read: offset}
	begin = offset
	if offset > 0 {
		l.read-- // a line that begins exactly at offset is whole
		part, err := l.next()
		if err != nil || part == nil {
			return at, 0, false, err
		}
		begin = offset - 1 + int64(len(part))
	}
	for range 3 { // a torn line may lie in between
		line, err := l.next()
		if err != nil || line == nil {
			return at, 0, false, err
		}
		if entry, err := parse(line); err == nil {
			return entry.Time, begin, true, nil
		}
		begin += int64(len(line))
	}
	return at, 0, false, nil
}
