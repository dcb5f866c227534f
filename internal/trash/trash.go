// Package trash makes deleting directory trees look instant: a tree is renamed into a bin, which one
// background goroutine empties. What a crash leaves in the bin is deleted after the next Open.
package trash

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Bin is a directory whose content is being deleted. Its methods are safe for concurrent use.
type Bin struct {
	dir  string
	log  *slog.Logger
	wake chan struct{} // holds one token while there may be something to delete
	quit chan struct{}
	done chan struct{}

	mu      sync.Mutex
	next    int           // part of the next name in the bin
	put     int           // trees that came into the bin so far
	deleted int           // how many of them had been put when all that was there was deleted
	changed chan struct{} // closed, and made anew, when deleted grows
}

// Open makes the bin at dir, which lies on the file system of the trees to come, and starts emptying
// it. Close stops that.
func Open(dir string, log *slog.Logger) (*Bin, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open trash: %w", err)
	}
	b := &Bin{dir: dir, log: log, wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}), changed: make(chan struct{})}
	b.wake <- struct{}{}
	go b.run()
	return b, nil
}

// Put moves path, a file or directory tree, into the bin. Afterwards path is free for something else. When
// the bin cannot grow because the disk is full, Put deletes path itself.
func (b *Bin) Put(path string) error {
	b.mu.Lock()
	b.next++
	name := strconv.FormatInt(time.Now().UnixNano(), 36) + "-" + strconv.Itoa(b.next)
	b.mu.Unlock()
	err := os.Rename(path, filepath.Join(b.dir, name))
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return os.RemoveAll(path)
	}
	if err != nil {
		return err
	}
	b.mu.Lock()
	b.put++ // only now: who reads it lists the directory next
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default: // it will look anyway
	}
	return nil
}

// Wait returns once what was put before is deleted, so far as it can be: its place on the disk is free.
func (b *Bin) Wait(ctx context.Context) error {
	b.mu.Lock()
	target := b.put
	b.mu.Unlock()
	for {
		b.mu.Lock()
		deleted, changed := b.deleted, b.changed
		b.mu.Unlock()
		if deleted >= target {
			return nil
		}
		select {
		case <-changed:
		case <-b.done:
			return errors.New("empty trash: it is closed")
		case <-ctx.Done():
			return fmt.Errorf("empty trash: %w", ctx.Err())
		}
	}
}

// Close stops emptying the bin. It waits for the tree that is being deleted, at most until ctx ends.
func (b *Bin) Close(ctx context.Context) error {
	close(b.quit)
	select {
	case <-b.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close trash: %w", ctx.Err())
	}
}

func (b *Bin) run() {
	defer close(b.done)
	for {
		select {
		case <-b.quit:
			return
		case <-b.wake:
			b.empty()
		}
	}
}

// empty deletes what is in the bin now. What cannot be deleted stays for the next Open.
func (b *Bin) empty() {
	b.mu.Lock()
	put := b.put
	b.mu.Unlock()
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		b.log.Warn("cannot read trash", "dir", b.dir, "error", err)
	}
	for _, entry := range entries {
		select {
		case <-b.quit:
			return
		default:
		}
		b.remove(filepath.Join(b.dir, entry.Name()))
	}
	b.mu.Lock()
	b.deleted = put
	close(b.changed)
	b.changed = make(chan struct{})
	b.mu.Unlock()
}

func (b *Bin) remove(path string) {
	if err := os.RemoveAll(path); err == nil {
		return
	}
	// As a user without CAP_DAC_OVERRIDE one cannot empty directories that lack the write bit.
	_ = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(p, 0o700)
		}
		return err
	})
	if err := os.RemoveAll(path); err != nil {
		b.log.Warn("cannot delete", "path", path, "error", err)
	}
}
