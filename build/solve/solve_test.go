package solve

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
)

// step joins its inputs' results and its own name.
type step struct {
	name string
	do   func(ctx context.Context) error
}

func (s step) Do(ctx context.Context, in []string) (string, error) {
	if s.do != nil {
		if err := s.do(ctx); err != nil {
			return "", err
		}
	}
	return s.name + "(" + strings.Join(in, ",") + ")", nil
}

// growing becomes the vertex that grow returns.
type growing struct {
	grow func(in []string) *Vertex[string]
}

func (g growing) Do(context.Context, []string) (string, error) { return "", errors.New("not expanded") }

func (g growing) Expand(_ context.Context, in []string) (*Vertex[string], error) {
	return g.grow(in), nil
}

func vertex(name string, inputs ...*Vertex[string]) *Vertex[string] {
	return &Vertex[string]{Inputs: inputs, Op: step{name: name}}
}

func TestSolveRunsSharedVertexOnce(t *testing.T) {
	var mu sync.Mutex
	runs := 0
	base := &Vertex[string]{Op: step{name: "base", do: func(context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		runs++
		return nil
	}}}
	got, err := Solve(t.Context(), vertex("end", vertex("a", base), vertex("b", base)), 4)
	if err != nil || got != "end(a(base()),b(base()))" || runs != 1 {
		t.Fatalf("got %q, %v after %d runs of the base", got, err, runs)
	}
}

func TestSolveRunsIndependentVerticesTogether(t *testing.T) {
	// Each waits until the other has begun: run one after the other they would never end.
	a, b := make(chan struct{}), make(chan struct{})
	meet := func(mine, other chan struct{}) func(context.Context) error {
		return func(context.Context) error { close(mine); <-other; return nil }
	}
	end := vertex("end",
		&Vertex[string]{Op: step{"a", meet(a, b)}},
		&Vertex[string]{Op: step{"b", meet(b, a)}})
	if got, err := Solve(t.Context(), end, 2); err != nil || got != "end(a(),b())" {
		t.Fatalf("got %q, %v", got, err)
	}
}

func TestSolveNeverRunsMoreThanParallel(t *testing.T) {
	var mu sync.Mutex
	now, most := 0, 0
	count := func(context.Context) error {
		mu.Lock()
		now++
		most = max(most, now)
		mu.Unlock()
		mu.Lock()
		now--
		mu.Unlock()
		return nil
	}
	end := vertex("end")
	for i := range 50 {
		end.Inputs = append(end.Inputs, &Vertex[string]{Op: step{fmt.Sprint(i), count}})
	}
	if _, err := Solve(t.Context(), end, 3); err != nil || most > 3 {
		t.Fatalf("%d at a time, %v", most, err)
	}
}

func TestSolveExpands(t *testing.T) {
	base := vertex("base")
	end := vertex("end", &Vertex[string]{Inputs: []*Vertex[string]{base}, Op: growing{func(in []string) *Vertex[string] {
		return vertex("trigger:"+in[0], base)
	}}})
	if got, err := Solve(t.Context(), end, 1); err != nil || got != "end(trigger:base()(base()))" {
		t.Fatalf("got %q, %v", got, err)
	}
}

func TestSolveReturnsFirstErrorAndCancelsTheRest(t *testing.T) {
	boom := errors.New("boom")
	started := make(chan struct{})
	var canceled error
	end := vertex("end",
		&Vertex[string]{Op: step{"waits", func(ctx context.Context) error {
			close(started)
			<-ctx.Done()
			canceled = ctx.Err()
			return ctx.Err()
		}}},
		&Vertex[string]{Op: step{"fails", func(context.Context) error { <-started; return boom }}})
	_, err := Solve(t.Context(), end, 2)
	if err != boom || canceled == nil {
		t.Fatalf("error %v, the other vertex saw %v", err, canceled)
	}
}

func TestSolveStartsNothingAfterCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	ran := false
	_, err := Solve(ctx, &Vertex[string]{Op: step{"x", func(context.Context) error { ran = true; return nil }}}, 1)
	if !errors.Is(err, context.Canceled) || ran {
		t.Fatalf("ran %v, error %v", ran, err)
	}
}
