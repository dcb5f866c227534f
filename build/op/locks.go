package op

import (
	"context"
	"sync"
)

// Locks are locks by name. The zero value is ready.
type Locks struct {
	mu   sync.Mutex
	held map[string]chan struct{} // closed when the holder is done
}

// Try takes the lock, or returns a channel that is closed when it may be tried again.
func (l *Locks) Try(name string) (release func(), busy <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if held, ok := l.held[name]; ok {
		return nil, held
	}
	if l.held == nil {
		l.held = map[string]chan struct{}{}
	}
	done := make(chan struct{})
	l.held[name] = done
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.held, name)
		close(done)
	}, nil
}

// Lock waits for the lock, at most until ctx ends.
func (l *Locks) Lock(ctx context.Context, name string) (release func(), err error) {
	for {
		release, busy := l.Try(name)
		if release != nil {
			return release, nil
		}
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
