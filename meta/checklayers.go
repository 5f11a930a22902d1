package meta

import (
	"encoding/binary"
	"encoding/json"
	"math"

	"go.etcd.io/bbolt"
)

// layers checks layers and who names them. Those that nobody needs are no
// damage: they are still to be removed.
func (c *checker) layers(tx *bbolt.Tx, volumes []Volume) {
	b := tx.Bucket(bucketLayers)
	if b == nil { // a file of an earlier version, opened without changing it
		for _, v := range volumes {
			c.own(v.Layer, math.MaxInt64, "volume "+v.Name)
		}
		return
	}
	last := tx.Bucket(bucketNode).Sequence()
	all := map[uint64]Layer{}
	children := map[uint64]int{}
	b.ForEach(func(key, value []byte) error {
		var l Layer
		if err := json.Unmarshal(value, &l); err != nil {
			c.add("layer %x: %v", key, err)
			return nil
		}
		switch {
		case len(key) != 8 || binary.BigEndian.Uint64(key) != l.ID:
			c.add("layer %d: stored under %x", l.ID, key)
			return nil
		case l.ID == 0 || l.ID > last:
			c.add("layer %d: was never given out", l.ID)
		case l.Size <= 0 || l.Size%512 != 0:
			c.add("layer %d: size %d", l.ID, l.Size)
		}
		all[l.ID] = l
		children[l.Parent]++
		c.own(l.ID, math.MaxInt64, "a layer") // what is beyond the end counts for nothing
		return nil
	})
	roots := map[uint64]uint64{} // of layers that end somewhere
	for id, l := range all {
		root, steps := l, 0
		for ok := true; ok && root.Parent != 0 && steps <= len(all); steps++ {
			parent := root.Parent
			if root, ok = all[parent]; !ok {
				if steps == 0 {
					c.add("layer %d: lies on layer %d, which is not there", id, parent)
				}
				root = Layer{Parent: parent}
			}
		}
		switch {
		case steps > len(all):
			c.add("layer %d: lies on itself", id)
		case root.Parent == 0:
			roots[id] = root.ID
		}
	}
	c.names(tx, volumes, all, children, roots)
}

// names checks what volumes and snapshots say of the layers they name.
func (c *checker) names(tx *bbolt.Tx, volumes []Volume, all map[uint64]Layer, children map[uint64]int, roots map[uint64]uint64) {
	type content struct{ image, owner string }
	images := map[uint64]content{} // of everything that lies on a root
	over := func(layer uint64, image, owner string) {
		root, ok := roots[layer]
		if !ok {
			return // said already
		}
		if was, seen := images[root]; seen && was.image != image {
			c.add("%s: lies over image %q, and %s, on the same layers, over %q", owner, image, was.owner, was.image)
		}
		images[root] = content{image, owner}
	}
	tops := map[uint64]string{}
	for _, v := range volumes {
		owner := "volume " + v.Name
		l, ok := all[v.Layer]
		switch other, taken := tops[v.Layer]; {
		case !ok:
			c.add("%s: its layer %d is not there", owner, v.Layer)
			continue
		case taken:
			c.add("%s: writes to layer %d, as volume %s does", owner, v.Layer, other)
		case children[v.Layer] > 0:
			c.add("%s: writes to layer %d, which others lie on", owner, v.Layer)
		case l.Size != v.Size:
			c.add("%s: has %d bytes, and its layer %d has %d", owner, v.Size, v.Layer, l.Size)
		}
		tops[v.Layer] = v.Name
		over(v.Layer, v.Image, owner)
	}
	ids := map[[16]byte]string{}
	tx.Bucket(bucketSnaps).ForEach(func(key, value []byte) error {
		var s Snapshot
		if err := json.Unmarshal(value, &s); err != nil {
			c.add("snapshot %s: %v", key, err)
			return nil
		}
		owner := "snapshot " + s.Name
		if s.Name != string(key) {
			c.add("%s: stored under the name %s", owner, key)
		}
		if other, taken := ids[s.ID]; taken {
			c.add("%s: has the identity of snapshot %s", owner, other)
		}
		ids[s.ID] = s.Name
		if len(s.Volumes) == 0 {
			c.add("%s: is of no volume", owner)
		}
		for _, v := range s.Volumes {
			l, ok := all[v.Layer]
			switch writer, written := tops[v.Layer]; {
			case !ok:
				c.add("%s: layer %d of volume %s is not there", owner, v.Layer, v.Volume)
			case written:
				c.add("%s: volume %s writes to its layer %d", owner, writer, v.Layer)
			case v.Size <= 0 || v.Size%512 != 0 || v.Size > l.Size:
				c.add("%s: volume %s has %d bytes, and its layer %d has %d", owner, v.Volume, v.Size, v.Layer, l.Size)
			}
			over(v.Layer, v.Image, owner)
		}
		return nil
	})
}
