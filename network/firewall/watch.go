package firewall

import (
	"slices"
	"strings"
	"time"

	"davit/kernel/nft"
)

// Watch calls back when others have changed nft tables of the host.
type Watch struct {
	f      *Firewall
	events *nft.Events
	done   chan struct{} // closed when no callback will run; nil before Start
}

// calm is how long nothing may have happened before the callback: firewalls change many rules in a row.
const calm = 30 * time.Millisecond

// Watch begins to watch, in the current thread's network namespace.
func (f *Firewall) Watch() (*Watch, error) {
	events, err := nft.Subscribe()
	if err != nil {
		return nil, err
	}
	return &Watch{f: f, events: events}, nil
}

// Start calls back from now on, also for what has happened since Watch.
func (w *Watch) Start(changed func()) {
	w.done = make(chan struct{})
	wake := make(chan struct{}, 1)
	go w.receive(wake)
	go func() {
		defer close(w.done)
		for range wake {
			settle(wake)
			changed()
		}
	}()
}

// receive wakes for events that are not of davit's own doing, until the watch is closed.
func (w *Watch) receive(wake chan<- struct{}) {
	defer close(wake)
	for {
		list, err := w.events.Next()
		if err != nil {
			return
		}
		if !slices.ContainsFunc(list, func(e nft.Event) bool { return !w.f.expects(e) }) {
			continue
		}
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

// expects tells whether an event is of davit's own doing. It does not delete its table without making it
// again, but others do: that has to be looked at.
func (f *Firewall) expects(e nft.Event) bool {
	return e.Table == f.table.Name && !e.Deleted || strings.HasPrefix(e.Table, f.table.Name+"-")
}

// settle waits until nothing has woken it for a while.
func settle(wake <-chan struct{}) {
	timer := time.NewTimer(calm)
	defer timer.Stop()
	for {
		select {
		case _, ok := <-wake:
			if !ok {
				return
			}
			timer.Reset(calm)
		case <-timer.C:
			return
		}
	}
}

// Close ends the watch; no callback runs afterwards. A nil Watch is closed.
func (w *Watch) Close() error {
	if w == nil {
		return nil
	}
	err := w.events.Close()
	if w.done != nil {
		<-w.done
	}
	return err
}
