package meta

import (
	"encoding/json"
	"fmt"

	"go.etcd.io/bbolt"
)

// SetVolumeSize stores another size of a volume. What the map of its layer has
// beyond it must be trimmed before.
func (d *DB) SetVolumeSize(name string, size int64) error {
	err := d.bolt.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketVolumes)
		value := b.Get([]byte(name))
		if value == nil {
			return ErrNotFound
		}
		var v Volume
		if err := json.Unmarshal(value, &v); err != nil {
			return fmt.Errorf("%w: %v", ErrCorrupt, err)
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
