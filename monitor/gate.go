package monitor

import "sync"

// gate lets work pass while it is open, and tells who closes it when all that went in is out. Unlike a
// read lock it lets work that is inside begin more.
type gate struct {
	mu      sync.Mutex
	changed *sync.Cond
	inside  int
	closed  bool
}

func newGate() *gate {
	g := new(gate)
	g.changed = sync.NewCond(&g.mu)
	return g
}

// enter waits until the gate is open.
func (g *gate) enter() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.closed {
		g.changed.Wait()
	}
	g.inside++
}

// again counts one more piece of work, begun by one that is inside.
func (g *gate) again() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside++
}

// leave is called once for each enter and again.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	g.changed.Broadcast()
}

// shut closes the gate and waits until nothing is inside. It returns false, and does nothing, when it
// is closed already.
func (g *gate) shut() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.closed = true
	for g.inside > 0 {
		g.changed.Wait()
	}
	return true
}

// open undoes shut.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = false
	g.changed.Broadcast()
}
