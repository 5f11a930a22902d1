package node

import (
	"skylun/lun"
	"skylun/meta"
)

// unitState is what a unit keeps in the database, by a name that stays over
// restarts: meta.VolumeUnit for a disk, meta.PlaceUnit for a unit that shows
// no volume.
type unitState struct {
	db   *meta.DB
	unit string
}

var _ lun.Store = unitState{}

// state returns the store of a unit.
func (n *Node) state(unit string) lun.Store { return unitState{n.db, unit} }

// Load implements lun.Store.
func (s unitState) Load(name string) ([]byte, error) { return s.db.UnitState(s.unit, name) }

// Save implements lun.Store.
func (s unitState) Save(name string, value []byte) error {
	return s.db.SetUnitState(s.unit, name, value)
}
