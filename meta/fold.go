package meta

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"go.etcd.io/bbolt"
)

// Folding moves the extents of journal records into the extents bucket,
// oldest record first, and deletes the records in the same transaction: a
// crash leaves a record either in the journal or folded, never neither, and
// folding one twice would not change anything.
const (
	foldEvery   = 256 // journal records between two folds
	foldExtents = 512 // extents folded in one transaction, so that a flush never waits long for one
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

// Fold moves all records of the journal into the extents, or as many as it
// can until the DB closes.
func (d *DB) Fold() error {
	for {
		select {
		case <-d.stop:
			return nil
		default:
		}
		more, err := d.foldSome()
		if err != nil {
			return fmt.Errorf("fold: %w", err)
		}
		if !more {
			return nil
		}
	}
}

// foldSome folds the oldest records of the first map that has any, in one
// transaction, and tells whether there are more.
func (d *DB) foldSome() (more bool, err error) {
	err = d.bolt.Update(func(tx *bbolt.Tx) error {
		journal, extents := tx.Bucket(bucketJournal), tx.Bucket(bucketExtents)
		var keys [][]byte
		var todo []Extent
		c := journal.Cursor()
		k, v := c.First()
		if k == nil {
			return nil
		}
		prefix := bytes.Clone(k[:8])
		id := binary.BigEndian.Uint64(prefix)
		for ; bytes.HasPrefix(k, prefix) && len(todo) < foldExtents; k, v = c.Next() {
			if err := decodeRecord(k, v, func(e Extent) error { todo = append(todo, e); return nil }); err != nil {
				return err
			}
			keys = append(keys, bytes.Clone(k))
		}
		more = k != nil
		for _, e := range todo {
			if err := putExtent(extents, id, e); err != nil {
				return err
			}
		}
		for _, k := range keys {
			if err := journal.Delete(k); err != nil {
				return err
			}
		}
		return nil
	})
	return more, err
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
