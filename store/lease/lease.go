// Package lease keeps a collector's hands off things that are in use and have no name yet.
//
// Whoever creates things step by step (a pull: blobs, then layers, then the name) holds a lease from
// before the first step until after the last. Every thing that is created or asked for while any lease
// is held is noted; a collector, which holds a lease of its own from before it looks for the roots,
// deletes none of them. So it cannot take away what was unreferenced when it looked and is referenced
// when it sweeps.
//
// Leases are in memory: after a restart there is no one left who holds one.
package lease

import "sync"

// Ledger notes what may not be deleted. The zero value is ready; its methods are safe for concurrent
// use.
type Ledger struct {
	mu      sync.Mutex
	clock   uint64
	held    map[uint64]struct{} // the clock at which each lease was taken
	touched map[string]uint64   // the clock at which each key was last touched; empty without leases
}

// Hold takes a lease. release gives it back; more than one call is harmless.
func (l *Ledger) Hold() (release func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held == nil {
		l.held, l.touched = map[uint64]struct{}{}, map[string]uint64{}
	}
	l.clock++
	taken := l.clock
	l.held[taken] = struct{}{}
	return func() { l.release(taken) }
}

func (l *Ledger) release(taken uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.held, taken)
	if len(l.held) == 0 {
		clear(l.touched)
	}
}

// Touch notes that key was created or asked for. It comes before the look whether the thing exists.
func (l *Ledger) Touch(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.held) > 0 {
		l.clock++
		l.touched[key] = l.clock
	}
}

// Delete calls remove for key unless key was touched since the oldest lease was taken, and says whether
// it did. While remove runs, Touch waits: it has to be quick.
func (l *Ledger) Delete(key string, remove func() error) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	oldest := l.clock + 1
	for taken := range l.held {
		oldest = min(oldest, taken)
	}
	if at, ok := l.touched[key]; ok && at > oldest {
		return false, nil
	}
	return true, remove()
}
