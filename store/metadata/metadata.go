// Package metadata keeps davit's records in one bbolt file:
//
//	davit                 this package's own
//	    version           the schema's version, a decimal number
//	<table>               one bucket per Table; its owner documents keys and values
//	    <key>             JSON
//
// A Table is declared where its records are understood, for instance
//
//	var names = metadata.NewTable[imageName]("image-names")
//
// and used inside db.Update or db.View. An Update is one transaction: durable when it returns, or
// without any effect. Nothing that a docker run --rm waits for writes here.
//
// A change to the form of a table's records comes with a new version and an entry in migrations.
package metadata

import (
	"iter"

	"davit/oci/errdefs"
)

// DB is an open database.
type DB struct{}

// Tx is a transaction, valid until the function that got it returns.
type Tx struct{}

// Open opens or creates the database at path and brings its schema up to date. When another process
// has it open, Open waits a second and then fails with an errdefs.ErrUnavailable that names the file and
// the process. A file of a newer davit is refused with errdefs.ErrInvalid.
func Open(path string) (*DB, error) { return nil, errdefs.NotImplemented("metadata.Open") }

// Close closes the file, after transactions under way have ended.
func (db *DB) Close() error { return nil }

// Update runs fn in a read-write transaction; they run one after another. The transaction is committed
// when fn returns nil and has no effect otherwise.
func (db *DB) Update(fn func(*Tx) error) error { return errdefs.NotImplemented("metadata.Update") }

// View runs fn in a read-only transaction, which sees one state of the database throughout.
func (db *DB) View(fn func(*Tx) error) error { return errdefs.NotImplemented("metadata.View") }

// Table is a typed view of one bucket: keys are non-empty strings, values are kept as JSON.
type Table[T any] struct{ name string }

// NewTable returns the table of that name; its bucket is made by the first Put.
func NewTable[T any](name string) Table[T] { return Table[T]{name} }

// Get returns the record under key, or errdefs.ErrNotFound.
func (t Table[T]) Get(tx *Tx, key string) (T, error) {
	var zero T
	return zero, errdefs.NotImplemented("metadata.Get")
}

// Put stores value under key, replacing what is there.
func (t Table[T]) Put(tx *Tx, key string, value T) error {
	return errdefs.NotImplemented("metadata.Put")
}

// Delete removes the record under key; a missing one is no error.
func (t Table[T]) Delete(tx *Tx, key string) error {
	return errdefs.NotImplemented("metadata.Delete")
}

// All yields the records sorted by key. The table must not be changed meanwhile. A record that cannot
// be decoded ends the iteration; Check says so.
func (t Table[T]) All(tx *Tx) iter.Seq2[string, T] { return func(func(string, T) bool) {} }
