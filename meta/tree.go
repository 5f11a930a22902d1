package meta

import (
	"encoding/json"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"
)

// Tree is all layers and who names them, at one moment.
type Tree struct {
	Layers    map[uint64]Layer
	Volumes   []Volume   // in the order of their names
	Snapshots []Snapshot // in the order of their names

	children map[uint64][]uint64 // ascending
	names    map[uint64]int      // how many name a layer
}

// Tree returns the tree as it is now.
func (d *DB) Tree() (t *Tree, err error) {
	err = d.bolt.View(func(tx *bbolt.Tx) error {
		t, err = tree(tx)
		return err
	})
	return t, err
}

func tree(tx *bbolt.Tx) (t *Tree, err error) {
	t = &Tree{Layers: map[uint64]Layer{}, children: map[uint64][]uint64{}, names: map[uint64]int{}}
	err = tx.Bucket(bucketLayers).ForEach(func(key, value []byte) error {
		var l Layer
		if err := json.Unmarshal(value, &l); err != nil {
			return fmt.Errorf("layer %x: %w: %v", key, ErrCorrupt, err)
		}
		t.Layers[l.ID] = l
		if l.Parent != 0 {
			t.children[l.Parent] = append(t.children[l.Parent], l.ID)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if t.Volumes, err = volumes(tx); err != nil {
		return nil, err
	}
	if t.Snapshots, err = snapshots(tx); err != nil {
		return nil, err
	}
	for _, v := range t.Volumes {
		t.names[v.Layer]++
	}
	for _, s := range t.Snapshots {
		for _, v := range s.Volumes {
			t.names[v.Layer]++
		}
	}
	return t, nil
}

// Children returns what lies on a layer, in the order in which it was made.
func (t *Tree) Children(id uint64) []uint64 { return t.children[id] }

// named tells whether a volume or a snapshot names the layer.
func (t *Tree) named(id uint64) bool { return t.names[id] > 0 }

// IsTop tells whether a volume writes to the layer.
func (t *Tree) IsTop(id uint64) bool {
	return slices.ContainsFunc(t.Volumes, func(v Volume) bool { return v.Layer == id })
}

// Chain returns the layers that reading one goes through, the lowest first and
// the layer itself last. It fails with ErrNotFound when one is not there.
func (t *Tree) Chain(id uint64) (chain []Layer, err error) {
	for next := id; next != 0; {
		l, ok := t.Layers[next]
		if !ok {
			return nil, fmt.Errorf("layer %d: %w", next, ErrNotFound)
		}
		if len(chain) == len(t.Layers) {
			return nil, fmt.Errorf("layer %d: %w: lies on itself", id, ErrCorrupt)
		}
		chain = append(chain, l)
		next = l.Parent
	}
	slices.Reverse(chain)
	return chain, nil
}

// Chain is that of Tree for one layer.
func (d *DB) Chain(id uint64) (chain []Layer, err error) {
	err = d.bolt.View(func(tx *bbolt.Tx) error {
		seen := map[uint64]bool{}
		for next := id; next != 0; {
			l, err := getLayer(tx, next)
			if err != nil {
				return err
			}
			if seen[next] {
				return fmt.Errorf("layer %d: %w: lies on itself", id, ErrCorrupt)
			}
			seen[next] = true
			chain = append(chain, l)
			next = l.Parent
		}
		return nil
	})
	slices.Reverse(chain)
	return chain, err
}

// Above returns the volumes that read through the layer.
func (t *Tree) Above(id uint64) (all []Volume) {
	for _, v := range t.Volumes {
		if chain, err := t.Chain(v.Layer); err == nil && slices.ContainsFunc(chain, func(l Layer) bool { return l.ID == id }) {
			all = append(all, v)
		}
	}
	return all
}

// Unneeded returns the layers that nobody names and on which nothing lies,
// and those that nobody names and on which one other layer lies, each in the
// order in which they were made.
func (t *Tree) Unneeded() (leaves, between []uint64) {
	for id := range t.Layers {
		switch {
		case t.named(id):
		case len(t.children[id]) == 0:
			leaves = append(leaves, id)
		case len(t.children[id]) == 1:
			between = append(between, id)
		}
	}
	slices.Sort(leaves)
	slices.Sort(between)
	return leaves, between
}
