package meta

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"

	"go.etcd.io/bbolt"
)

// journalState is what the database knows of its journal, bucket node, key
// "journal": 16 bytes, uint64, and a byte. There is none until the file exists.
type journalState struct {
	id     [16]byte // of the file that belongs to this database
	folded uint64   // the last record folded
	needed bool     // the file may have records that are not
}

const journalStateSize = 16 + 8 + 1

func loadState(tx *bbolt.Tx) (s journalState, found bool, err error) {
	v := tx.Bucket(bucketNode).Get(keyJournal)
	if v == nil {
		return s, false, nil
	}
	if len(v) != journalStateSize {
		return s, false, fmt.Errorf("%w: state of the journal", ErrCorrupt)
	}
	copy(s.id[:], v)
	s.folded, s.needed = binary.BigEndian.Uint64(v[16:]), v[24] != 0
	return s, true, nil
}

func changeState(tx *bbolt.Tx, f func(*journalState)) error {
	s, _, err := loadState(tx)
	if err != nil {
		return err
	}
	f(&s)
	v := binary.BigEndian.AppendUint64(bytes.Clone(s.id[:]), s.folded)
	if v = append(v, 0); s.needed {
		v[24] = 1
	}
	return tx.Bucket(bucketNode).Put(keyJournal, v)
}

func journalPath(path string) string { return path + ".journal" }

// readJournal opens the journal of the database at path. found is false when
// there is none and none is needed.
func readJournal(db *bbolt.DB, path string, readOnly bool) (j *journal, s journalState, found bool, err error) {
	err = db.View(func(tx *bbolt.Tx) error {
		s, found, err = loadState(tx)
		return err
	})
	if err != nil || !found {
		return nil, s, false, err
	}
	j, err = openJournal(journalPath(path), s.id, s.folded, readOnly)
	switch {
	case err == nil:
		return j, s, true, nil
	case !s.needed && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrCorrupt)):
		return nil, s, false, nil // copied without it after an orderly stop
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("%w: the last changes are in %s, which is not there: bring it back", ErrCorrupt, journalPath(path))
	default:
		err = fmt.Errorf("%s: %w", journalPath(path), err)
	}
	return nil, s, false, err
}

// unfolded returns the records that only the journal has, of a database that
// no process has open.
func unfolded(db *bbolt.DB, path string) ([]record, error) {
	j, _, found, err := readJournal(db, path, true)
	if err != nil || !found {
		return nil, err
	}
	return j.waiting, j.file.Close()
}

// startJournal opens the journal for writing, or makes one, and folds what is
// in it.
//
// A new one is durable before the database knows of it: a crash in between
// leaves a file that is made again.
func startJournal(db *bbolt.DB, path string, size int64) (j *journal, err error) {
	j, s, found, err := readJournal(db, path, false)
	if err != nil {
		return nil, err
	}
	if !found {
		rand.Read(s.id[:])
		if err := createJournal(journalPath(path), s.id, size); err != nil {
			return nil, err
		}
		if j, err = openJournal(journalPath(path), s.id, s.folded, false); err != nil {
			return nil, err
		}
	}
	defer func() {
		if err != nil {
			j.file.Close()
		}
	}()
	d := &DB{bolt: db, journal: j}
	if err := d.Fold(); err != nil {
		return nil, err
	}
	j.restart()
	return j, db.Update(func(tx *bbolt.Tx) error {
		return changeState(tx, func(now *journalState) { *now = journalState{id: s.id, folded: j.folded, needed: true} })
	})
}

// number returns that of the last record.
func (j *journal) number() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.seq
}

// foldBucket moves what earlier versions kept in the journal's bucket into the
// extents.
func foldBucket(tx *bbolt.Tx) error {
	old, extents := tx.Bucket(bucketJournal), tx.Bucket(bucketExtents)
	var keys [][]byte // a cursor must not see its bucket change
	c := old.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		if len(k) != 16 {
			return fmt.Errorf("%w: journal entry %x", ErrCorrupt, k)
		}
		id := binary.BigEndian.Uint64(k)
		if err := decodeRecord(k, v, func(e Extent) error { return putExtent(extents, id, e) }); err != nil {
			return err
		}
		keys = append(keys, bytes.Clone(k))
	}
	for _, k := range keys {
		if err := old.Delete(k); err != nil {
			return err
		}
	}
	return nil
}
