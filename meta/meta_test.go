package meta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
)

func openTest(t *testing.T, path string) *DB {
	t.Helper()
	db, err := Open(path, Options{FoldFailed: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// load returns the map as one state per block.
func load(t *testing.T, m *Map, blocks int) []uint8 {
	t.Helper()
	states := make([]uint8, blocks)
	err := m.Load(func(e Extent) error {
		for b := e.Off / blockSize; b < e.End/blockSize; b++ {
			states[b] = e.State
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return states
}

// newLayer makes a volume, so that its map has an owner.
func newLayer(t *testing.T, db *DB, name string, size int64) Volume {
	t.Helper()
	id, err := db.NewMap()
	if err != nil {
		t.Fatal(err)
	}
	v, err := db.CreateVolume(Volume{Name: name, Size: size, Layer: id})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func wantClean(t *testing.T, db *DB) {
	t.Helper()
	for _, p := range db.Check() {
		t.Error("check:", p)
	}
}

func TestVolumes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db := openTest(t, path)
	v := newLayer(t, db, "a", 1<<20)
	if v.ID == [16]byte{} || v.Created.IsZero() || v.Layer == 0 {
		t.Errorf("volume without identity: %+v", v)
	}
	if _, err := db.CreateVolume(Volume{Name: "a", Size: 512, Layer: 9}); !errors.Is(err, ErrExists) {
		t.Errorf("second volume of the name: %v, want ErrExists", err)
	}
	if w := newLayer(t, db, "b", 1<<20); w.ID == v.ID || w.Layer == v.Layer {
		t.Errorf("two volumes share %+v and %+v", v, w)
	}
	if err := db.Map(v.Layer).Append([]Extent{{0, 8192, 1}}); err != nil {
		t.Fatal(err)
	}
	wantClean(t, db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode of %s: %v %v, want 0600", path, st.Mode(), err)
	}
	db = openTest(t, path)
	defer db.Close()
	got, err := db.Volume("a")
	if err != nil || got.ID != v.ID || got.Layer != v.Layer || got.Size != v.Size || !got.Created.Equal(v.Created) {
		t.Errorf("after reopening: %+v %v, want %+v", got, err, v)
	}
	if all, err := db.Volumes(); err != nil || len(all) != 2 {
		t.Errorf("Volumes: %v %v", all, err)
	}
	if err := db.ResizeVolume("a", 8192); err != nil {
		t.Fatal(err)
	}
	if small, err := db.Volume("a"); err != nil || small.Size != 8192 || small.ID != v.ID {
		t.Errorf("resized: %+v %v", small, err)
	}
	wantClean(t, db)
	if err := db.ResizeVolume("none", 8192); !errors.Is(err, ErrNotFound) {
		t.Errorf("resize of no volume: %v, want ErrNotFound", err)
	}
	if err := db.DeleteVolume("a"); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Volume("a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("deleted volume: %v, want ErrNotFound", err)
	}
	if err := db.DeleteVolume("a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("deleted twice: %v, want ErrNotFound", err)
	}
	if err := db.DeleteLayers(v.Layer); err != nil {
		t.Fatal(err)
	}
	if got := load(t, db.Map(v.Layer), 4); got[0] != 0 {
		t.Error("the map of a deleted layer is still there")
	}
	wantClean(t, db)
}

// TestMapAgainstModel appends random extents, folds now and then, reopens, and
// compares with an array of states.
func TestMapAgainstModel(t *testing.T) {
	const blocks = 300
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	path := filepath.Join(t.TempDir(), "db")
	opt := Options{JournalSize: journalStart + 2*1024, FoldEvery: 40, FoldFailed: func(err error) { t.Error(err) }}
	db, err := Open(path, opt)
	if err != nil {
		t.Fatal(err)
	}
	layer := newLayer(t, db, "v", blocks*blockSize).Layer
	other := newLayer(t, db, "w", blocks*blockSize).Layer
	if err := db.Map(other).Append([]Extent{{0, blocks * blockSize, 3}}); err != nil {
		t.Fatal(err)
	}
	model := make([]uint8, blocks)
	for round := range 400 {
		m := db.Map(layer)
		var exts []Extent
		for range 1 + rnd.IntN(4) {
			first := rnd.Int64N(blocks)
			end := first + 1 + rnd.Int64N(min(20, blocks-first))
			e := Extent{first * blockSize, end * blockSize, uint8(rnd.IntN(3))}
			exts = append(exts, e)
			for b := first; b < end; b++ {
				model[b] = e.State
			}
		}
		if rnd.IntN(50) == 0 { // more than the journal takes
			for range 300 {
				exts = append(exts, exts[0])
			}
			for b := exts[0].Off / blockSize; b < exts[0].End/blockSize; b++ {
				model[b] = exts[0].State
			}
		}
		if err := m.Append(exts); err != nil {
			t.Fatal(err)
		}
		switch rnd.IntN(20) {
		case 0:
			if err := db.Fold(); err != nil {
				t.Fatal(err)
			}
		case 2:
			size := rnd.Int64N(blocks * blockSize)
			if err := m.Trim(size); err != nil {
				t.Fatal(err)
			}
			clear(model[(size+blockSize-1)/blockSize:])
		case 1:
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			if db, err = Open(path, opt); err != nil {
				t.Fatal(err)
			}
			m = db.Map(layer)
		}
		if got := load(t, m, blocks); string(got) != string(model) {
			t.Fatalf("round %d:\n got %v\nwant %v", round, got, model)
		}
	}
	if err := db.Fold(); err != nil {
		t.Fatal(err)
	}
	if got := load(t, db.Map(other), blocks); strings.Trim(string(got), "\x03") != "" {
		t.Fatalf("another map has changed: %v", got)
	}
	if got := load(t, db.Map(layer), blocks); string(got) != string(model) {
		t.Fatalf("folded:\n got %v\nwant %v", got, model)
	}
	wantClean(t, db)

	// Written end to end, a map is one extent.
	if err := db.Map(layer).Append([]Extent{{0, blocks * blockSize, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := db.Fold(); err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := db.Map(layer).Load(func(Extent) error { n++; return nil }); err != nil || n != 1 {
		t.Errorf("%d extents (%v), want 1", n, err)
	}
	db.Close()
}

func TestCaches(t *testing.T) {
	db := openTest(t, filepath.Join(t.TempDir(), "db"))
	defer db.Close()
	id, err := db.NewMap()
	if err != nil {
		t.Fatal(err)
	}
	c := Cache{Image: "i", Identity: "1", Size: 4096, Map: id}
	if err := db.PutCache(c); err != nil {
		t.Fatal(err)
	}
	c.Scanned = true
	if err := db.PutCache(c); err != nil {
		t.Fatal(err)
	}
	if all, err := db.Caches(); err != nil || len(all) != 1 || all[0] != c {
		t.Errorf("Caches: %v %v, want %v", all, err, c)
	}
	c.Sums = true
	if err := db.ChangeCache(id, func(c *Cache) { c.Sums = true }); err != nil {
		t.Fatal(err)
	}
	if all, err := db.Caches(); err != nil || len(all) != 1 || all[0] != c {
		t.Errorf("Caches after a change: %v %v, want %v", all, err, c)
	}
	if err := db.ChangeCache(id+1, func(*Cache) { t.Error("changes what is not there") }); !errors.Is(err, ErrNotFound) {
		t.Errorf("ChangeCache of nothing: %v, want ErrNotFound", err)
	}
	wantClean(t, db)
	if err := db.DeleteCache(id); err != nil {
		t.Fatal(err)
	}
	if all, err := db.Caches(); err != nil || len(all) != 0 {
		t.Errorf("Caches after delete: %v %v", all, err)
	}
}

func TestLockedByAnotherProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	if os.Getenv("META_TEST_OPEN") != "" { // the other process
		_, err := Open(os.Getenv("META_TEST_OPEN"), Options{})
		if !errors.Is(err, ErrLocked) {
			t.Fatalf("Open: %v, want ErrLocked", err)
		}
		return
	}
	db := openTest(t, path)
	defer db.Close()
	cmd := exec.Command(os.Args[0], "-test.run=^TestLockedByAnotherProcess$")
	cmd.Env = append(os.Environ(), "META_TEST_OPEN="+path)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(path string) error
		want error
	}{
		{"newer version", func(path string) error {
			db, err := Open(path, Options{})
			if err != nil {
				return err
			}
			defer db.Close()
			return db.bolt.Update(func(tx *bbolt.Tx) error {
				return tx.Bucket(bucketNode).Put(keyVersion, binary.BigEndian.AppendUint32(nil, Version+1))
			})
		}, ErrVersion},
		{"cut short", func(path string) error {
			db, err := Open(path, Options{})
			if err != nil {
				return err
			}
			return errors.Join(db.Close(), os.Truncate(path, 8192))
		}, ErrCorrupt},
		{"something else", func(path string) error {
			return os.WriteFile(path, []byte(strings.Repeat("no bbolt file ", 2000)), 0o600)
		}, ErrCorrupt},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "db")
			if err := c.make(path); err != nil {
				t.Fatal(err)
			}
			_, err := Open(path, Options{})
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("Open: %v, want %v that names %s", err, c.want, path)
			}
			if _, err := CheckFile(path); !errors.Is(err, c.want) {
				t.Errorf("CheckFile: %v, want %v", err, c.want)
			}
		})
	}
}

// TestCheckFinds breaks a sound file in several ways.
func TestCheckFinds(t *testing.T) {
	for _, c := range []struct {
		name   string
		want   string
		damage func(tx *bbolt.Tx, layer uint64) error
	}{
		{"flipped bit", "checksum", func(tx *bbolt.Tx, layer uint64) error {
			key := extentKey(layer, 0)
			v := encodeExtent(key, Extent{0, 4096, 1})
			v[0] ^= 2
			return tx.Bucket(bucketExtents).Put(key, v)
		}},
		{"overlap", "overlaps", func(tx *bbolt.Tx, layer uint64) error {
			a, b := extentKey(layer, 0), extentKey(layer, 4096)
			if err := tx.Bucket(bucketExtents).Put(a, encodeExtent(a, Extent{0, 8192, 1})); err != nil {
				return err
			}
			return tx.Bucket(bucketExtents).Put(b, encodeExtent(b, Extent{4096, 8192, 2}))
		}},
		{"beyond the end", "of 65536", func(tx *bbolt.Tx, layer uint64) error {
			id, err := tx.Bucket(bucketNode).NextSequence()
			if err != nil {
				return err
			}
			key := extentKey(id, 65536)
			value := fmt.Appendf(nil, `{"image":"i","size":65536,"map":%d}`, id)
			return errors.Join(tx.Bucket(bucketCaches).Put(layerKey(id), value),
				tx.Bucket(bucketExtents).Put(key, encodeExtent(key, Extent{65536, 65536 + 4096, 1})))
		}},
		{"nobody's", "belongs to nothing", func(tx *bbolt.Tx, layer uint64) error {
			key := journalKey(layer+100, 1)
			return tx.Bucket(bucketJournal).Put(key, encodeRecord(key, []Extent{{0, 4096, 1}}))
		}},
		{"bad volume", "volume v", func(tx *bbolt.Tx, layer uint64) error {
			return tx.Bucket(bucketVolumes).Put([]byte("v"), []byte("{"))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "db")
			db := openTest(t, path)
			layer := newLayer(t, db, "v", 65536).Layer
			wantClean(t, db)
			if err := db.bolt.Update(func(tx *bbolt.Tx) error { return c.damage(tx, layer) }); err != nil {
				t.Fatal(err)
			}
			db.foldFail = func(error) {}
			db.Close()
			problems, err := CheckFile(path)
			if err != nil || !strings.Contains(strings.Join(problems, "\n"), c.want) {
				t.Errorf("CheckFile: %q %v, want a problem with %q", problems, err, c.want)
			}
		})
	}
}

// TestCheckWhileWriting checks a file that flushes and folds go on in.
func TestCheckWhileWriting(t *testing.T) {
	db := openTest(t, filepath.Join(t.TempDir(), "db"))
	defer db.Close()
	layer := newLayer(t, db, "v", 1<<30).Layer
	done := make(chan error)
	go func() {
		m := db.Map(layer)
		for i := range int64(200) {
			if err := m.Append([]Extent{{i * 8192, i*8192 + 4096, 1}}); err != nil {
				done <- err
				return
			}
			if i%16 == 0 {
				db.requestFold()
			}
		}
		done <- nil
	}()
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			return
		default:
			wantClean(t, db)
		}
	}
}
