package metadata

import (
	"fmt"
	"strconv"

	"go.etcd.io/bbolt"

	"davit/oci/errdefs"
)

// migrations[i] brings a database from version i+1 to i+2, in one transaction with the new number.
// A fresh database has the newest version.
var migrations = []func(*Tx) error{}

var (
	ownBucket  = []byte("davit")
	versionKey = []byte("version")
)

// migrate brings the schema to the version that steps lead to.
func (db *DB) migrate(steps []func(*Tx) error) error {
	newest := len(steps) + 1
	version, err := db.version()
	if err != nil || version == newest {
		return err
	}
	if version > newest {
		return errdefs.Invalid("it has version %d and was written by a newer davit; this one knows versions up to %d", version, newest)
	}
	return db.Update(func(tx *Tx) error {
		for from := max(version, 1); version > 0 && from < newest; from++ {
			if err := steps[from-1](tx); err != nil {
				return fmt.Errorf("migrate from version %d: %w", from, err)
			}
		}
		bucket, err := tx.bolt.CreateBucketIfNotExists(ownBucket)
		if err != nil {
			return err
		}
		return bucket.Put(versionKey, []byte(strconv.Itoa(newest)))
	})
}

// version returns the schema's version; 0 is a fresh database.
func (db *DB) version() (version int, err error) {
	err = db.bolt.View(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(ownBucket)
		if bucket == nil {
			return nil
		}
		version, err = strconv.Atoi(string(bucket.Get(versionKey)))
		return err
	})
	return version, err
}
