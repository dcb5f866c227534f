package image

import (
	"io"
	"sync"
	"time"
)

// progressEvery is how often one item reports that bytes moved.
const progressEvery = 100 * time.Millisecond

// reporter passes reports on one at a time, and not more often than people can read.
type reporter struct {
	mu   sync.Mutex
	to   func(Progress) // nil: nobody listens
	last map[string]time.Time
}

func newReporter(to func(Progress)) *reporter {
	return &reporter{to: to, last: map[string]time.Time{}}
}

// status reports a change of state.
func (r *reporter) status(id, status string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.last, id)
	if r.to != nil {
		r.to(Progress{ID: id, Status: status})
	}
}

// bytes reports how far an item is, unless it did just now.
func (r *reporter) bytes(id, status string, current, total int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if r.to == nil || now.Sub(r.last[id]) < progressEvery {
		return
	}
	r.last[id] = now
	r.to(Progress{ID: id, Status: status, Current: current, Total: total})
}

// counter reports what is read through it.
type counter struct {
	io.Reader
	report  *reporter
	id      string
	status  string
	current int64
	total   int64
}

// Read implements io.Reader.
func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.current += int64(n)
	if n > 0 {
		c.report.bytes(c.id, c.status, c.current, c.total)
	}
	return n, err
}
