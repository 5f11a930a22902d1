package meta

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"go.etcd.io/bbolt"
)

// Folding moves the extents of journal records into the extents bucket,
// oldest record first, and says up to which record in the same transaction: a
// crash leaves a record either to be folded or folded, never neither, and
// folding one twice would not change anything.
const (
	foldEvery   = 256 // journal records between two folds
	foldExtents = 512 // extents folded in one transaction, so that other changes never wait long for one
)

func (d *DB) requestFold() {
	select {
	case d.folds <- struct{}{}:
	default: // one is asked for already
	}
}

func (d *DB) foldLoop() {
	for {
		select {
		case <-d.stop:
			return
		case <-d.folds:
			if err := d.Fold(); err != nil && d.foldFail != nil {
				d.foldFail(err)
			}
		}
	}
}

// Fold moves all records of the journal into the extents.
func (d *DB) Fold() error {
	d.folding.Lock()
	defer d.folding.Unlock()
	for end := d.journal.number(); ; {
		records := d.journal.oldest(foldExtents)
		if len(records) == 0 || records[0].seq > end {
			return nil
		}
		if err := d.foldRecords(records); err != nil {
			return fmt.Errorf("fold: %w", err)
		}
	}
}

// foldRecords folds the oldest records, in one transaction. The caller holds
// folding.
func (d *DB) foldRecords(records []record) error {
	err := d.bolt.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketExtents)
		for _, r := range records {
			for _, e := range r.extents {
				if err := putExtent(b, r.id, e); err != nil {
					return err
				}
			}
		}
		return changeState(tx, func(s *journalState) { s.folded = records[len(records)-1].seq })
	})
	if err == nil {
		d.journal.drop(len(records))
	}
	return err
}

// put lays extents over those of a map without the journal, which is not long
// enough for them. What it still has of the map is folded before.
func (d *DB) put(id uint64, extents []Extent) error {
	return d.clearing(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketExtents)
		for _, e := range extents {
			if err := putExtent(b, id, e); err != nil {
				return err
			}
		}
		return nil
	})
}

// putExtent lays e over the extents of a map: what it covers goes, what it
// cuts is trimmed, a neighbour in the same state becomes one with it.
//
//	before   |--A--|    |--B--|  |-C-|
//	e             |=======|
//	after    |-A-||=======||-B|  |-C-|
func putExtent(b *bbolt.Bucket, id uint64, e Extent) error {
	prefix := binary.BigEndian.AppendUint64(nil, id)
	c := b.Cursor()
	// Start with the last extent that begins before e, if any.
	c.Seek(extentKey(id, e.Off))
	k, v := c.Prev()
	if !bytes.HasPrefix(k, prefix) {
		k, v = c.Seek(extentKey(id, e.Off))
	}
	var gone [][]byte
	var rest []Extent
	for ; bytes.HasPrefix(k, prefix); k, v = c.Next() {
		o, err := decodeExtent(k, v)
		if err != nil {
			return err
		}
		if o.Off > e.End {
			break
		}
		if o.End < e.Off {
			continue
		}
		switch {
		case o.State == e.State: // overlaps or touches: one extent
			e.Off, e.End = min(e.Off, o.Off), max(e.End, o.End)
		case o.End == e.Off || o.Off == e.End: // touches only
			continue
		default:
			if o.Off < e.Off {
				rest = append(rest, Extent{o.Off, e.Off, o.State})
			}
			if o.End > e.End {
				rest = append(rest, Extent{e.End, o.End, o.State})
			}
		}
		gone = append(gone, bytes.Clone(k))
	}
	for _, k := range gone {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	if e.State != 0 {
		rest = append(rest, e)
	}
	for _, r := range rest {
		key := extentKey(id, r.Off)
		if err := b.Put(key, encodeExtent(key, r)); err != nil {
			return err
		}
	}
	return nil
}
