package meta

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

// Layer is what a node remembers about a layer.
type Layer struct {
	ID      uint64    `json:"id"`               // from NewMap, also the number of its map
	Parent  uint64    `json:"parent,omitempty"` // the layer it lies on; 0: the image, or zeros
	Size    int64     `json:"size"`             // bytes
	Created time.Time `json:"created"`
}

// ErrNeeded is the error of removing a layer that is needed.
var ErrNeeded = errors.New("still needed")

// Top gives a volume another layer to write to.
type Top struct {
	Volume string
	Layer  uint64 // new, from NewMap
	Parent uint64 // what it lies on; 0: the image, or zeros
	Size   int64  // of the layer, and of the volume from then on
}

// SetTops stores new layers and makes them the tops of their volumes, all in
// one transaction. The layers that were tops before stay.
func (d *DB) SetTops(tops []Top) error {
	created := now()
	return d.bolt.Update(func(tx *bbolt.Tx) error {
		for _, t := range tops {
			v, err := getVolume(tx, t.Volume)
			if err != nil {
				return fmt.Errorf("volume %s: %w", t.Volume, err)
			}
			if err := createLayer(tx, Layer{ID: t.Layer, Parent: t.Parent, Size: t.Size, Created: created}); err != nil {
				return fmt.Errorf("volume %s: %w", t.Volume, err)
			}
			v.Layer, v.Size = t.Layer, t.Size
			if err := putVolume(tx, v); err != nil {
				return err
			}
		}
		return nil
	})
}

// RevertTops makes layers that were tops before the tops of their volumes again,
// and forgets those that SetTops has made so, to which nothing was written: all in
// one transaction.
func (d *DB) RevertTops(tops []Top) error {
	return d.bolt.Update(func(tx *bbolt.Tx) error {
		for _, t := range tops {
			v, err := getVolume(tx, t.Volume)
			if err != nil {
				return fmt.Errorf("volume %s: %w", t.Volume, err)
			}
			if err := tx.Bucket(bucketLayers).Delete(layerKey(v.Layer)); err != nil {
				return err
			}
			v.Layer, v.Size = t.Layer, t.Size
			if err := putVolume(tx, v); err != nil {
				return err
			}
		}
		return nil
	})
}

// ReplaceLayer records that kept, the layer above or below gone, has the
// content of both, in one transaction. Of the two the lower one must be named by
// nobody, and nothing but the upper one may lie on it. What lay on gone or named it
// does so with kept from then on, which has size bytes; gone is left as a layer
// that nobody needs.
func (d *DB) ReplaceLayer(gone, kept uint64, size int64) error {
	err := d.bolt.Update(func(tx *bbolt.Tx) error {
		t, err := tree(tx)
		if err != nil {
			return err
		}
		g, k := t.Layers[gone], t.Layers[kept]
		lower, upper := g, k
		if g.Parent == kept {
			lower, upper = k, g
		}
		switch {
		case g.ID == 0 || k.ID == 0:
			return ErrNotFound
		case upper.Parent != lower.ID:
			return errors.New("neither lies on the other")
		case t.named(lower.ID) || len(t.Children(lower.ID)) != 1, kept == lower.ID && t.IsTop(gone):
			return ErrNeeded
		}
		k.Size = size
		if kept == upper.ID {
			k.Parent = g.Parent
			return putLayer(tx, k)
		}
		for _, id := range t.Children(gone) {
			l := t.Layers[id]
			l.Parent = kept
			if err := putLayer(tx, l); err != nil {
				return err
			}
		}
		if err := putLayer(tx, k); err != nil {
			return err
		}
		return renameLayer(tx, t.Snapshots, gone, kept)
	})
	if err != nil {
		return fmt.Errorf("layer %d instead of %d: %w", kept, gone, err)
	}
	return nil
}

// DeleteLayers removes layers that nobody names and nothing lies on, with their
// maps, in one transaction. Their files are the caller's to remove, before. With
// ErrNeeded one is needed.
func (d *DB) DeleteLayers(ids ...uint64) error {
	return d.clearing(func(tx *bbolt.Tx) error {
		t, err := tree(tx)
		if err != nil {
			return err
		}
		for _, id := range ids {
			switch {
			case t.Layers[id].ID == 0:
				err = ErrNotFound
			case t.named(id) || len(t.Children(id)) > 0:
				err = ErrNeeded
			default:
				if err = tx.Bucket(bucketLayers).Delete(layerKey(id)); err == nil {
					err = clearMap(tx, id)
				}
			}
			if err != nil {
				return fmt.Errorf("layer %d: %w", id, err)
			}
		}
		return nil
	})
}

func layerKey(id uint64) []byte { return binary.BigEndian.AppendUint64(nil, id) }

func getLayer(tx *bbolt.Tx, id uint64) (l Layer, err error) {
	value := tx.Bucket(bucketLayers).Get(layerKey(id))
	if value == nil {
		return l, fmt.Errorf("layer %d: %w", id, ErrNotFound)
	}
	if err := json.Unmarshal(value, &l); err != nil {
		return l, fmt.Errorf("layer %d: %w: %v", id, ErrCorrupt, err)
	}
	return l, nil
}

func putLayer(tx *bbolt.Tx, l Layer) error {
	value, err := json.Marshal(l)
	if err != nil {
		return err
	}
	return tx.Bucket(bucketLayers).Put(layerKey(l.ID), value)
}

// createLayer is putLayer for one that is not there, over one that is.
func createLayer(tx *bbolt.Tx, l Layer) error {
	if tx.Bucket(bucketLayers).Get(layerKey(l.ID)) != nil {
		return fmt.Errorf("layer %d: %w", l.ID, ErrExists)
	}
	if l.Parent != 0 {
		if _, err := getLayer(tx, l.Parent); err != nil {
			return err
		}
	}
	return putLayer(tx, l)
}

// migrateLayers stores the layers of the volumes of an earlier version, of which
// each has one.
func migrateLayers(tx *bbolt.Tx) error {
	all, err := volumes(tx)
	if err != nil {
		return err
	}
	for _, v := range all {
		if err := createLayer(tx, Layer{ID: v.Layer, Size: v.Size, Created: v.Created}); err != nil {
			return fmt.Errorf("volume %s: %w", v.Name, err)
		}
	}
	return nil
}
