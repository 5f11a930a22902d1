package meta

import (
	"bytes"
	"fmt"

	"go.etcd.io/bbolt"
)

// Records are values by key that mean nothing here: what the array of members has
// to remember, found by names of its own.
type Records struct {
	db *DB
}

// Records returns the records of the database.
func (d *DB) Records() *Records { return &Records{d} }

// Load calls f, in the order of the keys, with all whose key begins with prefix,
// until f fails. Neither key nor value may be used afterwards. f must not use the
// database.
func (r *Records) Load(prefix string, f func(key string, value []byte) error) error {
	return r.db.bolt.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketRecords).Cursor()
		p := []byte(prefix)
		for k, v := c.Seek(p); k != nil && bytes.HasPrefix(k, p); k, v = c.Next() {
			value, err := unseal(k, v)
			if err != nil {
				return fmt.Errorf("record %s: %w", k, err)
			}
			if err := f(string(k), value); err != nil {
				return err
			}
		}
		return nil
	})
}

// Store makes changes durable, all or none. A nil value removes the key.
func (r *Records) Store(changes map[string][]byte) error {
	return r.db.bolt.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketRecords)
		for k, v := range changes {
			key := []byte(k)
			if v == nil {
				if err := b.Delete(key); err != nil {
					return err
				}
				continue
			}
			if err := b.Put(key, seal(key, bytes.Clone(v))); err != nil {
				return err
			}
		}
		return nil
	})
}

// records checks the sums of all records.
func (c *checker) records(tx *bbolt.Tx) {
	b := tx.Bucket(bucketRecords)
	if b == nil { // of an earlier version
		return
	}
	b.ForEach(func(key, value []byte) error {
		if _, err := unseal(key, value); err != nil {
			c.add("record %s: %v", key, err)
		}
		return nil
	})
}
