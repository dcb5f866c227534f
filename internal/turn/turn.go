// Package turn lets goroutines that work on the same thing take turns, and those that work on
// different things pass.
package turn

import (
	"context"
	"sync"
)

// Turns is one lock per key. The zero value is ready.
type Turns[K comparable] struct {
	mu   sync.Mutex
	busy map[K]chan struct{} // closed when the turn is over
}

// Take waits until nobody has the turn of key, or until ctx ends. The caller has it until it calls
// over, once.
func (t *Turns[K]) Take(ctx context.Context, key K) (over func(), err error) {
	for {
		t.mu.Lock()
		other, taken := t.busy[key]
		if !taken {
			defer t.mu.Unlock()
			return t.begin(key), nil
		}
		t.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Try is Take that does not wait: ok is false while another has the turn.
func (t *Turns[K]) Try(key K) (over func(), ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, taken := t.busy[key]; taken {
		return nil, false
	}
	return t.begin(key), true
}

// begin gives the turn to the caller, who has the lock.
func (t *Turns[K]) begin(key K) (over func()) {
	mine := make(chan struct{})
	if t.busy == nil {
		t.busy = map[K]chan struct{}{}
	}
	t.busy[key] = mine
	return func() { t.over(key, mine) }
}

func (t *Turns[K]) over(key K, mine chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.busy, key)
	close(mine)
}
