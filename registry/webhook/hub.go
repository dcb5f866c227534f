package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"
)

// Options say what a Hub is made of.
type Options struct {
	File   string // of endpoints, as Config; read again when it changes
	Dir    string // of queues, made if need be; any number of processes may share it
	Source Source // InstanceID is chosen when it is empty
	Log    *slog.Logger
}

// Hub takes events and has them delivered.
type Hub struct {
	options Options
	place   *place
	client  *http.Client

	mu        sync.RWMutex
	receivers []*receiver
	deliver   context.Context // non-nil while Run runs
	changed   time.Time       // of the file that was read last
}

// Count is what was counted of an endpoint; all but Pending only grow.
type Count struct {
	Endpoint                   string
	Pending                    int   // events to deliver
	Delivered, Failed, Dropped int64 // events, attempts, events
}

// Open reads the file and takes a place for queues. Events can be published from now on; Run delivers them.
func Open(o Options) (*Hub, error) {
	if o.Source.InstanceID == "" {
		o.Source.InstanceID = NewID()
	}
	h := &Hub{options: o, client: newClient()}
	found, err := h.read()
	if err != nil {
		return nil, err
	}
	if h.place, err = takePlace(o.Dir); err != nil {
		return nil, err
	}
	if err := h.configure(found); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, h.forget()
}

func (h *Hub) read() ([]settings, error) {
	info, err := os.Stat(h.options.File)
	if err != nil {
		return nil, fmt.Errorf("read webhooks: %w", err)
	}
	h.changed = info.ModTime()
	return readConfig(h.options.File)
}

// configure goes over to other endpoints. Those that stay keep their queues and counts; the queue of one
// that is gone is gone, too.
func (h *Hub) configure(found []settings) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var next []*receiver
	for _, s := range found {
		r, err := h.receiver(s)
		if err != nil {
			return err
		}
		next = append(next, r)
	}
	for _, r := range h.receivers {
		if slices.ContainsFunc(next, func(other *receiver) bool { return other.queue == r.queue }) {
			continue
		}
		r.end()
		n, err := r.queue.remove()
		r.log.Warn("webhook was taken out of the file", "dropped", n, "error", err)
	}
	h.receivers = next
	return nil
}

// receiver returns the one that an endpoint has if nothing changed, or a new one, with the old one's queue.
func (h *Hub) receiver(s settings) (*receiver, error) {
	r := &receiver{settings: s, client: h.client, counts: new(counts), log: h.options.Log.With("webhook", s.Name)}
	i := slices.IndexFunc(h.receivers, func(old *receiver) bool { return old.settings.Name == s.Name })
	if i >= 0 {
		old := h.receivers[i]
		if old.settings.same(s) {
			return old, nil
		}
		old.end()
		r.counts, r.queue = old.counts, old.queue
		r.queue.setLimit(s.MaxBytes)
	} else {
		var err error
		if r.queue, err = openQueue(h.place.queue(s.Name), s.MaxBytes); err != nil {
			return nil, err
		}
	}
	if h.deliver != nil {
		r.start(h.deliver)
	}
	return r, nil
}

// forget removes the queues of endpoints that were taken out of the file while no process ran.
func (h *Hub) forget() error {
	return h.place.each(func(name string) error {
		if slices.ContainsFunc(h.receivers, func(r *receiver) bool { return r.settings.Name == name }) {
			return nil
		}
		h.options.Log.Warn("webhook is not in the file any more, what it had to get is dropped", "webhook", name)
		return os.RemoveAll(h.place.queue(name))
	})
}

// lookEvery is how often the file and the other processes' places are looked at.
const lookEvery = time.Second

// Run delivers until ctx ends.
func (h *Hub) Run(ctx context.Context) {
	h.begin(ctx)
	defer h.pause()
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		h.adopt()
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		h.reread()
	}
}

func (h *Hub) begin(ctx context.Context) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.deliver = ctx
	for _, r := range h.receivers {
		r.start(ctx)
	}
}

func (h *Hub) pause() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.deliver = nil
	for _, r := range h.receivers {
		r.end()
	}
}

// reread looks whether the file changed. One with a mistake changes nothing.
func (h *Hub) reread() {
	info, err := os.Stat(h.options.File)
	if err != nil || info.ModTime().Equal(h.changed) {
		return
	}
	found, err := h.read()
	if err == nil {
		err = h.configure(found)
	}
	if err != nil {
		h.options.Log.Error("the new webhooks are not used, the old ones hold", "error", err)
		return
	}
	h.options.Log.Info("webhooks were read again", "file", h.options.File)
}

// adopt takes over what processes that are gone have left in the same directory.
func (h *Hub) adopt() {
	h.mu.RLock()
	defer h.mu.RUnlock()
	err := h.place.adopt(func(name string, line []byte) {
		for _, r := range h.receivers {
			if r.settings.Name == name {
				r.keep(line)
			}
		}
	})
	if err != nil {
		h.options.Log.Error("what another process left to webhooks cannot be taken over", "error", err)
	}
}

// Wants says whether any endpoint gets events of an action on a repository, so that others need not be made.
func (h *Hub) Wants(action, repository string) bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return slices.ContainsFunc(h.receivers, func(r *receiver) bool { return r.settings.covers(action, repository) })
}

// Publish hands an event to the endpoints that want it. It does not wait for them, nor fail: what cannot be
// kept is counted as dropped, and logged.
func (h *Hub) Publish(e Event) {
	e.ID, e.Timestamp, e.Source = NewID(), time.Now().UTC(), h.options.Source
	line, err := json.Marshal(e)
	if err != nil {
		h.options.Log.Error("event cannot be written down", "error", err)
		return
	}
	line = append(line, '\n')
	h.mu.RLock()
	defer h.mu.RUnlock()
	for _, r := range h.receivers {
		if r.settings.wants(&e) {
			r.keep(line)
		}
	}
}

// keep puts a line into the queue.
func (r *receiver) keep(line []byte) {
	dropped, err := r.queue.append(line)
	if err != nil {
		dropped++
	}
	if dropped > 0 {
		r.counts.dropped.Add(int64(dropped))
		r.log.Error("events were dropped", "count", dropped, "limit", r.settings.MaxBytes, "error", err)
	}
}

// Counts returns what was counted, in the order of the file.
func (h *Hub) Counts() []Count {
	h.mu.RLock()
	defer h.mu.RUnlock()
	found := make([]Count, len(h.receivers))
	for i, r := range h.receivers {
		found[i] = Count{r.settings.Name, r.queue.pending(), r.counts.delivered.Load(), r.counts.failed.Load(), r.counts.dropped.Load()}
	}
	return found
}

// Close gives the place back; what is not delivered stays there for the next process. Run must have ended.
func (h *Hub) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for _, r := range h.receivers {
		errs = append(errs, r.queue.close())
	}
	h.receivers = nil
	return errors.Join(append(errs, h.place.close())...)
}
