package meta

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// abandon closes the files as a process does that is killed.
func abandon(db *DB) {
	close(db.stop)
	db.stopped.Wait()
	db.journal.file.Close()
	db.bolt.Close()
}

// TestJournalOfVersion2 opens a file whose journal is a bucket.
func TestJournalOfVersion2(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db := openTest(t, path)
	layer := newLayer(t, db, "v", 64*blockSize).Layer
	if err := db.Map(layer).Append([]Extent{{0, 8 * blockSize, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := db.Fold(); err != nil {
		t.Fatal(err)
	}
	err := db.bolt.Update(func(tx *bbolt.Tx) error {
		for i, e := range []Extent{{4 * blockSize, 6 * blockSize, 2}, {5 * blockSize, 10 * blockSize, 1}} {
			key := journalKey(layer, uint64(i+1))
			if err := tx.Bucket(bucketJournal).Put(key, encodeRecord(key, []Extent{e})); err != nil {
				return err
			}
		}
		node := tx.Bucket(bucketNode)
		return errors.Join(node.Delete(keyJournal), asVersion(tx, 2))
	})
	if err != nil {
		t.Fatal(err)
	}
	abandon(db)
	os.Remove(journalPath(path))
	if problems, err := CheckFile(path); err != nil || len(problems) > 0 {
		t.Errorf("CheckFile: %q %v", problems, err)
	}
	for range 2 {
		db = openTest(t, path)
		wantClean(t, db)
		if got := load(t, db.Map(layer), 12); string(got) != "\x01\x01\x01\x01\x02\x01\x01\x01\x01\x01\x00\x00" {
			t.Errorf("blocks %v", got)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestJournalSurvives a process that is killed: what Append has said is there,
// in the order in which it was said, and for whom.
func TestJournalSurvives(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	var layers [2]uint64
	for i := range 20 {
		db, err := Open(path, Options{FoldEvery: -1, JournalSize: journalStart + 2*512})
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			layers = [2]uint64{newLayer(t, db, "a", 1<<20).Layer, newLayer(t, db, "b", 1<<20).Layer}
		}
		for k := range i {
			for n, layer := range layers {
				if err := db.Map(layer).Append([]Extent{{0, 4 * blockSize, uint8(1 + n)}, {blockSize, 2 * blockSize, uint8(i*16 + k)}}); err != nil {
					t.Fatal(err)
				}
			}
		}
		abandon(db)
		if problems, err := CheckFile(path); err != nil || len(problems) > 0 {
			t.Errorf("CheckFile: %q %v", problems, err)
		}
		db = openTest(t, path)
		for n, layer := range layers {
			if got := load(t, db.Map(layer), 4); i > 0 && (got[0] != uint8(1+n) || got[1] != uint8(i*16+i-1)) {
				t.Errorf("%d: map %d: %v, want the last record", i, n, got)
			}
		}
		wantClean(t, db)
		abandon(db)
	}
}

// TestJournalMissing: an orderly stop leaves nothing in it, a kill may.
func TestJournalMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db := openTest(t, path)
	layer := newLayer(t, db, "v", 1<<20).Layer
	if err := db.Map(layer).Append([]Extent{{0, blockSize, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	os.Remove(journalPath(path))
	if problems, err := CheckFile(path); err != nil || len(problems) > 0 {
		t.Errorf("CheckFile: %q %v", problems, err)
	}
	db = openTest(t, path)
	if got := load(t, db.Map(layer), 1); got[0] != 1 {
		t.Error("a map is lost with an empty journal")
	}
	abandon(db)
	away := journalPath(path) + ".away"
	if err := os.Rename(journalPath(path), away); err != nil {
		t.Fatal(err)
	}
	for what, make := range map[string]func() error{
		"not there":      func() error { return nil },
		"another's":      func() error { return createJournal(journalPath(path), [16]byte{1}, 1<<20) },
		"something else": func() error { return os.WriteFile(journalPath(path), []byte("hello"), 0o600) },
	} {
		if err := make(); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path, Options{}); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), journalPath(path)) {
			t.Errorf("%s: Open: %v, want ErrCorrupt that names the file", what, err)
		}
		if _, err := CheckFile(path); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: CheckFile: %v, want ErrCorrupt", what, err)
		}
		os.Remove(journalPath(path))
	}
	if err := os.Rename(away, journalPath(path)); err != nil {
		t.Fatal(err)
	}
	db = openTest(t, path)
	wantClean(t, db)
	db.Close()
}

// TestJournalParallel appends to many maps at once, while it is folded.
func TestJournalParallel(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db, err := Open(path, Options{FoldEvery: 16, JournalSize: journalStart + 2*4096, FoldFailed: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	const maps, records = 8, 60
	var layers [maps]uint64
	for i := range layers {
		layers[i] = newLayer(t, db, string(rune('a'+i)), records*blockSize).Layer
	}
	var wg sync.WaitGroup
	for _, layer := range layers {
		wg.Go(func() {
			for k := range int64(records) {
				if err := db.Map(layer).Append([]Extent{{k * blockSize, (k + 1) * blockSize, uint8(k + 1)}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	abandon(db)
	db = openTest(t, path)
	defer db.Close()
	for _, layer := range layers {
		for k, got := range load(t, db.Map(layer), records) {
			if got != uint8(k+1) {
				t.Fatalf("map %d: block %d is in state %d, want %d", layer, k, got, k+1)
			}
		}
	}
	wantClean(t, db)
}

// faultyFile fails as it is told to.
type faultyFile struct {
	journalFile
	write, sync error
}

func (f *faultyFile) WriteAt(p []byte, off int64) (int, error) {
	if f.write != nil { // a part of it is written
		n, _ := f.journalFile.WriteAt(p[:len(p)/2], off)
		return n, f.write
	}
	return f.journalFile.WriteAt(p, off)
}

func (f *faultyFile) Sync() error { return errors.Join(f.sync, f.journalFile.Sync()) }

// TestJournalFaults: without room nothing was appended and the next record
// takes its place; after any other error nothing is appended any more, also
// when the cause is gone.
func TestJournalFaults(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault faultyFile
		heals bool
	}{
		{"no room", faultyFile{write: unix.ENOSPC}, true},
		{"quota", faultyFile{write: unix.EDQUOT}, true},
		{"write", faultyFile{write: unix.EIO}, false},
		{"sync", faultyFile{sync: unix.EIO}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "db")
			db := openTest(t, path)
			layer := newLayer(t, db, "v", 1<<20).Layer
			m := db.Map(layer)
			add := func(b int64) error { return m.Append([]Extent{{b * blockSize, (b + 1) * blockSize, 1}}) }
			if err := add(0); err != nil {
				t.Fatal(err)
			}
			f := c.fault
			f.journalFile = db.journal.file
			db.journal.file = &f
			if err := add(1); !errors.Is(err, errors.Join(c.fault.write, c.fault.sync)) && !errors.Is(err, c.fault.write) && !errors.Is(err, c.fault.sync) {
				t.Errorf("append: %v, want the fault", err)
			}
			f.write, f.sync = nil, nil
			if err := add(2); (err == nil) != c.heals {
				t.Errorf("append afterwards: %v", err)
			}
			abandon(db)
			db = openTest(t, path)
			defer db.Close()
			got := load(t, db.Map(layer), 3)
			if got[0] != 1 || c.heals && (got[1] != 0 || got[2] != 1) {
				t.Errorf("blocks %v", got)
			}
			wantClean(t, db)
		})
	}
}

// TestJournalTorn damages each record of a journal whose halves both have some:
// those before it are there, it is not, and nothing after it is, in either half;
// nor does any of that come back when others are written.
func TestJournalTorn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db, err := Open(path, Options{FoldEvery: -1, JournalSize: journalStart + 2*512})
	if err != nil {
		t.Fatal(err)
	}
	const records = 20
	layer := newLayer(t, db, "v", 1<<20).Layer
	var ends [records]int64
	for i := range int64(records) {
		if err := db.Map(layer).Append([]Extent{{i * blockSize, (i + 1) * blockSize, 1}}); err != nil {
			t.Fatal(err)
		}
		ends[i] = db.journal.end
	}
	if db.journal.current != 1 || len(db.journal.waiting) != records {
		t.Fatalf("half %d with %d records to be folded", db.journal.current, len(db.journal.waiting))
	}
	abandon(db)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(journalPath(path))
	if err != nil {
		t.Fatal(err)
	}
	for torn := range records {
		damaged := append([]byte(nil), whole...)
		damaged[ends[torn]-int64(1+torn%20)] ^= 0xff
		if err := errors.Join(os.WriteFile(path, data, 0o600), os.WriteFile(journalPath(path), damaged, 0o600)); err != nil {
			t.Fatal(err)
		}
		want := make([]uint8, records)
		for i := range torn {
			want[i] = 1
		}
		for round := range 4 {
			db, err := Open(path, Options{FoldEvery: -1})
			if err != nil {
				t.Fatal(err)
			}
			if got := load(t, db.Map(layer), records); string(got) != string(want) {
				t.Fatalf("record %d torn, round %d: %v, want %v", torn, round, got, want)
			}
			for i := range round { // as long as the old ones, which may follow them
				if err := db.Map(layer).Append([]Extent{{int64(i) * blockSize, int64(i+1) * blockSize, 2}}); err != nil {
					t.Fatal(err)
				}
				want[i] = 2
			}
			abandon(db)
		}
	}
}
