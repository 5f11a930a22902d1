package overlay

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"skylun/meta"
)

// worldDB is a database with its journal, and what a power cut in the middle of
// a change would leave of them.
type worldDB struct {
	w    *world
	path string
	db   *meta.DB
	torn *dbFiles // what a power cut leaves just now; nil: what is in the files
}

// dbFiles is what database and journal hold.
type dbFiles struct{ db, journal []byte }

func newWorldDB(w *world) (*worldDB, error) {
	d := &worldDB{w: w, path: w.newPath()}
	return d, d.open()
}

func (w *world) newPath() string { return filepath.Join(w.dir, fmt.Sprintf("db%d", w.rnd.Uint64())) }

func (d *worldDB) open() (err error) {
	d.db, err = meta.Open(d.path, meta.Options{FoldEvery: -1, JournalSize: 4096 + 2*(256+d.w.rnd.Int64N(2048))})
	return err
}

func (d *worldDB) newMap(id uint64) Map { return tornMap{d.db.Map(id), id, d} }

func (d *worldDB) fold() error { return d.change(d.db.Fold) }

// restart stops in an orderly way or not, and starts again.
func (d *worldDB) restart(orderly bool) error {
	left, err := d.cut(d.w) // of one that is killed all is left that it wrote
	if err != nil {
		return err
	}
	if orderly {
		err = errors.Join(left.close(), d.db.Close(), d.open())
	} else {
		err = d.close()
		d.path, d.db = left.path, left.db
	}
	return err
}

func (d *worldDB) files() (f dbFiles, err error) {
	if f.db, err = os.ReadFile(d.path); err == nil {
		f.journal, err = os.ReadFile(d.path + ".journal")
	}
	return f, err
}

// cut returns what a power cut now would leave.
func (d *worldDB) cut(left *world) (*worldDB, error) {
	n := &worldDB{w: left, path: left.newPath()}
	f := dbFiles{}
	if d.torn != nil {
		f = *d.torn
	} else {
		var err error
		if f, err = d.files(); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(os.WriteFile(n.path, f.db, 0o600), os.WriteFile(n.path+".journal", f.journal, 0o600)); err != nil {
		return nil, err
	}
	problems, err := meta.CheckFile(n.path)
	if err != nil || len(problems) > 0 {
		return nil, fmt.Errorf("check: %w %q", err, problems)
	}
	if err := n.open(); err != nil {
		return nil, err
	}
	return n, nil
}

func (d *worldDB) close() error {
	var errs []error
	for _, p := range d.db.Check() {
		errs = append(errs, errors.New(p))
	}
	return errors.Join(append(errs, d.db.Close(), os.Remove(d.path), os.Remove(d.path+".journal"))...)
}

// change runs f, which changes the database and after it the journal, and looks
// at power cuts within and after it.
func (d *worldDB) change(f func() error) error {
	before, err := d.files()
	if err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	after, err := d.files()
	if err != nil {
		return err
	}
	if transactions(after.db)-transactions(before.db) == 1 { // the pages between several are not known
		d.torn = &dbFiles{tear(d.w.rnd, before.db, after.db), before.journal}
		d.w.point("within a commit of the database")
	}
	if !bytes.Equal(before.journal, after.journal) {
		journal := bytes.Clone(before.journal)
		for s := 0; s < len(journal); s += sector {
			if d.w.rnd.IntN(2) == 0 {
				copy(journal[s:min(s+sector, len(journal))], after.journal[s:])
			}
		}
		d.torn = &dbFiles{after.db, journal}
		d.w.point("within a write of the journal")
	}
	d.torn = nil
	d.w.point("states committed, nobody answered")
	return nil
}

// transactions returns the number of the last transaction of a database: that of
// the younger of its two first pages, where it follows what bbolt calls meta:
// four words, the root bucket, the free list and the number of pages.
func transactions(db []byte) uint64 {
	const at = 16 + 4*4 + 16 + 8 + 8
	return max(binary.NativeEndian.Uint64(db[at:]), binary.NativeEndian.Uint64(db[os.Getpagesize()+at:]))
}

// tear returns what a power cut leaves that comes while before becomes after.
// bbolt writes its two first pages when all others are synced.
func tear(rnd *rand.Rand, before, after []byte) []byte {
	torn := make([]byte, len(after))
	copy(torn, before)
	heads := 2 * os.Getpagesize()
	all := rnd.IntN(2) == 0
	for s := heads; s < len(after); s += sector {
		if all || rnd.IntN(2) == 0 {
			copy(torn[s:s+sector], after[s:])
		}
	}
	for s := 0; all && s < min(heads, len(after)); s += sector {
		if rnd.IntN(2) == 0 {
			copy(torn[s:s+sector], after[s:])
		}
	}
	return torn
}

type tornMap struct {
	*meta.Map
	id uint64
	d  *worldDB
}

func (m tornMap) Append(extents []Extent) error {
	return m.d.change(func() error { return m.Map.Append(extents) })
}

func (m tornMap) Trim(size int64) error {
	return m.d.change(func() error { return m.Map.Trim(size) })
}
