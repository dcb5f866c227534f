package tree

import (
	"crypto/sha256"
	"fmt"
	"io"
	"sync"
	"time"
)

// Sum is the sha256 of a file's content.
type Sum [sha256.Size]byte

// Summed is a Tree that knows the sums of its files already.
type Summed interface {
	Sum(name string) (Sum, bool)
}

// maxKnownSums bounds the memory of a Hasher: about 150 bytes each.
const maxKnownSums = 200_000

// Hasher computes sums of files and remembers them for as long as inode, size and times stay the same.
type Hasher struct {
	mu    sync.Mutex
	known map[fileState]Sum
}

// fileState changes whenever a file's content may have changed.
type fileState struct {
	id       FileID
	size     int64
	modified int64
	changed  int64
}

// NewHasher returns a Hasher that remembers nothing yet.
func NewHasher() *Hasher { return &Hasher{known: map[fileState]Sum{}} }

// Sum returns the sum of the regular file e of t.
func (h *Hasher) Sum(t Tree, e Entry) (Sum, error) {
	if s, ok := t.(Summed); ok {
		if sum, ok := s.Sum(e.Path); ok {
			return sum, nil
		}
	}
	state := fileState{e.File, e.Size, e.ModTime.UnixNano(), e.Changed.UnixNano()}
	h.mu.Lock()
	sum, ok := h.known[state]
	h.mu.Unlock()
	if ok {
		return sum, nil
	}
	sum, err := sumOf(t, e)
	if err != nil {
		return Sum{}, err
	}
	if e.File != (FileID{}) && settled(e) {
		h.remember(state, sum)
	}
	return sum, nil
}

// settled says that a further write to the file would change its times. File systems stamp them with
// the tick of a coarse clock, so a file that changed just now may change again within that tick.
func settled(e Entry) bool { return time.Since(e.Changed) > 50*time.Millisecond }

func (h *Hasher) remember(state fileState, sum Sum) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.known) >= maxKnownSums {
		clear(h.known)
	}
	h.known[state] = sum
}

func sumOf(t Tree, e Entry) (sum Sum, err error) {
	f, err := t.Open(e.Path)
	if err != nil {
		return Sum{}, err
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return Sum{}, fmt.Errorf("hash %s: %w", e.Path, err)
	}
	hash.Sum(sum[:0])
	return sum, nil
}
