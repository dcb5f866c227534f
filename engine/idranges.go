package engine

import (
	"hash/fnv"
	"sync"

	"davit/oci/errdefs"
)

// The ranges of user and group ids on the host that containers get: far above those of people and of
// /etc/subuid, one per container, each as large as 16-bit ids need.
const (
	idBase  = 1 << 20
	idSize  = 1 << 16
	idSlots = (1<<32 - 1<<21) / idSize
)

// idRanges hands out ranges. Each record keeps the one its container has; there is nothing else to
// persist.
type idRanges struct {
	mu    sync.Mutex
	taken map[uint32]bool // by slot
	next  uint32
}

// newIDRanges begins at a place that depends on the engine's root, so that engines side by side on one
// host mostly have different ranges.
func newIDRanges(root string) *idRanges {
	h := fnv.New32a()
	h.Write([]byte(root))
	return &idRanges{taken: map[uint32]bool{}, next: h.Sum32() % idSlots}
}

// allocate returns the first id of a free range. Ranges are used again as late as possible.
func (r *idRanges) allocate() (uint32, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for range uint32(idSlots) {
		slot := r.next
		r.next = (r.next + 1) % idSlots
		if !r.taken[slot] {
			r.taken[slot] = true
			return idBase + slot*idSize, nil
		}
	}
	return 0, errdefs.New(errdefs.ErrExhausted, "all %d ranges of user ids are in use", idSlots)
}

// claim marks the range of a container that was loaded.
func (r *idRanges) claim(base uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	slot := (base - idBase) / idSize
	r.taken[slot] = true
	if r.next == slot {
		r.next = (slot + 1) % idSlots
	}
}

func (r *idRanges) release(base uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.taken, (base-idBase)/idSize)
}
