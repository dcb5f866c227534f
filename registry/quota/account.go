package quota

import (
	"sync"
	"time"
)

// account is what is used of a rule, by one repository or by all that share it.
type account struct {
	counted time.Time // by whoever has the turn

	mu    sync.Mutex
	bytes pot
	tags  pot
}

func (a *account) used() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.bytes.sum
}

// recount takes over what was counted from the given time on.
func (a *account) recount(blobs, tags map[string]int64, began time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.bytes.set(blobs, began)
	a.tags.set(tags, began)
	a.counted = began
}

func (a *account) reserve(rule Rule, repository string, blobs, tags map[string]int64) *Exceeded {
	a.mu.Lock()
	defer a.mu.Unlock()
	if need := a.bytes.need(blobs); rule.Bytes > 0 && need > 0 && a.bytes.sum+need > int64(rule.Bytes) {
		return &Exceeded{Rule: rule, Repository: repository, Used: a.bytes.sum, Need: need}
	}
	if need := a.tags.need(tags); rule.Tags > 0 && need > 0 && a.tags.sum+need > int64(rule.Tags) {
		return &Exceeded{Rule: rule, Repository: repository, Used: a.tags.sum, Need: need, Tags: true}
	}
	a.bytes.reserve(blobs)
	a.tags.reserve(tags)
	return nil
}

func (a *account) release(blobs, tags map[string]int64, stored bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.bytes.release(blobs, stored)
	a.tags.release(tags, stored)
}

// pot is what is in an account of one kind: things with their weights, each once.
type pot struct {
	items   map[string]int64 // as counted, and what was stored since
	pending map[string]claims
	stored  map[string]time.Time // when, of what a count that had begun may have missed
	sum     int64
}

// claims are the reservations of one thing, by requests at the same time.
type claims struct {
	weight int64
	count  int
}

func (p *pot) set(items map[string]int64, began time.Time) {
	for name, at := range p.stored {
		if at.Before(began) {
			delete(p.stored, name)
		} else {
			items[name] = p.items[name]
		}
	}
	p.items, p.sum = items, 0
	for _, weight := range items {
		p.sum += weight
	}
	for name, claim := range p.pending {
		if _, counted := items[name]; !counted {
			p.sum += claim.weight
		}
	}
}

func (p *pot) has(name string) bool {
	_, there := p.items[name]
	return there || p.pending[name].count > 0
}

func (p *pot) need(wanted map[string]int64) (need int64) {
	for name, weight := range wanted {
		if !p.has(name) {
			need += weight
		}
	}
	return need
}

func (p *pot) reserve(wanted map[string]int64) {
	p.sum += p.need(wanted)
	if p.pending == nil {
		p.pending, p.stored = map[string]claims{}, map[string]time.Time{}
	}
	for name, weight := range wanted {
		p.pending[name] = claims{weight, p.pending[name].count + 1}
	}
}

// release ends reservations; what was stored is there from now on.
func (p *pot) release(wanted map[string]int64, stored bool) {
	for name, weight := range wanted {
		if p.pending[name].count == 1 {
			delete(p.pending, name)
		} else {
			p.pending[name] = claims{weight, p.pending[name].count - 1}
		}
		if _, there := p.items[name]; stored && !there {
			p.items[name] = weight
			p.stored[name] = time.Now()
		} else if !there && !p.has(name) {
			p.sum -= weight
		}
	}
}
