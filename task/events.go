package task

import (
	"context"
	"sync"

	"davit/task/wire"
)

// subscription buffers events between the connection's reader and a channel's reader, so that a slow
// consumer holds up no reply.
type subscription struct {
	mu      sync.Mutex
	waiting []wire.Message
	ended   bool
	signal  chan struct{} // has room for one: something changed
}

func (s *subscription) push(m wire.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = append(s.waiting, m)
	s.notify()
}

func (s *subscription) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.notify()
}

func (s *subscription) notify() {
	select {
	case s.signal <- struct{}{}:
	default:
	}
}

func (s *subscription) take() (messages []wire.Message, ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	messages, s.waiting = s.waiting, nil
	return messages, s.ended
}

// Events returns a channel of the unacknowledged events after the given sequence number, old ones
// first, then new ones as they happen. It is closed when ctx ends or the connection is lost.
func (c *Client) Events(ctx context.Context, after uint64) (<-chan Event, error) {
	id, reply, err := c.begin()
	if err != nil {
		return nil, err
	}
	s := &subscription{signal: make(chan struct{}, 1)}
	c.mu.Lock()
	c.subs[id] = s
	if c.err != nil {
		s.end()
	}
	c.mu.Unlock()
	if _, err := c.finish(ctx, id, reply, wire.OpEvents, wire.Sequence{Sequence: after}, nil, nil); err != nil {
		c.unsubscribe(id)
		return nil, err
	}
	events := make(chan Event)
	go func() {
		defer close(events)
		defer c.unsubscribe(id)
		s.forward(ctx, events)
	}()
	return events, nil
}

func (c *Client) unsubscribe(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.subs, id)
}

// forward passes events on until the subscription or ctx ends.
func (s *subscription) forward(ctx context.Context, to chan<- Event) {
	for {
		messages, ended := s.take()
		for i := range messages {
			var e Event
			if messages[i].Decode(&e) != nil {
				continue // a kind of event from a newer monitor
			}
			select {
			case to <- e:
			case <-ctx.Done():
				return
			}
		}
		if ended && len(messages) == 0 {
			return
		}
		if len(messages) > 0 {
			continue
		}
		select {
		case <-s.signal:
		case <-ctx.Done():
			return
		}
	}
}
