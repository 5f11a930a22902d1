package meta

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"go.etcd.io/bbolt"
)

// Trim forgets what the map knows of the blocks that begin at size or beyond.
// When it returns nil that is durable; after an error none or all of it may be.
// No Append to the map may run meanwhile.
func (m *Map) Trim(size int64) error {
	err := m.db.clearing(func(tx *bbolt.Tx) error {
		return trimExtents(tx.Bucket(bucketExtents), m.id, size)
	})
	if err != nil {
		return fmt.Errorf("map %d: %w", m.id, err)
	}
	return nil
}

func trimExtents(b *bbolt.Bucket, id uint64, size int64) error {
	prefix := binary.BigEndian.AppendUint64(nil, id)
	end := (size + blockSize - 1) / blockSize * blockSize
	c := b.Cursor()
	first := extentKey(id, end)
	c.Seek(first)
	if k, v := c.Prev(); bytes.HasPrefix(k, prefix) { // may reach over the end
		e, err := decodeExtent(k, v)
		if err != nil {
			return err
		}
		if e.End > end {
			e.End = end
			key := bytes.Clone(k)
			if err := b.Put(key, encodeExtent(key, e)); err != nil {
				return err
			}
		}
	}
	var gone [][]byte // a cursor must not see its bucket change
	for k, _ := c.Seek(first); bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		gone = append(gone, bytes.Clone(k))
	}
	for _, k := range gone {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}
