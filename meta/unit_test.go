package meta

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
)

func TestUnitState(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db := openTest(t, path)
	v, w := newLayer(t, db, "v", 1<<20), newLayer(t, db, "w", 1<<20)
	volume, other, drive := VolumeUnit(v.ID), VolumeUnit(w.ID), PlaceUnit("iqn.2026-11.io.skylun:cd", 3)
	want := func(unit, name string, value []byte) {
		t.Helper()
		got, err := db.UnitState(unit, name)
		if err != nil || !bytes.Equal(got, value) || (got == nil) != (value == nil) {
			t.Errorf("%s %s: %q %v, want %q", unit, name, got, err, value)
		}
	}
	set := func(unit, name string, value []byte) {
		t.Helper()
		if err := db.SetUnitState(unit, name, value); err != nil {
			t.Fatal(err)
		}
	}
	want(volume, "a", nil)
	set(volume, "a", []byte("1"))
	set(volume, "b", []byte("2"))
	set(volume, "b", []byte("3"))
	set(volume, "empty", []byte{})
	set(other, "a", []byte("4"))
	set(drive, "medium", []byte("i"))
	set(drive, "gone", []byte("i"))
	set(drive, "gone", nil)
	set(drive, "never", nil)
	wantClean(t, db)
	db.Close()

	db = openTest(t, path)
	defer db.Close()
	want(volume, "a", []byte("1"))
	want(volume, "b", []byte("3"))
	want(volume, "empty", []byte{})
	want(drive, "medium", []byte("i"))
	want(drive, "gone", nil)
	if err := db.DeleteVolume("v"); err != nil {
		t.Fatal(err)
	}
	want(volume, "a", nil)
	want(volume, "b", nil)
	want(other, "a", []byte("4"))
	want(drive, "medium", []byte("i"))
	if err := db.SetUnitState(volume, "a", []byte("late")); !errors.Is(err, ErrNotFound) {
		t.Errorf("a volume that is gone keeps something: %v", err)
	}
	for _, names := range [][2]string{{"", "a"}, {"u", ""}, {"u\x00", "a"}, {"u", "a\x00"}} {
		if err := db.SetUnitState(names[0], names[1], []byte("x")); err == nil {
			t.Errorf("%q is a name", names)
		}
	}
	wantClean(t, db)
}

// TestVersion1 opens a file as the first version left it.
func TestVersion1(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db := openTest(t, path)
	v := newLayer(t, db, "v", 1<<20)
	if err := db.bolt.Update(func(tx *bbolt.Tx) error { return asVersion(tx, 1) }); err != nil {
		t.Fatal(err)
	}
	db.Close()

	if problems, err := CheckFile(path); err != nil || len(problems) > 0 {
		t.Errorf("CheckFile: %q %v", problems, err)
	}
	db = openTest(t, path)
	if got, err := db.Volume("v"); err != nil || got.ID != v.ID {
		t.Errorf("volume: %+v %v, want %+v", got, err, v)
	}
	if err := db.SetUnitState(VolumeUnit(v.ID), "a", []byte("1")); err != nil {
		t.Error(err)
	}
	db.Close()
	err := func() error {
		db, err := open(path, true)
		if err != nil {
			return err
		}
		defer db.Close()
		return db.View(func(tx *bbolt.Tx) error {
			if n, err := schema(tx); err != nil || n != Version {
				t.Errorf("version %d %v, want %d", n, err, Version)
			}
			return nil
		})
	}()
	if err != nil {
		t.Error(err)
	}
}

// TestCheckUnits damages what units keep.
func TestCheckUnits(t *testing.T) {
	for _, c := range []struct {
		name, want string
		damage     func(b *bbolt.Bucket) error
	}{
		{"flipped bit", "checksum", func(b *bbolt.Bucket) error {
			key := []byte("place/x/0\x00a")
			value := seal(key, []byte("abc"))
			value[1] ^= 1
			return b.Put(key, value)
		}},
		{"no volume", "belongs to no volume", func(b *bbolt.Bucket) error {
			key := []byte(VolumeUnit([16]byte{1}) + "\x00a")
			return b.Put(key, seal(key, nil))
		}},
		{"no name", "key", func(b *bbolt.Bucket) error { return b.Put([]byte("place"), []byte("x")) }},
	} {
		db := openTest(t, filepath.Join(t.TempDir(), "db"))
		if err := db.bolt.Update(func(tx *bbolt.Tx) error { return c.damage(tx.Bucket(bucketUnits)) }); err != nil {
			t.Fatal(err)
		}
		if problems := db.Check(); len(problems) != 1 || !strings.Contains(problems[0], c.want) {
			t.Errorf("%s: %q, want one with %q", c.name, problems, c.want)
		}
		db.Close()
	}
}
