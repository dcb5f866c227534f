// Package events tells everybody who listens what happens to containers, images, networks and volumes,
// in Docker's words, and remembers the last few for those who ask about the past.
package events

import (
	"context"
	"iter"
	"maps"
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"
)

// kept is how many events are remembered: as many as Docker does.
const kept = 256

// Bus carries events to its listeners. The zero value is not usable; see New. Its methods may be
// called concurrently and never wait for a listener.
type Bus struct {
	mu        sync.Mutex
	past      []events.Message
	listeners map[*listener]struct{}
	last      int64 // time of the newest event, nanoseconds
	now       func() time.Time
}

// listener is one reader's queue.
type listener struct {
	queue []events.Message
	ready chan struct{} // has room for one token: queue is not empty
}

// New returns a Bus; now is the clock.
func New(now func() time.Time) *Bus {
	return &Bus{listeners: map[*listener]struct{}{}, now: now}
}

// Publish tells of an action on the object id. Times never run backwards, so that a listener sees the
// order in which things happened.
func (b *Bus) Publish(kind events.Type, action events.Action, id string, attributes map[string]string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := max(b.now().UnixNano(), b.last+1)
	b.last = t
	m := events.Message{
		Type: kind, Action: action, Scope: "local",
		Actor: events.Actor{ID: id, Attributes: maps.Clone(attributes)},
		Time:  t / int64(time.Second), TimeNano: t,
	}
	if m.Actor.Attributes == nil {
		m.Actor.Attributes = map[string]string{}
	}
	b.past = append(b.past, m)
	if len(b.past) > 2*kept {
		b.past = append([]events.Message(nil), b.past[len(b.past)-kept:]...)
	}
	for l := range b.listeners {
		l.queue = append(l.queue, m)
		select {
		case l.ready <- struct{}{}:
		default:
		}
	}
}

// Listeners returns how many readers there are now.
func (b *Bus) Listeners() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.listeners)
}

// Subscribe returns the events that match, from since on (zero: from now on) until the time until
// (zero: without end) or until ctx is done. The subscription holds from this call on, not from the
// first use of the iterator, which has to be used to its end.
func (b *Bus) Subscribe(ctx context.Context, since, until time.Time, match func(events.Message) bool) iter.Seq[events.Message] {
	past, l := b.join(since)
	return func(yield func(events.Message) bool) {
		defer b.leave(l)
		inTime := func(m events.Message) bool { return until.IsZero() || m.TimeNano <= until.UnixNano() }
		for _, m := range past {
			if inTime(m) && match(m) && !yield(m) {
				return
			}
		}
		var over <-chan time.Time
		if !until.IsZero() {
			timer := time.NewTimer(until.Sub(b.now()))
			defer timer.Stop()
			over = timer.C
		}
		for {
			for _, m := range b.take(l) {
				if inTime(m) && match(m) && !yield(m) {
					return
				}
			}
			select {
			case <-l.ready:
			case <-ctx.Done():
				return
			case <-over:
				return
			}
		}
	}
}

// join adds a listener and returns what it missed since then.
func (b *Bus) join(since time.Time) ([]events.Message, *listener) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := &listener{ready: make(chan struct{}, 1)}
	b.listeners[l] = struct{}{}
	var past []events.Message
	if !since.IsZero() {
		for _, m := range b.past {
			if m.TimeNano >= since.UnixNano() {
				past = append(past, m)
			}
		}
	}
	return past, l
}

func (b *Bus) leave(l *listener) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.listeners, l)
}

func (b *Bus) take(l *listener) []events.Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	queue := l.queue
	l.queue = nil
	return queue
}
