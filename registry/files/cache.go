package files

import (
	"container/list"
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"davit/oci"
	"davit/oci/errdefs"
)

// Cache makes each layer's Index once, a few at a time, and keeps those last used.
type Cache struct {
	limits Bounds
	ctx    context.Context
	cancel context.CancelFunc
	slots  chan struct{} // one for each Index being made
	jobs   sync.WaitGroup

	mu      sync.Mutex
	byLayer map[oci.Digest]*list.Element // of *cached
	order   *list.List                   // the last used first
	memory  int64                        // of all finished ones
	pending int
}

// Bounds say what a Cache may take.
type Bounds struct {
	Limits               // of one Index
	Total  int64         // bytes of all of them, roughly
	Time   time.Duration // to make one
	AtOnce int           // being made
	Queue  int           // waiting or being made
}

// cached is an Index, or why there is none. It is complete once done is closed.
type cached struct {
	layer oci.Digest
	done  chan struct{}
	index *Index
	err   error
	cost  int64
}

const refusalCost = 1 << 10 // bytes: an error and its place

// NewCache returns an empty Cache. Close ends it.
func NewCache(limits Bounds) *Cache {
	ctx, cancel := context.WithCancel(context.Background())
	return &Cache{
		limits: limits, ctx: ctx, cancel: cancel, slots: make(chan struct{}, limits.AtOnce),
		byLayer: map[oci.Digest]*list.Element{}, order: list.New(),
	}
}

// Close ends what is being made and waits for it.
func (c *Cache) Close() {
	c.cancel()
	c.jobs.Wait()
}

// Get returns the Index of a layer, and makes it from what open opens unless it is there or being made.
// When ctx ends first the error is ErrUnavailable, and the work goes on for whoever asks next.
// Whether the caller may see the layer must be settled before.
func (c *Cache) Get(ctx context.Context, layer oci.Digest, open func(context.Context) (io.ReadCloser, error)) (*Index, error) {
	entry, err := c.entry(layer, open)
	if err != nil {
		return nil, err
	}
	select {
	case <-entry.done:
		return entry.index, entry.err
	case <-ctx.Done():
		return nil, errdefs.Unavailable("the layer %s is still being read", layer.Short())
	}
}

func (c *Cache) entry(layer oci.Digest, open func(context.Context) (io.ReadCloser, error)) (*cached, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if element, ok := c.byLayer[layer]; ok {
		c.order.MoveToFront(element)
		return element.Value.(*cached), nil
	}
	if c.pending >= c.limits.Queue || c.ctx.Err() != nil {
		return nil, errdefs.Unavailable("%d layers are being read already: try again in a minute", c.pending)
	}
	c.pending++
	entry := &cached{layer: layer, done: make(chan struct{})}
	c.byLayer[layer] = c.order.PushFront(entry)
	c.jobs.Go(func() { c.make(entry, open) })
	return entry, nil
}

// make fills an entry. A refusal (not an archive, past a limit) is kept as an Index is; other failures
// are told to those who wait and forgotten.
func (c *Cache) make(entry *cached, open func(context.Context) (io.ReadCloser, error)) {
	entry.index, entry.err = c.read(open)
	keep := entry.err == nil || errors.Is(entry.err, errdefs.ErrExhausted) || errors.Is(entry.err, errdefs.ErrInvalid)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending--
	close(entry.done)
	if !keep {
		c.order.Remove(c.byLayer[entry.layer])
		delete(c.byLayer, entry.layer)
		return
	}
	entry.cost = refusalCost
	if entry.index != nil {
		entry.cost = entry.index.cost
	}
	c.memory += entry.cost
	c.evict()
}

func (c *Cache) read(open func(context.Context) (io.ReadCloser, error)) (*Index, error) {
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-c.ctx.Done():
		return nil, errdefs.Unavailable("the registry is ending")
	}
	ctx, cancel := context.WithTimeout(c.ctx, c.limits.Time)
	defer cancel()
	blob, err := open(ctx)
	if err != nil {
		return nil, err
	}
	index, err := Read(ctx, blob, c.limits.Limits)
	if errors.Is(err, context.DeadlineExceeded) {
		err = errdefs.New(errdefs.ErrExhausted, "listing the layer's files takes longer than %s", c.limits.Time)
	}
	return index, errors.Join(err, blob.Close())
}

// evict forgets what was used longest ago until the rest is small enough.
func (c *Cache) evict() {
	for element := c.order.Back(); element != nil && c.memory > c.limits.Total; {
		entry, previous := element.Value.(*cached), element.Prev()
		if entry.cost > 0 { // finished
			c.order.Remove(element)
			delete(c.byLayer, entry.layer)
			c.memory -= entry.cost
		}
		element = previous
	}
}
