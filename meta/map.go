package meta

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"

	"go.etcd.io/bbolt"
)

// blockSize is the grain of extents, in bytes.
const blockSize = 4096

// Extent says that the blocks of [Off, End), bytes, are in a state. It is an
// alias so that packages which do not know this one can name it.
type Extent = struct {
	Off, End int64
	State    uint8
}

// Map is the durable copy of one local file's block states.
type Map struct {
	db *DB
	id uint64
}

// NewMap gives out a map number that was never given out before.
func (d *DB) NewMap() (id uint64, err error) {
	ids, err := d.NewMaps(1)
	if err != nil {
		return 0, err
	}
	return ids[0], nil
}

// NewMaps is NewMap for n numbers at once.
func (d *DB) NewMaps(n int) (ids []uint64, err error) {
	err = d.bolt.Update(func(tx *bbolt.Tx) error {
		ids = nil
		for range n {
			id, err := tx.Bucket(bucketNode).NextSequence()
			if err != nil {
				return err
			}
			ids = append(ids, id)
		}
		return nil
	})
	return ids, err
}

// Map returns the map of that number. One that was never appended to is empty.
func (d *DB) Map(id uint64) *Map { return &Map{db: d, id: id} }

// Load calls f with the extents of the map: first the folded ones in
// ascending order, then those of the journal, in which a later call overrides
// an earlier one. It fails with ErrCorrupt when a checksum is wrong. No Append
// to the map may run meanwhile.
func (m *Map) Load(f func(Extent) error) error {
	// What is folded meanwhile is met twice, which changes nothing; the other
	// way round it would be missed.
	waiting := m.db.journal.oldest(math.MaxInt)
	err := m.db.bolt.View(func(tx *bbolt.Tx) error {
		prefix := binary.BigEndian.AppendUint64(nil, m.id)
		c := tx.Bucket(bucketExtents).Cursor()
		for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
			e, err := decodeExtent(k, v)
			if err != nil {
				return err
			}
			if err := f(e); err != nil {
				return err
			}
		}
		for _, r := range waiting {
			if r.id != m.id {
				continue
			}
			for _, e := range r.extents {
				if err := f(e); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("map %d: %w", m.id, err)
	}
	return nil
}

// Append adds the extents to the journal. When it returns nil they are
// durable; after an error none or all of them may be.
func (m *Map) Append(extents []Extent) error {
	if len(extents) == 0 {
		return nil
	}
	d := m.db
	err := d.journal.append(m.id, extents, d.Fold)
	if errors.Is(err, errRecordTooLong) {
		err = d.put(m.id, extents)
	}
	if err != nil {
		return fmt.Errorf("map %d: %w", m.id, err)
	}
	if d.appended.Add(1)%d.foldEvery == 0 {
		d.requestFold()
	}
	return nil
}

// Clear removes all extents and records of the map.
func (m *Map) Clear() error {
	return m.db.clearing(func(tx *bbolt.Tx) error { return clearMap(tx, m.id) })
}

// clearing runs f in a transaction that removes a map. What the journal still
// has of the map is folded before: it would come back later.
func (d *DB) clearing(f func(tx *bbolt.Tx) error) error {
	if err := d.Fold(); err != nil {
		return err
	}
	return d.bolt.Update(f)
}

// clearMap removes the extents of a map.
func clearMap(tx *bbolt.Tx, id uint64) error {
	prefix := binary.BigEndian.AppendUint64(nil, id)
	b := tx.Bucket(bucketExtents)
	var keys [][]byte // a cursor must not see its bucket change
	c := b.Cursor()
	for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		keys = append(keys, bytes.Clone(k))
	}
	for _, k := range keys {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal appends the checksum over key and value.
func seal(key, value []byte) []byte {
	sum := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
	return binary.BigEndian.AppendUint32(value, sum)
}

// unseal returns the value without its checksum, or ErrCorrupt.
func unseal(key, value []byte) ([]byte, error) {
	n := len(value) - crc32.Size
	if n < 0 || binary.BigEndian.Uint32(value[n:]) != crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value[:n]) {
		return nil, fmt.Errorf("%w: checksum of entry %x", ErrCorrupt, key)
	}
	return value[:n], nil
}

func extentKey(id uint64, off int64) []byte { return journalKey(id, uint64(off/blockSize)) }

func journalKey(id, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(make([]byte, 0, 16), id), seq)
}

func encodeExtent(key []byte, e Extent) []byte {
	v := append(make([]byte, 0, 16), e.State)
	return seal(key, binary.AppendUvarint(v, uint64((e.End-e.Off)/blockSize)))
}

func decodeExtent(key, value []byte) (Extent, error) {
	v, err := unseal(key, value)
	if err != nil {
		return Extent{}, err
	}
	if len(key) != 16 || len(v) < 2 {
		return Extent{}, fmt.Errorf("%w: extent %x", ErrCorrupt, key)
	}
	blocks, n := binary.Uvarint(v[1:])
	if n != len(v)-1 {
		return Extent{}, fmt.Errorf("%w: extent %x", ErrCorrupt, key)
	}
	return makeExtent(binary.BigEndian.Uint64(key[8:]), blocks, v[0])
}

func encodeRecord(key []byte, extents []Extent) []byte {
	return seal(key, appendExtents(make([]byte, 0, 8*len(extents)+crc32.Size), extents))
}

func appendExtents(p []byte, extents []Extent) []byte {
	for _, e := range extents {
		p = append(p, e.State)
		p = binary.AppendUvarint(p, uint64(e.Off/blockSize))
		p = binary.AppendUvarint(p, uint64((e.End-e.Off)/blockSize))
	}
	return p
}

func decodeRecord(key, value []byte, f func(Extent) error) error {
	v, err := unseal(key, value)
	if err != nil {
		return err
	}
	if err := decodeExtents(v, f); err != nil {
		return fmt.Errorf("record %x: %w", key, err)
	}
	return nil
}

func decodeExtents(v []byte, f func(Extent) error) error {
	for len(v) > 0 {
		state := v[0]
		first, n := binary.Uvarint(v[1:])
		if n <= 0 {
			return fmt.Errorf("%w: extents cut short", ErrCorrupt)
		}
		v = v[1+n:]
		blocks, n := binary.Uvarint(v)
		if n <= 0 {
			return fmt.Errorf("%w: extents cut short", ErrCorrupt)
		}
		v = v[n:]
		e, err := makeExtent(first, blocks, state)
		if err != nil {
			return err
		}
		if err := f(e); err != nil {
			return err
		}
	}
	return nil
}

// maxBlock bounds block numbers, so that no sum of two overflows an int64 of
// bytes.
const maxBlock = 1 << 49

func makeExtent(first, blocks uint64, state uint8) (Extent, error) {
	if first >= maxBlock || blocks == 0 || blocks > maxBlock {
		return Extent{}, fmt.Errorf("%w: extent of %d blocks at %d", ErrCorrupt, blocks, first)
	}
	off := int64(first) * blockSize
	return Extent{Off: off, End: off + int64(blocks)*blockSize, State: state}, nil
}
