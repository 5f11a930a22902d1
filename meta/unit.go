package meta

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/bbolt"
)

// A unit is found by a name, and what it keeps by a name of its own: mode
// pages, reservations, the medium in a drive. The values mean nothing here.

const volumeUnitPrefix = "volume/"

// VolumeUnit returns the name of the unit that shows the volume of that
// identity. What such a unit keeps goes when the volume does.
func VolumeUnit(id [16]byte) string { return volumeUnitPrefix + hex.EncodeToString(id[:]) }

// PlaceUnit returns the name of the unit that is no volume's, by the target
// and the logical unit number it has.
func PlaceUnit(iqn string, lun int) string { return fmt.Sprintf("place/%s/%d", iqn, lun) }

// UnitState returns what the unit keeps under name, nil when it keeps nothing.
func (d *DB) UnitState(unit, name string) (value []byte, err error) {
	key, err := unitKey(unit, name)
	if err != nil {
		return nil, err
	}
	err = d.bolt.View(func(tx *bbolt.Tx) error {
		v := tx.Bucket(bucketUnits).Get(key)
		if v == nil {
			return nil
		}
		v, err := unseal(key, v)
		value = append([]byte{}, v...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("unit %s: %s: %w", unit, name, err)
	}
	return value, nil
}

// SetUnitState makes the unit keep value under name, or nothing when value is
// nil. It is durable when SetUnitState has returned. A unit of a volume that
// does not exist keeps nothing: ErrNotFound.
func (d *DB) SetUnitState(unit, name string, value []byte) error {
	key, err := unitKey(unit, name)
	if err != nil {
		return err
	}
	err = d.bolt.Update(func(tx *bbolt.Tx) error {
		if value == nil {
			return tx.Bucket(bucketUnits).Delete(key)
		}
		if !unitExists(tx, unit) {
			return ErrNotFound
		}
		return tx.Bucket(bucketUnits).Put(key, seal(key, bytes.Clone(value)))
	})
	if err != nil {
		return fmt.Errorf("unit %s: %s: %w", unit, name, err)
	}
	return nil
}

// unitKey is the unit's name, a zero byte and the name of the value.
func unitKey(unit, name string) ([]byte, error) {
	if unit == "" || name == "" || strings.Contains(unit+name, "\x00") {
		return nil, fmt.Errorf("unit %q: %q is no name for what it keeps", unit, name)
	}
	return []byte(unit + "\x00" + name), nil
}

// unitExists tells whether there is a volume for the unit of one. Other units
// are declared by the configuration, which the database does not know.
func unitExists(tx *bbolt.Tx, unit string) bool {
	if !strings.HasPrefix(unit, volumeUnitPrefix) {
		return true
	}
	found := errors.New("found")
	return found == tx.Bucket(bucketVolumes).ForEach(func(_, value []byte) error {
		if id, err := volumeID(value); err == nil && VolumeUnit(id) == unit {
			return found
		}
		return nil
	})
}

// clearUnit removes all that a unit keeps.
func clearUnit(tx *bbolt.Tx, unit string) error {
	prefix := []byte(unit + "\x00")
	c := tx.Bucket(bucketUnits).Cursor()
	for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Seek(prefix) {
		if err := c.Delete(); err != nil {
			return err
		}
	}
	return nil
}

// units checks what units keep.
func (c *checker) units(tx *bbolt.Tx) {
	b := tx.Bucket(bucketUnits)
	if b == nil {
		return // a file of version 1, opened without changing it
	}
	b.ForEach(func(key, value []byte) error {
		unit, name, ok := strings.Cut(string(key), "\x00")
		if !ok || unit == "" || name == "" {
			c.add("units: key %q", key)
			return nil
		}
		if _, err := unseal(key, value); err != nil {
			c.add("unit %s: %s: %v", unit, name, err)
		}
		if !unitExists(tx, unit) {
			c.add("unit %s: %s belongs to no volume", unit, name)
		}
		return nil
	})
}
