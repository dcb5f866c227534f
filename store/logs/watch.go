package logs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// pollInterval is how often a log is looked at where inotify has no instance left (their number is
// limited per user).
const pollInterval = 200 * time.Millisecond

// watch waits for changes in a log's directory.
type watch struct {
	ctx    context.Context
	done   <-chan struct{}
	events *os.File      // inotify; nil: poll
	closed chan struct{} // stops the goroutine that interrupts a wait
}

// newWatch begins to watch. Changes from now on end the next wait.
func newWatch(ctx context.Context, path string, done <-chan struct{}) *watch {
	w := &watch{ctx: ctx, done: done, closed: make(chan struct{})}
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return w
	}
	const changes = syscall.IN_MODIFY | syscall.IN_CREATE | syscall.IN_MOVED_TO | syscall.IN_DELETE | syscall.IN_DELETE_SELF
	if _, err := syscall.InotifyAddWatch(fd, filepath.Dir(path), changes); err != nil {
		syscall.Close(fd)
		return w
	}
	w.events = os.NewFile(uintptr(fd), "inotify")
	go w.interrupt()
	return w
}

// interrupt ends a wait when ctx or done does.
func (w *watch) interrupt() {
	select {
	case <-w.ctx.Done():
	case <-w.done:
	case <-w.closed:
		return
	}
	w.events.SetReadDeadline(time.Unix(1, 0))
}

func (w *watch) close() {
	close(w.closed)
	closeFile(w.events)
}

// ended says whether nothing more is to be waited for.
func (w *watch) ended() bool {
	select {
	case <-w.ctx.Done():
		return true
	case <-w.done:
		return true
	default:
		return false
	}
}

// wait returns after a change, at the moment until (if any), or when ended does.
func (w *watch) wait(until time.Time) error {
	if w.events == nil {
		return w.poll()
	}
	if !until.IsZero() && !w.ended() {
		w.events.SetReadDeadline(until.Add(time.Millisecond))
		if w.ended() { // its interruption may have been overwritten
			return nil
		}
	}
	var buf [4096]byte
	_, err := w.events.Read(buf[:])
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("watch log: %w", err)
	}
	return nil
}

func (w *watch) poll() error {
	timer := time.NewTimer(pollInterval)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.ctx.Done():
	case <-w.done:
	}
	return nil
}
