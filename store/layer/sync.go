package layer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"davit/kernel/sys"
)

// syncDelay is how long new layers may wait for the sync that covers them all. A pull of many layers
// should be over by then: the disk belongs to it.
const syncDelay = 5 * time.Second

// syncer makes new layers durable in the background.
type syncer struct {
	store   *Store
	arrived chan string // directories of new layers
	flush   chan chan error
	quit    chan struct{}
	done    chan struct{}
}

func startSyncer(s *Store) *syncer {
	y := &syncer{store: s, arrived: make(chan string), flush: make(chan chan error), quit: make(chan struct{}), done: make(chan struct{})}
	go y.run()
	return y
}

func (y *syncer) run() {
	defer close(y.done)
	var fresh []string // not durable yet
	timer := time.NewTimer(syncDelay)
	timer.Stop()
	for {
		select {
		case dir := <-y.arrived:
			fresh = append(fresh, dir)
			timer.Reset(syncDelay)
		case <-timer.C:
			if err := y.store.makeDurable(fresh); err != nil {
				y.store.log.Error("cannot sync layers", "error", err)
				timer.Reset(syncDelay)
				continue
			}
			fresh = nil
		case answer := <-y.flush:
			err := y.store.makeDurable(fresh)
			if err == nil {
				fresh = nil
				timer.Stop()
			}
			answer <- err
		case <-y.quit:
			return
		}
	}
}

// add hands a new layer over.
func (y *syncer) add(dir string) {
	select {
	case y.arrived <- dir:
	case <-y.quit: // without the mark; it counts as long as the machine stays up
	}
}

// now syncs what was added before.
func (y *syncer) now(ctx context.Context) error {
	answer := make(chan error, 1)
	select {
	case y.flush <- answer:
		return <-answer
	case <-ctx.Done():
		return ctx.Err()
	case <-y.quit:
		return errors.New("sync layers: the store is closed")
	}
}

// close syncs and ends the syncer.
func (y *syncer) close() error {
	err := y.now(context.Background())
	close(y.quit)
	<-y.done
	return err
}

// Sync returns once every layer that exists now survives a power failure.
func (s *Store) Sync(ctx context.Context) error { return s.syncer.now(ctx) }

// makeDurable syncs the file system and then marks the layers that were on it before.
func (s *Store) makeDurable(dirs []string) error {
	if len(dirs) == 0 {
		return nil
	}
	root, err := os.Open(s.root)
	if err != nil {
		return fmt.Errorf("sync layers: %w", err)
	}
	defer root.Close()
	if err := sys.Syncfs(int(root.Fd())); err != nil {
		return fmt.Errorf("sync layers: %w", err)
	}
	for _, dir := range dirs {
		// A lost mark only means that the layer is unpacked once more.
		err := os.WriteFile(filepath.Join(s.root, dir, "durable"), nil, 0o600)
		if err != nil && !errors.Is(err, os.ErrNotExist) { // deleted meanwhile
			return fmt.Errorf("mark layer durable: %w", err)
		}
	}
	return nil
}
