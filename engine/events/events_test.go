package events

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/events"
)

func every(events.Message) bool { return true }

func TestSubscribeGivesPastThenPresentInOrder(t *testing.T) {
	bus := New(time.Now)
	began := time.Now()
	bus.Publish(events.ContainerEventType, events.ActionCreate, "a", nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream := bus.Subscribe(ctx, began, time.Time{}, every)
	bus.Publish(events.ContainerEventType, events.ActionStart, "a", nil)
	var got []string
	var last int64
	for m := range stream {
		if m.TimeNano <= last {
			t.Errorf("%s at %d is not after %d", m.Action, m.TimeNano, last)
		}
		last = m.TimeNano
		if got = append(got, string(m.Action)); len(got) == 2 {
			cancel()
		}
	}
	if d := cmp.Diff([]string{"create", "start"}, got); d != "" {
		t.Error(d)
	}
	if n := bus.Listeners(); n != 0 {
		t.Errorf("%d listeners are left", n)
	}
}

func TestSubscribeEndsAtUntil(t *testing.T) {
	bus := New(time.Now)
	began := time.Now()
	bus.Publish(events.ImageEventType, events.ActionPull, "i", nil)
	n := 0
	for range bus.Subscribe(t.Context(), began, time.Now().Add(20*time.Millisecond), every) {
		n++
	}
	if n != 1 {
		t.Errorf("got %d events, want 1", n)
	}
}

func TestPublishWaitsForNobody(t *testing.T) {
	bus := New(time.Now)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream := bus.Subscribe(ctx, time.Time{}, time.Time{}, every)
	for range 10_000 {
		bus.Publish(events.ContainerEventType, events.ActionTop, "a", nil)
	}
	n := 0
	for range stream {
		if n++; n == 10_000 {
			cancel()
		}
	}
	if n != 10_000 {
		t.Errorf("got %d events", n)
	}
}
