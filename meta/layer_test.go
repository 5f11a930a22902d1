package meta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
)

// asVersion takes away what later versions have added.
func asVersion(tx *bbolt.Tx, version uint32) error {
	for _, added := range buckets[version+1:] {
		for _, name := range added {
			if err := tx.DeleteBucket(name); err != nil {
				return err
			}
		}
	}
	return tx.Bucket(bucketNode).Put(keyVersion, binary.BigEndian.AppendUint32(nil, version))
}

// TestVersion3 opens a file whose volumes have a layer each, of which it keeps
// no record.
func TestVersion3(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db := openTest(t, path)
	a, b := newLayer(t, db, "a", 1<<20), newLayer(t, db, "b", 2<<20)
	if err := db.Map(a.Layer).Append([]Extent{{0, 4096, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := db.bolt.Update(func(tx *bbolt.Tx) error { return asVersion(tx, 3) }); err != nil {
		t.Fatal(err)
	}
	abandon(db) // with a record in the journal
	if problems, err := CheckFile(path); err != nil || len(problems) > 0 {
		t.Errorf("CheckFile: %q %v", problems, err)
	}
	for range 2 {
		db = openTest(t, path)
		wantClean(t, db)
		for _, v := range []Volume{a, b} {
			tree := treeOf(t, db)
			if l := tree.Layers[v.Layer]; len(tree.Layers) != 2 || l.ID != v.Layer || l.Parent != 0 || l.Size != v.Size || !l.Created.Equal(v.Created) {
				t.Errorf("layers %+v, want one of %+v", tree.Layers, v)
			}
		}
		if got := load(t, db.Map(a.Layer), 2); string(got) != "\x01\x00" {
			t.Errorf("blocks %v", got)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func treeOf(t *testing.T, db *DB) *Tree {
	t.Helper()
	tree, err := db.Tree()
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// snap gives the volumes new tops and stores a snapshot of the old ones.
func snap(t *testing.T, db *DB, name string, volumes ...string) Snapshot {
	t.Helper()
	ids, err := db.NewMaps(len(volumes))
	if err != nil {
		t.Fatal(err)
	}
	var tops []Top
	s := Snapshot{Name: name}
	for i, name := range volumes {
		v, err := db.Volume(name)
		if err != nil {
			t.Fatal(err)
		}
		tops = append(tops, Top{Volume: name, Layer: ids[i], Parent: v.Layer, Size: v.Size})
		s.Volumes = append(s.Volumes, SnapshotVolume{Volume: name, VolumeID: v.ID, Layer: v.Layer, Size: v.Size})
	}
	if err := db.SetTops(tops); err != nil {
		t.Fatal(err)
	}
	wantClean(t, db) // a crash may leave it like that
	if s, err = db.PutSnapshot(s); err != nil {
		t.Fatal(err)
	}
	return s
}

func wantUnneeded(t *testing.T, db *DB, leaves, between []uint64) {
	t.Helper()
	wantClean(t, db)
	if l, b := treeOf(t, db).Unneeded(); !slices.Equal(l, leaves) || !slices.Equal(b, between) {
		t.Errorf("unneeded: %v and %v, want %v and %v", l, b, leaves, between)
	}
}

func TestSnapshots(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db := openTest(t, path)
	v, w := newLayer(t, db, "v", 1<<20), newLayer(t, db, "w", 2<<20)
	s := snap(t, db, "s", "v", "w")
	if s.ID == [16]byte{} || s.Created.IsZero() || s.Volumes[0].Layer != v.Layer || s.Volumes[1].Layer != w.Layer {
		t.Errorf("%+v", s)
	}
	if _, err := db.PutSnapshot(Snapshot{Name: "s"}); !errors.Is(err, ErrExists) {
		t.Errorf("name taken: %v", err)
	}
	if _, err := db.PutSnapshot(Snapshot{Name: "x", Volumes: []SnapshotVolume{{Layer: 99}}}); !errors.Is(err, ErrNotFound) {
		t.Errorf("of no layer: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = openTest(t, path)
	defer db.Close()
	wantUnneeded(t, db, nil, nil)
	if got, err := db.Snapshot("s"); err != nil || got.ID != s.ID || len(got.Volumes) != 2 || got.Volumes[1].VolumeID != w.ID {
		t.Errorf("after reopening: %+v %v", got, err)
	}
	for _, id := range []uint64{v.Layer, treeOf(t, db).Volumes[0].Layer} {
		if err := db.DeleteLayers(id); !errors.Is(err, ErrNeeded) {
			t.Errorf("layer %d that is needed: %v", id, err)
		}
	}

	// A clone keeps the snapshot's layer.
	id, err := db.NewMap()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.CloneVolume(Volume{Name: "c", Size: 1 << 20, Layer: id}, 77); !errors.Is(err, ErrNotFound) {
		t.Errorf("clone of nothing: %v", err)
	}
	if _, err := db.CloneVolume(Volume{Name: "c", Size: 1 << 20, Layer: id}, v.Layer); err != nil {
		t.Fatal(err)
	}
	if chain, err := treeOf(t, db).Chain(id); err != nil || len(chain) != 2 || chain[0].ID != v.Layer || chain[1].ID != id {
		t.Errorf("chain of the clone: %+v %v", chain, err)
	}
	if chain, err := db.Chain(id); err != nil || len(chain) != 2 || chain[0].ID != v.Layer || chain[1].ID != id {
		t.Errorf("chain of the clone: %+v %v", chain, err)
	}
	if _, err := db.Chain(99); !errors.Is(err, ErrNotFound) {
		t.Errorf("chain of nothing: %v", err)
	}
	if above := treeOf(t, db).Above(v.Layer); len(above) != 2 || above[0].Name != "c" || above[1].Name != "v" {
		t.Errorf("above: %+v", above)
	}

	// Rolling back leaves what was on top.
	old, err := db.Volume("w")
	if err != nil {
		t.Fatal(err)
	}
	if id, err = db.NewMap(); err != nil {
		t.Fatal(err)
	}
	if err := db.SetTops([]Top{{Volume: "w", Layer: id, Parent: w.Layer, Size: w.Size}, {Volume: "none", Layer: id + 1}}); !errors.Is(err, ErrNotFound) {
		t.Errorf("tops of no volume: %v", err)
	}
	if err := db.SetTops([]Top{{Volume: "w", Layer: id, Parent: w.Layer, Size: w.Size}}); err != nil {
		t.Fatal(err)
	}
	wantUnneeded(t, db, []uint64{old.Layer}, nil)
	if err := db.DeleteLayers(old.Layer); err != nil {
		t.Fatal(err)
	}

	// A switch that fails comes to nothing.
	before := treeOf(t, db)
	tops := []Top{{Volume: "v", Layer: id + 1, Parent: before.Volumes[1].Layer, Size: 1 << 20}}
	if _, err := db.NewMap(); err != nil {
		t.Fatal(err)
	}
	if err := db.SetTops(tops); err != nil {
		t.Fatal(err)
	}
	tops[0].Layer = tops[0].Parent
	if err := db.RevertTops(tops); err != nil || len(treeOf(t, db).Layers) != len(before.Layers) {
		t.Errorf("reverted: %v, layers %+v", err, treeOf(t, db).Layers)
	}
	wantClean(t, db)

	if err := db.DeleteSnapshot("s"); err != nil {
		t.Fatal(err)
	}
	if err := db.DeleteSnapshot("s"); !errors.Is(err, ErrNotFound) {
		t.Errorf("deleted twice: %v", err)
	}
	wantUnneeded(t, db, nil, []uint64{w.Layer}) // two lie on v's
	if err := db.DeleteVolume("w"); err != nil {
		t.Fatal(err)
	}
	wantUnneeded(t, db, []uint64{id}, []uint64{w.Layer})
}

// TestReplaceLayer merges a layer upwards and downwards.
func TestReplaceLayer(t *testing.T) {
	db := openTest(t, filepath.Join(t.TempDir(), "db"))
	defer db.Close()
	one := newLayer(t, db, "v", 1<<20).Layer
	snap(t, db, "a", "v")
	if err := db.ResizeVolume("v", 2<<20); err != nil {
		t.Fatal(err)
	}
	two := snap(t, db, "b", "v").Volumes[0].Layer
	three := snap(t, db, "c", "v").Volumes[0].Layer
	top := treeOf(t, db).Volumes[0].Layer
	for _, c := range []struct {
		gone, kept uint64
		want       error
	}{{one, two, ErrNeeded}, {two, one, ErrNeeded}, {one, 99, ErrNotFound}, {99, one, ErrNotFound}} {
		if err := db.ReplaceLayer(c.gone, c.kept, 1<<20); !errors.Is(err, c.want) {
			t.Errorf("%d instead of %d: %v, want %v", c.kept, c.gone, err, c.want)
		}
	}
	if err := db.ReplaceLayer(one, three, 2<<20); err == nil {
		t.Error("layers that do not touch")
	}

	if err := db.DeleteSnapshot("a"); err != nil {
		t.Fatal(err)
	}
	wantUnneeded(t, db, nil, []uint64{one})
	if err := db.ReplaceLayer(two, one, 2<<20); err != nil { // downwards
		t.Fatal(err)
	}
	wantUnneeded(t, db, []uint64{two}, nil)
	if s, err := db.Snapshot("b"); err != nil || s.Volumes[0].Layer != one || treeOf(t, db).Layers[one].Size != 2<<20 || treeOf(t, db).Layers[three].Parent != one {
		t.Errorf("%+v %v %+v", s, err, treeOf(t, db).Layers)
	}
	if err := db.DeleteLayers(two); err != nil {
		t.Fatal(err)
	}

	if err := db.DeleteSnapshot("b"); err != nil {
		t.Fatal(err)
	}
	if err := db.ReplaceLayer(one, three, 2<<20); err != nil { // upwards
		t.Fatal(err)
	}
	wantUnneeded(t, db, []uint64{one}, nil)
	if l := treeOf(t, db).Layers[three]; l.Parent != 0 {
		t.Errorf("%+v", l)
	}
	if err := db.DeleteLayers(one); err != nil {
		t.Fatal(err)
	}
	if err := db.DeleteSnapshot("c"); err != nil {
		t.Fatal(err)
	}
	if err := db.ReplaceLayer(top, three, 2<<20); !errors.Is(err, ErrNeeded) {
		t.Errorf("a top merged downwards: %v", err)
	}
	wantUnneeded(t, db, nil, []uint64{three})
}

// TestTreeAtRandom changes trees in all ways, cleans up now and then, and wants
// a sound database that keeps what is named after each step.
func TestTreeAtRandom(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	path := filepath.Join(t.TempDir(), "db")
	db := openTest(t, path)
	for i := range 3 {
		newLayer(t, db, fmt.Sprint("v", i), 1<<20)
	}
	for step := range 150 {
		tree := treeOf(t, db)
		any := func() (string, uint64, int64) {
			s := tree.Snapshots[rnd.IntN(len(tree.Snapshots))]
			v := s.Volumes[rnd.IntN(len(s.Volumes))]
			return s.Name, v.Layer, v.Size
		}
		var err error
		switch id, _ := db.NewMap(); rnd.IntN(8) {
		case 0, 1:
			var names []string
			for _, i := range rnd.Perm(len(tree.Volumes))[:rnd.IntN(len(tree.Volumes)+1)] {
				names = append(names, tree.Volumes[i].Name)
			}
			if len(names) > 0 {
				snap(t, db, fmt.Sprint("s", step), names...)
			}
		case 2:
			if len(tree.Snapshots) > 0 {
				_, layer, size := any()
				_, err = db.CloneVolume(Volume{Name: fmt.Sprint("c", step), Size: size, Layer: id}, layer)
			}
		case 3:
			if len(tree.Snapshots) > 0 && len(tree.Volumes) > 0 {
				_, layer, size := any()
				err = db.SetTops([]Top{{Volume: tree.Volumes[rnd.IntN(len(tree.Volumes))].Name, Layer: id, Parent: layer, Size: size}})
			}
		case 4:
			if len(tree.Snapshots) > 0 {
				name, _, _ := any()
				err = db.DeleteSnapshot(name)
			}
		case 5:
			if len(tree.Volumes) > 2 {
				err = db.DeleteVolume(tree.Volumes[rnd.IntN(len(tree.Volumes))].Name)
			}
		case 6:
			err = db.ResizeVolume(tree.Volumes[0].Name, 512*(1+rnd.Int64N(4096)))
		case 7:
			err = cleanUp(t, db, rnd)
		}
		if err != nil {
			t.Fatal(err)
		}
		wantClean(t, db)
		for _, s := range treeOf(t, db).Snapshots {
			for _, v := range s.Volumes {
				if _, err := treeOf(t, db).Chain(v.Layer); err != nil {
					t.Fatalf("step %d: snapshot %s: %v", step, s.Name, err)
				}
			}
		}
	}
	for _, s := range treeOf(t, db).Snapshots {
		if err := db.DeleteSnapshot(s.Name); err != nil {
			t.Fatal(err)
		}
	}
	if err := cleanUp(t, db, rnd); err != nil {
		t.Fatal(err)
	}
	tree := treeOf(t, db)
	for _, id := range slices.Sorted(func(yield func(uint64) bool) {
		for id := range tree.Layers {
			if !yield(id) {
				return
			}
		}
	}) {
		if !tree.IsTop(id) && len(tree.Children(id)) < 2 && !slices.ContainsFunc(tree.Children(id), tree.IsTop) {
			t.Errorf("layer %d is left for nothing", id)
		}
	}
	db.Close()
}

// cleanUp merges and removes all layers that can be.
func cleanUp(t *testing.T, db *DB, rnd *rand.Rand) error {
	for {
		tree := treeOf(t, db)
		leaves, between := tree.Unneeded()
		between = slices.DeleteFunc(between, func(id uint64) bool { return tree.IsTop(tree.Children(id)[0]) })
		switch {
		case len(leaves) > 0:
			if err := db.DeleteLayers(leaves[0]); err != nil {
				return err
			}
		case len(between) > 0:
			gone, kept := between[0], tree.Children(between[0])[0]
			if rnd.IntN(2) == 0 {
				gone, kept = kept, gone
			}
			if err := db.ReplaceLayer(gone, kept, max(tree.Layers[gone].Size, tree.Layers[kept].Size)); err != nil {
				return err
			}
		default:
			return nil
		}
		wantClean(t, db)
	}
}

// TestCheckLayers damages trees.
func TestCheckLayers(t *testing.T) {
	for _, c := range []struct {
		name, want string
		damage     func(tx *bbolt.Tx, v Volume, s Snapshot) error
	}{
		{"no layer", "layer 1 of volume v is not there", func(tx *bbolt.Tx, v Volume, s Snapshot) error {
			return tx.Bucket(bucketLayers).Delete(layerKey(1))
		}},
		{"cycle", "lies on itself", func(tx *bbolt.Tx, v Volume, s Snapshot) error {
			return putLayer(tx, Layer{ID: 1, Parent: v.Layer, Size: v.Size})
		}},
		{"two writers", "as volume v does", func(tx *bbolt.Tx, v Volume, s Snapshot) error {
			v.Name, v.ID = "w", [16]byte{1}
			return putVolume(tx, v)
		}},
		{"writer below", "which others lie on", func(tx *bbolt.Tx, v Volume, s Snapshot) error {
			v.Layer = 1
			return errors.Join(putVolume(tx, v), tx.Bucket(bucketSnaps).Delete([]byte("s")))
		}},
		{"sealed and written", "writes to its layer", func(tx *bbolt.Tx, v Volume, s Snapshot) error {
			s.Volumes[0].Layer = v.Layer
			return putSnapshot(tx, s)
		}},
		{"another size", "and its layer", func(tx *bbolt.Tx, v Volume, s Snapshot) error {
			v.Size /= 2
			return putVolume(tx, v)
		}},
		{"snapshot of another size", "volume v has 2097152 bytes", func(tx *bbolt.Tx, v Volume, s Snapshot) error {
			s.Volumes[0].Size *= 2
			return putSnapshot(tx, s)
		}},
		{"another image", "over image", func(tx *bbolt.Tx, v Volume, s Snapshot) error {
			v.Image = "i"
			return putVolume(tx, v)
		}},
		{"of nothing", "of no volume", func(tx *bbolt.Tx, v Volume, s Snapshot) error {
			s.Volumes = nil
			return putSnapshot(tx, s)
		}},
		{"same identity", "identity of snapshot", func(tx *bbolt.Tx, v Volume, s Snapshot) error {
			s.Name = "t"
			return putSnapshot(tx, s)
		}},
		{"never given out", "never given out", func(tx *bbolt.Tx, v Volume, s Snapshot) error {
			return putLayer(tx, Layer{ID: 1000, Size: 512})
		}},
		{"a cache's map", "another owner", func(tx *bbolt.Tx, v Volume, s Snapshot) error {
			return tx.Bucket(bucketCaches).Put(layerKey(1), []byte(`{"image":"i","size":4096,"map":1}`))
		}},
		{"no JSON", "layer", func(tx *bbolt.Tx, v Volume, s Snapshot) error {
			return tx.Bucket(bucketLayers).Put(layerKey(2), []byte("{"))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := openTest(t, filepath.Join(t.TempDir(), "db"))
			defer db.Close()
			newLayer(t, db, "v", 1<<20)
			s := snap(t, db, "s", "v")
			wantClean(t, db)
			v, err := db.Volume("v")
			if err != nil {
				t.Fatal(err)
			}
			if err := db.bolt.Update(func(tx *bbolt.Tx) error { return c.damage(tx, v, s) }); err != nil {
				t.Fatal(err)
			}
			if problems := db.Check(); !strings.Contains(strings.Join(problems, "\n"), c.want) {
				t.Errorf("%q, want one with %q", problems, c.want)
			}
		})
	}
}
