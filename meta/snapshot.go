package meta

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

// Snapshot is what volumes were at one moment.
type Snapshot struct {
	Name    string           `json:"name"`
	ID      [16]byte         `json:"id"` // given once
	Created time.Time        `json:"created"`
	Held    time.Duration    `json:"held"` // how long writes were held for it
	Volumes []SnapshotVolume `json:"volumes"`
}

// SnapshotVolume is one volume of a snapshot, as it was then. The volume may be
// gone, and another one may have its name.
type SnapshotVolume struct {
	Volume   string   `json:"volume"`
	VolumeID [16]byte `json:"volume_id"`
	Layer    uint64   `json:"layer"` // its topmost one, sealed
	Size     int64    `json:"size"`

	Image     string          `json:"image,omitempty"`      // as in Volume
	ImageInfo json.RawMessage `json:"image_info,omitempty"` // as in Volume
}

// PutSnapshot stores a new snapshot and returns it with its ID and, unless it
// has one, the time at which it was created. It fails with ErrExists when the
// name is taken, and with ErrNotFound when a layer is not there.
func (d *DB) PutSnapshot(s Snapshot) (Snapshot, error) {
	rand.Read(s.ID[:])
	if s.Created.IsZero() {
		s.Created = now()
	}
	err := d.bolt.Update(func(tx *bbolt.Tx) error {
		if tx.Bucket(bucketSnaps).Get([]byte(s.Name)) != nil {
			return ErrExists
		}
		for _, v := range s.Volumes {
			if _, err := getLayer(tx, v.Layer); err != nil {
				return err
			}
		}
		return putSnapshot(tx, s)
	})
	if err != nil {
		return Snapshot{}, fmt.Errorf("snapshot %s: %w", s.Name, err)
	}
	return s, nil
}

func putSnapshot(tx *bbolt.Tx, s Snapshot) error {
	value, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return tx.Bucket(bucketSnaps).Put([]byte(s.Name), value)
}

// Snapshot returns the snapshot of that name, or ErrNotFound.
func (d *DB) Snapshot(name string) (s Snapshot, err error) {
	err = d.bolt.View(func(tx *bbolt.Tx) error {
		value := tx.Bucket(bucketSnaps).Get([]byte(name))
		if value == nil {
			return ErrNotFound
		}
		return json.Unmarshal(value, &s)
	})
	if err != nil {
		return Snapshot{}, fmt.Errorf("snapshot %s: %w", name, err)
	}
	return s, nil
}

func snapshots(tx *bbolt.Tx) (all []Snapshot, err error) {
	err = tx.Bucket(bucketSnaps).ForEach(func(name, value []byte) error {
		var s Snapshot
		if err := json.Unmarshal(value, &s); err != nil {
			return fmt.Errorf("snapshot %s: %w: %v", name, ErrCorrupt, err)
		}
		all = append(all, s)
		return nil
	})
	return all, err
}

// DeleteSnapshot removes a snapshot, or fails with ErrNotFound. Its layers
// stay: Tree tells which of them nobody needs any more.
func (d *DB) DeleteSnapshot(name string) error {
	err := d.bolt.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketSnaps)
		if b.Get([]byte(name)) == nil {
			return ErrNotFound
		}
		return b.Delete([]byte(name))
	})
	if err != nil {
		return fmt.Errorf("snapshot %s: %w", name, err)
	}
	return nil
}

// renameLayer makes snapshots that name the layer gone name kept.
func renameLayer(tx *bbolt.Tx, all []Snapshot, gone, kept uint64) error {
	for _, s := range all {
		changed := false
		for i := range s.Volumes {
			if s.Volumes[i].Layer == gone {
				s.Volumes[i].Layer, changed = kept, true
			}
		}
		if changed {
			if err := putSnapshot(tx, s); err != nil {
				return err
			}
		}
	}
	return nil
}
