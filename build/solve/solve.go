// Package solve decides when the vertices of a graph run: each after its inputs, those that do not
// depend on each other at the same time, and only those that a target needs. It knows nothing of what
// they do.
package solve

import (
	"context"
	"errors"
	"sync"
)

// Op is the work of a vertex.
type Op[R any] interface {
	// Do makes the vertex's result from those of its inputs, in their order.
	Do(ctx context.Context, in []R) (R, error)
}

// Expander is an Op whose work is known only when its inputs are: it becomes another vertex, whose
// result is then its own. (A base image may bring triggers that are steps of the build.)
type Expander[R any] interface {
	Expand(ctx context.Context, in []R) (*Vertex[R], error)
}

// Vertex is one node of an acyclic graph. Vertices are compared by address; a vertex that several
// others name runs once.
type Vertex[R any] struct {
	Inputs []*Vertex[R]
	Op     Op[R]
}

// Solve runs what target needs, at most parallel ops at a time, and returns its result. The first
// error cancels the context of the ops that run and starts no more; Solve returns that error when all
// have ended.
func Solve[R any](ctx context.Context, target *Vertex[R], parallel int) (R, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := &solver[R]{
		cancel: cancel,
		slots:  make(chan struct{}, max(1, parallel)),
		states: map[*Vertex[R]]*state[R]{},
	}
	st := s.start(ctx, target)
	s.running.Wait()
	if err := context.Cause(ctx); err != nil {
		return st.result, err
	}
	return st.result, st.err
}

type solver[R any] struct {
	cancel  context.CancelCauseFunc
	slots   chan struct{}
	running sync.WaitGroup

	mu     sync.Mutex
	states map[*Vertex[R]]*state[R]
}

// state is a vertex's result; it may be read when done is closed.
type state[R any] struct {
	done   chan struct{}
	result R
	err    error
}

// start begins the work on v, unless it has begun.
func (s *solver[R]) start(ctx context.Context, v *Vertex[R]) *state[R] {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st, ok := s.states[v]; ok {
		return st
	}
	st := &state[R]{done: make(chan struct{})}
	s.states[v] = st
	s.running.Go(func() {
		defer close(st.done)
		st.result, st.err = s.run(ctx, v)
		if st.err != nil {
			s.cancel(st.err)
		}
	})
	return st
}

func (s *solver[R]) run(ctx context.Context, v *Vertex[R]) (R, error) {
	var none R
	in, err := s.inputs(ctx, v.Inputs)
	if err != nil {
		return none, err
	}
	if e, ok := v.Op.(Expander[R]); ok {
		next, err := e.Expand(ctx, in)
		if err != nil {
			return none, err
		}
		st := s.start(ctx, next)
		<-st.done
		return st.result, st.err
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
	if ctx.Err() != nil {
		return none, context.Cause(ctx)
	}
	return v.Op.Do(ctx, in)
}

// inputs waits for all inputs and returns their results.
func (s *solver[R]) inputs(ctx context.Context, vertices []*Vertex[R]) ([]R, error) {
	states := make([]*state[R], len(vertices))
	for i, v := range vertices {
		states[i] = s.start(ctx, v)
	}
	in := make([]R, len(vertices))
	var errs []error
	for i, st := range states {
		<-st.done
		in[i] = st.result
		errs = append(errs, st.err)
	}
	return in, errors.Join(errs...)
}
