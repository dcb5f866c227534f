package webhook

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// place is one process's part of the directory of queues. Who has locked a place has it; the kernel unlocks
// it when the process is gone, however it went.
//
//	<dir>/<n>/lock
//	<dir>/<n>/<endpoint>/...    see queue
type place struct {
	dir    string // of all places
	number int
	lock   *os.File
}

// mostPlaces is how many processes may share a directory.
const mostPlaces = 1000

// takePlace takes the first that nobody has, so that a process which comes again finds its queues.
func takePlace(dir string) (*place, error) {
	for n := range mostPlaces {
		path := filepath.Join(dir, strconv.Itoa(n))
		if err := os.MkdirAll(path, 0o700); err != nil {
			return nil, fmt.Errorf("open directory of webhooks: %w", err)
		}
		lock, err := tryLock(filepath.Join(path, "lock"))
		if err != nil {
			return nil, fmt.Errorf("open directory of webhooks: %w", err)
		}
		if lock != nil {
			return &place{dir, n, lock}, nil
		}
	}
	return nil, fmt.Errorf("open directory of webhooks: %s is shared by %d processes already", dir, mostPlaces)
}

// tryLock returns nil when somebody else has the lock.
func tryLock(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err != nil {
		err = errors.Join(ignore(err, syscall.EWOULDBLOCK), file.Close())
		return nil, err
	}
	return file, nil
}

func ignore(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}

func (p *place) queue(endpoint string) string {
	return filepath.Join(p.dir, strconv.Itoa(p.number), endpoint)
}

// close may be called again.
func (p *place) close() error { return ignore(p.lock.Close(), os.ErrClosed) }

// each calls f with the name of every queue in the place.
func (p *place) each(f func(endpoint string) error) error {
	return eachQueue(filepath.Dir(p.lock.Name()), f)
}

func eachQueue(dir string, f func(endpoint string) error) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		if err := f(entry.Name()); err != nil {
			return err
		}
	}
	return nil
}

// adopt hands the lines in places that nobody has to take, and empties these places. A process that is
// killed meanwhile leaves what the next one takes again.
func (p *place) adopt(take func(endpoint string, line []byte)) error {
	places, err := os.ReadDir(p.dir)
	if err != nil {
		return err
	}
	for _, entry := range places {
		if n, err := strconv.Atoi(entry.Name()); err != nil || n == p.number {
			continue
		}
		lock, err := tryLock(filepath.Join(p.dir, entry.Name(), "lock"))
		if err != nil {
			return err
		}
		if lock == nil {
			continue
		}
		err = adoptPlace(filepath.Join(p.dir, entry.Name()), take)
		if err = errors.Join(err, lock.Close()); err != nil {
			return err
		}
	}
	return nil
}

func adoptPlace(dir string, take func(endpoint string, line []byte)) error {
	return eachQueue(dir, func(endpoint string) error {
		q, err := openQueue(filepath.Join(dir, endpoint), 1<<62)
		if err != nil {
			return err
		}
		return q.drain(func(line []byte) { take(endpoint, line) })
	})
}

// drain hands over all lines and removes the queue.
func (q *queue) drain(take func(line []byte)) error {
	for _, s := range q.segments {
		content, err := os.ReadFile(q.path(s.number))
		if err != nil {
			return err
		}
		if s.number == q.at.number {
			content = content[q.at.offset:]
		}
		for line := range bytes.Lines(content) {
			take(line)
		}
	}
	_, err := q.remove()
	return err
}
