package cache

import (
	"sync"
	"sync/atomic"
	"time"
)

// memory remembers values for a while, and not more than a number of them: what does not fit pushes out
// the whole, which costs a few requests and is rare.
type memory[V any] struct {
	limit int

	mu      sync.Mutex
	entries map[string]remembered[V]
}

type remembered[V any] struct {
	value V
	until time.Time
}

func newMemory[V any](limit int) *memory[V] {
	return &memory[V]{limit: limit, entries: map[string]remembered[V]{}}
}

func (m *memory[V]) get(key string) (value V, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	entry, ok := m.entries[key]
	if ok && time.Now().After(entry.until) {
		delete(m.entries, key)
		ok = false
	}
	if !ok {
		return value, false
	}
	return entry.value, true
}

func (m *memory[V]) put(key string, value V, keep time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.entries) >= m.limit {
		clear(m.entries)
	}
	m.entries[key] = remembered[V]{value, time.Now().Add(keep)}
}

func (m *memory[V]) forget(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.entries, key)
}

// Counters are what the cache did; they only grow.
type Counters struct {
	Requests atomic.Int64 // to upstreams and their token servers
	Hits     atomic.Int64 // manifests and blobs that were there
	Misses   atomic.Int64 // that were fetched
	Joined   atomic.Int64 // readers who followed a fetch that others had caused
	Stale    atomic.Int64 // answers that could not be checked
	Resumed  atomic.Int64 // fetches that went on where an earlier one had ended
	Wrong    atomic.Int64 // fetches whose bytes had another digest
	Fetched  atomic.Int64 // bytes of blobs
}
