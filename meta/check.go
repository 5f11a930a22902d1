package meta

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"

	"go.etcd.io/bbolt"
)

// Check reads everything in the file and returns a line for each thing that
// is wrong with it: none when it is sound. Nothing is written meanwhile:
// bbolt's list of free pages is that of the writer, and a reader beside one
// would take a page that was just given up for lost.
func (d *DB) Check() (problems []string) {
	tx, err := d.bolt.Begin(true)
	if err != nil {
		return []string{err.Error()}
	}
	problems = check(tx, d.journal.oldest(math.MaxInt))
	if err := tx.Rollback(); err != nil {
		problems = append(problems, err.Error())
	}
	return problems
}

// CheckFile is Check for a file that no process has open. It changes nothing.
func CheckFile(path string) (problems []string, err error) {
	db, err := open(path, true)
	if err != nil {
		return nil, fmt.Errorf("metadata %s: %w", path, err)
	}
	defer db.Close()
	waiting, err := unfolded(db, path)
	if err != nil {
		return nil, fmt.Errorf("metadata %s: %w", path, err)
	}
	err = db.View(func(tx *bbolt.Tx) error {
		problems = check(tx, waiting)
		return nil
	})
	return problems, err
}

type checker struct {
	problems []string
	sizes    map[uint64]int64 // bytes of each map that has an owner; math.MaxInt64: it may know more
}

func (c *checker) add(format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

func check(tx *bbolt.Tx, waiting []record) []string {
	c := &checker{sizes: map[uint64]int64{}}
	for err := range tx.Check() {
		c.add("pages: %v", err)
	}
	if len(c.problems) > 0 {
		return c.problems // what lies on broken pages cannot be told
	}
	c.owners(tx)
	c.extents(tx)
	c.journal(tx)
	for _, r := range waiting {
		for _, e := range r.extents {
			c.within(r.id, e, "journal")
		}
	}
	c.units(tx)
	c.records(tx)
	return c.problems
}

func (c *checker) own(id uint64, size int64, owner string) {
	if _, taken := c.sizes[id]; taken {
		c.add("%s: its map %d has another owner too", owner, id)
	}
	c.sizes[id] = size
}

func (c *checker) owners(tx *bbolt.Tx) {
	last := tx.Bucket(bucketNode).Sequence()
	ids := map[[16]byte]string{}
	var volumes []Volume
	tx.Bucket(bucketVolumes).ForEach(func(key, value []byte) error {
		var v Volume
		if err := json.Unmarshal(value, &v); err != nil {
			c.add("volume %s: %v", key, err)
			return nil
		}
		owner := "volume " + v.Name
		switch {
		case v.Name != string(key):
			c.add("volume %s: stored under the name %s", v.Name, key)
		case v.Size <= 0 || v.Size%512 != 0:
			c.add("%s: size %d", owner, v.Size)
		case v.Layer == 0 || v.Layer > last:
			c.add("%s: map %d was never given out", owner, v.Layer)
		}
		if other, taken := ids[v.ID]; taken {
			c.add("%s: has the identity of volume %s", owner, other)
		}
		ids[v.ID] = v.Name
		volumes = append(volumes, v)
		return nil
	})
	c.layers(tx, volumes)
	tx.Bucket(bucketCaches).ForEach(func(key, value []byte) error {
		var k Cache
		if err := json.Unmarshal(value, &k); err != nil {
			c.add("cache %x: %v", key, err)
			return nil
		}
		owner := "cache of image " + k.Image
		if len(key) != 8 || binary.BigEndian.Uint64(key) != k.Map || k.Map == 0 || k.Map > last {
			c.add("%s: map %d stored under %x", owner, k.Map, key)
		}
		c.own(k.Map, k.Size, owner)
		return nil
	})
}

// within tells whether an extent fits its map.
func (c *checker) within(id uint64, e Extent, where string) {
	size, owned := c.sizes[id]
	if !owned {
		c.add("%s: map %d belongs to nothing", where, id)
		return
	}
	if e.End-blockSize >= size {
		c.add("%s: map %d: extent [%d,%d) of %d", where, id, e.Off, e.End, size)
	}
}

func (c *checker) extents(tx *bbolt.Tx) {
	var last Extent
	var lastID uint64
	tx.Bucket(bucketExtents).ForEach(func(key, value []byte) error {
		e, err := decodeExtent(key, value)
		if err != nil {
			c.add("extents: %v", err)
			return nil
		}
		id := binary.BigEndian.Uint64(key)
		if id == lastID && e.Off < last.End {
			c.add("extents: map %d: [%d,%d) overlaps [%d,%d)", id, e.Off, e.End, last.Off, last.End)
		}
		if e.State == 0 {
			c.add("extents: map %d: [%d,%d) has no state", id, e.Off, e.End)
		}
		c.within(id, e, "extents")
		last, lastID = e, id
		return nil
	})
}

func (c *checker) journal(tx *bbolt.Tx) {
	tx.Bucket(bucketJournal).ForEach(func(key, value []byte) error {
		if len(key) != 16 {
			c.add("journal: key %x", key)
			return nil
		}
		id := binary.BigEndian.Uint64(key)
		err := decodeRecord(key, value, func(e Extent) error {
			c.within(id, e, "journal")
			return nil
		})
		if err != nil {
			c.add("journal: %v", err)
		}
		return nil
	})
}
