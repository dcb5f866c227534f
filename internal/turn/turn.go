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
			mine := make(chan struct{})
			if t.busy == nil {
				t.busy = map[K]chan struct{}{}
			}
			t.busy[key] = mine
			t.mu.Unlock()
			return func() { t.over(key, mine) }, nil
		}
		t.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (t *Turns[K]) over(key K, mine chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.busy, key)
	close(mine)
}
