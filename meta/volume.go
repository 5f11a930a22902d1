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

	Pinned bool `json:"pinned,omitempty"` // all of the image is to be local, and to stay

	Layer   uint64    `json:"layer"` // the one it writes to
	Created time.Time `json:"created"`
}

// CreateVolume stores a new volume and its layer, over nothing or the volume's
// image. It returns the volume with the fields that it fills in: ID when that
// is zero, and Created. Layer must come from NewMap. It fails with ErrExists
// when the name is taken.
func (d *DB) CreateVolume(v Volume) (Volume, error) { return d.CloneVolume(v, 0) }

// CloneVolume is CreateVolume with the volume's layer over another one, which
// must be sealed: with ErrNotFound it is not there.
func (d *DB) CloneVolume(v Volume, parent uint64) (Volume, error) {
	if v.ID == [16]byte{} {
		rand.Read(v.ID[:])
	}
	if v.Created.IsZero() {
		v.Created = now()
	}
	err := d.bolt.Update(func(tx *bbolt.Tx) error {
		if tx.Bucket(bucketVolumes).Get([]byte(v.Name)) != nil {
			return ErrExists
		}
		if err := createLayer(tx, Layer{ID: v.Layer, Parent: parent, Size: v.Size, Created: v.Created}); err != nil {
			return err
		}
		return putVolume(tx, v)
	})
	if err != nil {
		return Volume{}, fmt.Errorf("volume %s: %w", v.Name, err)
	}
	return v, nil
}

func now() time.Time { return time.Now().UTC().Truncate(time.Second) }

func getVolume(tx *bbolt.Tx, name string) (v Volume, err error) {
	value := tx.Bucket(bucketVolumes).Get([]byte(name))
	if value == nil {
		return v, ErrNotFound
	}
	if err := json.Unmarshal(value, &v); err != nil {
		return v, fmt.Errorf("%w: %v", ErrCorrupt, err)
	}
	return v, nil
}

func putVolume(tx *bbolt.Tx, v Volume) error {
	value, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return tx.Bucket(bucketVolumes).Put([]byte(v.Name), value)
}

// Volume returns the volume of that name, or ErrNotFound.
func (d *DB) Volume(name string) (v Volume, err error) {
	err = d.bolt.View(func(tx *bbolt.Tx) error {
		v, err = getVolume(tx, name)
		return err
	})
	if err != nil {
		return Volume{}, fmt.Errorf("volume %s: %w", name, err)
	}
	return v, nil
}

// Volumes returns all volumes in the order of their names.
func (d *DB) Volumes() (all []Volume, err error) {
	err = d.bolt.View(func(tx *bbolt.Tx) error {
		all, err = volumes(tx)
		return err
	})
	return all, err
}

func volumes(tx *bbolt.Tx) (all []Volume, err error) {
	err = tx.Bucket(bucketVolumes).ForEach(func(name, value []byte) error {
		var v Volume
		if err := json.Unmarshal(value, &v); err != nil {
			return fmt.Errorf("volume %s: %w: %v", name, ErrCorrupt, err)
		}
		all = append(all, v)
		return nil
	})
	return all, err
}

// ResizeVolume stores another size of a volume, which its layer then has, too.
// When it becomes smaller, the layer's map must not have anything beyond any
// more.
func (d *DB) ResizeVolume(name string, size int64) error {
	err := d.bolt.Update(func(tx *bbolt.Tx) error {
		v, err := getVolume(tx, name)
		if err != nil {
			return err
		}
		l, err := getLayer(tx, v.Layer)
		if err != nil {
			return err
		}
		v.Size, l.Size = size, size
		if err := putLayer(tx, l); err != nil {
			return err
		}
		return putVolume(tx, v)
	})
	if err != nil {
		return fmt.Errorf("volume %s: %w", name, err)
	}
	return nil
}

// PinVolume stores whether a volume is pinned.
func (d *DB) PinVolume(name string, pinned bool) error {
	err := d.bolt.Update(func(tx *bbolt.Tx) error {
		v, err := getVolume(tx, name)
		if err != nil {
			return err
		}
		v.Pinned = pinned
		return putVolume(tx, v)
	})
	if err != nil {
		return fmt.Errorf("volume %s: %w", name, err)
	}
	return nil
}

// DeleteVolume removes a volume and what its unit keeps in one transaction.
// Its layers stay: Tree tells which of them nobody needs any more.
func (d *DB) DeleteVolume(name string) error {
	err := d.bolt.Update(func(tx *bbolt.Tx) error {
		v, err := getVolume(tx, name)
		if err != nil {
			return err
		}
		if err := tx.Bucket(bucketVolumes).Delete([]byte(name)); err != nil {
			return err
		}
		return clearUnit(tx, VolumeUnit(v.ID))
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
