// Package cache remembers what the steps of earlier builds made: a record for each cache key.
package cache

import (
	"time"

	"davit/oci"
)

// Record is the outcome of a step.
type Record struct {
	Key      string     `json:"key"`
	Layer    oci.DiffID `json:"layer,omitempty"` // empty: the step made no layer
	Size     int64      `json:"size,omitempty"`  // bytes of the layer
	Created  time.Time  `json:"created"`
	LastUsed time.Time  `json:"lastUsed"`
	Uses     int        `json:"uses"`
	Text     string     `json:"text"` // the instruction, for people
}

// Cache holds records in memory, and on disk what Flush wrote.
type Cache struct{}
