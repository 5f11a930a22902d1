package meta

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

// Volume is what a node remembers about a volume.
type Volume struct {
	Name string   `json:"name"`
	ID   [16]byte `json:"id"`   // given once, the base of all SCSI identities
	Size int64    `json:"size"` // bytes, a multiple of 512

	Image     string          `json:"image,omitempty"`      // the image below; empty: blank
	ImageInfo json.RawMessage `json:"image_info,omitempty"` // how its content is pinned, in the store's own words

	Layer   uint64    `json:"layer"` // the map of its writable layer
	Created time.Time `json:"created"`
}

// CreateVolume stores a new volume and returns it with the fields that it
// fills in: ID when that is zero, and Created. Layer must come from NewMap.
// It fails with ErrExists when the name is taken.
func (d *DB) CreateVolume(v Volume) (Volume, error) {
	if v.ID == [16]byte{} {
		rand.Read(v.ID[:])
	}
	if v.Created.IsZero() {
		v.Created = time.Now().UTC().Truncate(time.Second)
	}
	value, err := json.Marshal(v)
	if err != nil {
		return Volume{}, fmt.Errorf("volume %s: %w", v.Name, err)
	}
	err = d.bolt.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketVolumes)
		if b.Get([]byte(v.Name)) != nil {
			return ErrExists
		}
		return b.Put([]byte(v.Name), value)
	})
	if err != nil {
		return Volume{}, fmt.Errorf("volume %s: %w", v.Name, err)
	}
	return v, nil
}

// Volume returns the volume of that name, or ErrNotFound.
func (d *DB) Volume(name string) (v Volume, err error) {
	err = d.bolt.View(func(tx *bbolt.Tx) error {
		value := tx.Bucket(bucketVolumes).Get([]byte(name))
		if value == nil {
			return ErrNotFound
		}
		return json.Unmarshal(value, &v)
	})
	if err != nil {
		return Volume{}, fmt.Errorf("volume %s: %w", name, err)
	}
	return v, nil
}

// Volumes returns all volumes in the order of their names.
func (d *DB) Volumes() (all []Volume, err error) {
	err = d.bolt.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketVolumes).ForEach(func(name, value []byte) error {
			var v Volume
			if err := json.Unmarshal(value, &v); err != nil {
				return fmt.Errorf("volume %s: %w: %v", name, ErrCorrupt, err)
			}
			all = append(all, v)
			return nil
		})
	})
	return all, err
}

// ResizeVolume stores another size of a volume. When it becomes smaller, its map
// must not have anything beyond any more.
func (d *DB) ResizeVolume(name string, size int64) error {
	err := d.bolt.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketVolumes)
		value := b.Get([]byte(name))
		if value == nil {
			return ErrNotFound
		}
		var v Volume
		if err := json.Unmarshal(value, &v); err != nil {
			return err
		}
		v.Size = size
		value, err := json.Marshal(v)
		if err != nil {
			return err
		}
		return b.Put([]byte(name), value)
	})
	if err != nil {
		return fmt.Errorf("volume %s: %w", name, err)
	}
	return nil
}

// DeleteVolume removes a volume, its map and what its unit keeps in one
// transaction. The local file of the layer is the caller's to remove,
// afterwards.
func (d *DB) DeleteVolume(name string) error {
	err := d.clearing(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketVolumes)
		value := b.Get([]byte(name))
		if value == nil {
			return ErrNotFound
		}
		var v Volume
		if err := json.Unmarshal(value, &v); err != nil {
			return err
		}
		if err := b.Delete([]byte(name)); err != nil {
			return err
		}
		if err := clearUnit(tx, VolumeUnit(v.ID)); err != nil {
			return err
		}
		return clearMap(tx, v.Layer)
	})
	if err != nil {
		return fmt.Errorf("volume %s: %w", name, err)
	}
	return nil
}

// volumeID returns the identity of a stored volume.
func volumeID(value []byte) (id [16]byte, err error) {
	var v Volume
	err = json.Unmarshal(value, &v)
	return v.ID, err
}
