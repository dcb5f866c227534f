// Package cache remembers what the steps of earlier builds made: a record for each cache key. Records
// live in memory and in the table "build-cache" of the metadata store; the layers they name live in
// the layer store, and stay as long as the collector gets them from Layers.
package cache

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"davit/oci"
	"davit/store/metadata"
)

// touchEvery is how exactly LastUsed is kept on disk: a build that finds everything in the cache
// should write nothing.
const touchEvery = time.Hour

// Record is the outcome of a step.
type Record struct {
	Key      string     `json:"key"`
	Layer    oci.DiffID `json:"layer,omitempty"` // empty: the step made no layer
	Size     int64      `json:"size,omitempty"`  // bytes of the layer's files
	Created  time.Time  `json:"created"`
	LastUsed time.Time  `json:"lastUsed"`
	Uses     int        `json:"uses"`
	Text     string     `json:"text"` // the instruction, for people
}

// Cache is safe for concurrent use.
type Cache struct {
	db    *metadata.DB
	table metadata.Table[Record]
	now   func() time.Time

	mu      sync.Mutex
	records map[string]Record
	dirty   map[string]bool // keys to be written, or deleted if there is no record
}

// Open reads the records of db. Without a db the cache is kept in memory only.
func Open(db *metadata.DB, now func() time.Time) (*Cache, error) {
	c := &Cache{db: db, table: metadata.NewTable[Record]("build-cache"), now: now, records: map[string]Record{}, dirty: map[string]bool{}}
	if db == nil {
		return c, nil
	}
	err := db.View(func(tx *metadata.Tx) error {
		for key, record := range c.table.All(tx) {
			c.records[key] = record
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read build cache: %w", err)
	}
	return c, nil
}

// Get returns the record of a key, and notes that it was used.
func (c *Cache) Get(key string) (Record, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.records[key]
	if !ok {
		return Record{}, false
	}
	now := c.now()
	if now.Sub(r.LastUsed) > touchEvery {
		c.dirty[key] = true
	}
	r.LastUsed, r.Uses = now, r.Uses+1
	c.records[key] = r
	return r, true
}

// Put keeps a record under its key.
func (c *Cache) Put(r Record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.LastUsed = c.now()
	c.records[r.Key] = r
	c.dirty[r.Key] = true
}

// Drop forgets a record whose layer is gone.
func (c *Cache) Drop(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.records, key)
	c.dirty[key] = true
}

// Flush writes what changed, in one transaction.
func (c *Cache) Flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.db == nil || len(c.dirty) == 0 {
		return nil
	}
	err := c.db.Update(func(tx *metadata.Tx) error {
		for key := range c.dirty {
			if err := c.write(tx, key); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write build cache: %w", err)
	}
	clear(c.dirty)
	return nil
}

func (c *Cache) write(tx *metadata.Tx, key string) error {
	if r, ok := c.records[key]; ok {
		return c.table.Put(tx, key, r)
	}
	return c.table.Delete(tx, key)
}

// List returns the records, oldest use first.
func (c *Cache) List() []Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.SortedFunc(maps.Values(c.records), func(a, b Record) int {
		return cmp.Or(a.LastUsed.Compare(b.LastUsed), cmp.Compare(a.Key, b.Key))
	})
}

// Layers returns the layers that records name: roots of the collector.
func (c *Cache) Layers() []oci.DiffID {
	seen := map[oci.DiffID]bool{}
	for _, r := range c.List() {
		if r.Layer != "" {
			seen[r.Layer] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// PruneOptions choose the records to forget.
type PruneOptions struct {
	All       bool                  // also those whose layer is in use
	InUse     func(oci.DiffID) bool // whether an image has the layer; nil: none is in use
	UnusedFor time.Duration         // only those unused for so long
	KeepBytes int64                 // stop when the layers of the rest take no more
}

// Prune forgets records, those unused the longest first, and returns them. The collector then frees
// the layers that nothing else needs.
func (c *Cache) Prune(o PruneOptions) ([]Record, error) {
	records := c.List()
	var total int64
	for _, r := range records {
		total += r.Size
	}
	var gone []Record
	for _, r := range records {
		if o.KeepBytes > 0 && total <= o.KeepBytes {
			break
		}
		inUse := r.Layer != "" && o.InUse != nil && o.InUse(r.Layer)
		if c.now().Sub(r.LastUsed) < o.UnusedFor || inUse && !o.All {
			continue
		}
		c.Drop(r.Key)
		gone = append(gone, r)
		total -= r.Size
	}
	return gone, c.Flush()
}
