package engine

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"davit/engine/container"
	"davit/oci/errdefs"
	"davit/task"
)

// actor is one container in the engine: its present record, and the turn of whoever changes it.
type actor struct {
	id   string
	turn chan struct{} // holds one token while a change is under way
	now  atomic.Pointer[view]

	replacing atomic.Bool // another container is taking its place

	mu      sync.Mutex // guards what follows; never held across I/O
	waiting []*waitingClient
	execs   map[string]*execution
	retry   *time.Timer        // the next try of a restart policy
	probing context.CancelFunc // ends the health check
	process *specs.Process     // of the running task: what an exec inherits
	oomOf   time.Time          // start of the run for which an event has told of a lack of memory
}

// view is a published record. changed is closed when the next one is published.
type view struct {
	*container.Record
	changed chan struct{}
	exits   uint64 // how often its program has ended for good in this engine's life
}

// waitingClient is a client that attached before the task was there.
type waitingClient struct {
	request task.AttachRequest
	conn    chan *net.UnixConn // has room for one; closed without one when there will be none
}

func newActor(r *container.Record) *actor {
	a := &actor{id: r.ID, turn: make(chan struct{}, 1), execs: map[string]*execution{}}
	a.now.Store(&view{Record: r, changed: make(chan struct{})})
	return a
}

// record returns the present record, which nobody changes.
func (a *actor) record() *container.Record { return a.now.Load().Record }

// view returns the present record with the means to wait for the next.
func (a *actor) view() *view { return a.now.Load() }

// begin takes the turn; the caller calls the function that it returns when done.
func (a *actor) begin(ctx context.Context) (end func(), err error) {
	select {
	case a.turn <- struct{}{}:
		return func() { <-a.turn }, nil
	case <-ctx.Done():
		return nil, errdefs.As(errdefs.ErrCanceled, ctx.Err())
	}
}

// publish replaces the record; the caller has the turn.
func (a *actor) publish(r *container.Record) {
	old := a.now.Load()
	a.now.Store(&view{Record: r, changed: make(chan struct{}), exits: old.exits})
	close(old.changed)
}

// publishExit is publish for the end of the program.
func (a *actor) publishExit(r *container.Record) {
	old := a.now.Load()
	a.now.Store(&view{Record: r, changed: make(chan struct{}), exits: old.exits + 1})
	close(old.changed)
}

// await returns the first published view that satisfies a condition.
func (a *actor) await(ctx context.Context, condition func(*view) bool) (*view, error) {
	for {
		v := a.view()
		if condition(v) {
			return v, nil
		}
		select {
		case <-v.changed:
		case <-ctx.Done():
			return v, errdefs.As(errdefs.ErrCanceled, ctx.Err())
		}
	}
}

// enqueue registers a client that waits for the task.
func (a *actor) enqueue(r task.AttachRequest) *waitingClient {
	w := &waitingClient{request: r, conn: make(chan *net.UnixConn, 1)}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting = append(a.waiting, w)
	return w
}

// withdraw takes back a waiting client that went away; a stream that it got meanwhile is closed.
func (a *actor) withdraw(w *waitingClient) {
	a.mu.Lock()
	for i, other := range a.waiting {
		if other == w {
			a.waiting = append(a.waiting[:i:i], a.waiting[i+1:]...)
			a.mu.Unlock()
			return
		}
	}
	a.mu.Unlock()
	if conn := <-w.conn; conn != nil {
		conn.Close()
	}
}

// takeWaiting returns the clients that wait, who are from now on the caller's.
func (a *actor) takeWaiting() []*waitingClient {
	a.mu.Lock()
	defer a.mu.Unlock()
	waiting := a.waiting
	a.waiting = nil
	return waiting
}

// stopTimers ends what is to happen later.
func (a *actor) stopTimers() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.retry != nil {
		a.retry.Stop()
		a.retry = nil
	}
	if a.probing != nil {
		a.probing()
		a.probing = nil
	}
}

// oomTold says whether an event has told that this run of the container lacked memory.
func (a *actor) oomTold() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	started := a.record().State.StartedAt
	return !started.IsZero() && a.oomOf.Equal(started)
}
