package meta

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	"go.etcd.io/bbolt"
)

// Cache is what a node remembers about the local copies of one image.
type Cache struct {
	Image    string `json:"image"`
	Identity string `json:"identity"` // of the content that was copied; other content needs another cache
	Size     int64  `json:"size"`     // bytes

	Map uint64 `json:"map"`

	// Scanned tells that the ranges the store says are empty are in the map.
	Scanned bool `json:"scanned,omitempty"`

	// Sums tells that there are checksums for all copies. Those that were made
	// up to schema 3 have none.
	Sums bool `json:"sums,omitempty"`
}

// Caches returns all caches in the order in which they were created.
func (d *DB) Caches() (all []Cache, err error) {
	err = d.bolt.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketCaches).ForEach(func(key, value []byte) error {
			var c Cache
			if err := json.Unmarshal(value, &c); err != nil {
				return fmt.Errorf("cache %x: %w: %v", key, ErrCorrupt, err)
			}
			all = append(all, c)
			return nil
		})
	})
	return all, err
}

// PutCache stores c, whose Map must come from NewMap, or replaces what is
// stored about it.
func (d *DB) PutCache(c Cache) error {
	value, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return d.bolt.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketCaches).Put(binary.BigEndian.AppendUint64(nil, c.Map), value)
	})
}

// ChangeCache calls f with what is stored about a cache and stores what f makes of
// it, in one transaction. It fails with ErrNotFound when there is no such cache.
func (d *DB) ChangeCache(id uint64, f func(*Cache)) error {
	key := binary.BigEndian.AppendUint64(nil, id)
	return d.bolt.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketCaches)
		value := b.Get(key)
		if value == nil {
			return fmt.Errorf("cache %d: %w", id, ErrNotFound)
		}
		var c Cache
		if err := json.Unmarshal(value, &c); err != nil {
			return fmt.Errorf("cache %d: %w: %v", id, ErrCorrupt, err)
		}
		f(&c)
		value, err := json.Marshal(c)
		if err != nil {
			return err
		}
		return b.Put(key, value)
	})
}

// DeleteCache removes a cache and its map in one transaction. The local file
// is the caller's to remove, afterwards.
func (d *DB) DeleteCache(id uint64) error {
	return d.clearing(func(tx *bbolt.Tx) error {
		if err := tx.Bucket(bucketCaches).Delete(binary.BigEndian.AppendUint64(nil, id)); err != nil {
			return err
		}
		return clearMap(tx, id)
	})
}
