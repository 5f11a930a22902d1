package lun

import (
	"context"
	"errors"
)

// MaxLUN is the largest number a unit can have: flat space addressing has 14
// bits, SAM-5 4.7.7.3.
const MaxLUN = 1<<14 - 1

// Map is the logical unit inventory of one target: which unit answers to
// which logical unit number. All its methods are safe for parallel calls.
type Map struct{}

// NewMap returns an empty inventory.
func NewMap() *Map { return &Map{} }

// Add gives u the number lun. It fails when lun is taken or larger than
// MaxLUN. Every attached nexus is attached to u, and is told that the
// inventory changed.
func (m *Map) Add(lun uint16, u Unit) error { return errors.New("not there yet") }

// Remove takes the unit out of the inventory, if there is one. Commands that
// it is executing go on; new ones find no unit.
func (m *Map) Remove(lun uint16) {}

// LUNs returns the numbers in use, ascending.
func (m *Map) LUNs() []uint16 { return nil }

// Unit returns the unit that the eight bytes of a LUN field (SAM-5 4.7)
// address. It is never nil: a number without a unit is answered for by one
// that ends commands as SAM-5 5.11 asks. Unit takes no lock.
func (m *Map) Unit(lun [8]byte) Unit { return absent{} }

// AttachNexus tells all units that n came, before its first command.
func (m *Map) AttachNexus(n *Nexus) {}

// DetachNexus tells all units that n went.
func (m *Map) DetachNexus(n *Nexus) {}

type absent struct{}

func (absent) Try(*Command) bool                 { return false }
func (absent) Execute(context.Context, *Command) {}
func (absent) Attach(*Nexus)                     {}
func (absent) Detach(*Nexus)                     {}
