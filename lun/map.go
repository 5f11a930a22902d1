package lun

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/gostor/gotgt/pkg/scsi"
)

// Map is the logical unit inventory of one target: which unit answers to
// which logical unit number. All its methods are safe for parallel calls.
type Map struct {
	current atomic.Pointer[inventory]
	groups  atomic.Pointer[[]PortGroup]         // ascending by tag, replaced and never changed
	peers   atomic.Pointer[func(*Nexus) []*Map] // nil: no other map

	// Who answers for numbers without a unit.
	zero, absent, wellKnown *vacancy

	mu      sync.Mutex          // taken before a unit's own
	nexuses map[*Nexus]struct{} // guarded by mu
}

// inventory is a state of a Map. It is replaced, never changed.
type inventory struct {
	units map[uint16]Unit
	luns  []uint16 // ascending
}

// NewMap returns an empty inventory.
func NewMap() *Map {
	m := &Map{
		zero:      newVacancy(scsi.PQ_DEVICE_NOT_CONNECT | typeUnknown),
		absent:    newVacancy(scsi.PQ_NOT_SUPPORT | typeUnknown),
		wellKnown: newWellKnown(),
		nexuses:   make(map[*Nexus]struct{}),
	}
	m.current.Store(&inventory{})
	return m
}

// Add gives u the number lun. It fails when lun is taken or larger than
// MaxLUN. Every attached nexus is attached to u, and is told by the other
// units that the inventory changed.
func (m *Map) Add(lun uint16, u Unit) error {
	if lun > MaxLUN {
		return fmt.Errorf("LUN %d: the largest is %d", lun, MaxLUN)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.current.Load()
	if old.units[lun] != nil {
		return fmt.Errorf("LUN %d: already in use", lun)
	}
	for n := range m.nexuses {
		m.attach(u, n)
	}
	units := make(map[uint16]Unit, len(old.units)+1)
	maps.Copy(units, old.units)
	units[lun] = u
	m.replace(units, old.units)
	return nil
}

// Remove takes the unit out of the inventory, if there is one, and tells the
// attached nexuses by the other units. Commands that it is executing go on;
// new ones find no unit.
func (m *Map) Remove(lun uint16) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.current.Load()
	u := old.units[lun]
	if u == nil {
		return
	}
	units := maps.Clone(old.units)
	delete(units, lun)
	m.replace(units, units)
	for n := range m.nexuses {
		u.Detach(n)
	}
}

// replace makes units current, and then raises REPORTED LUNS DATA HAS CHANGED
// (SAM-5 5.14) for all nexuses in the units to tell. The other way round, a
// REPORT LUNS in between would take back the attention and list the old state.
// Transports that can tell it at once are asked to. m.mu is held.
func (m *Map) replace(units, tell map[uint16]Unit) {
	m.current.Store(&inventory{units: units, luns: slices.Sorted(maps.Keys(units))})
	for _, u := range tell {
		if a, ok := u.(attentive); ok {
			for n := range m.nexuses {
				a.raise(n, scsi.ASC_REPORTED_LUNS_DATA_HAS_CHANGED)
			}
		}
	}
	for n := range m.nexuses {
		if n.Transport != nil {
			n.Transport.InventoryChanged()
		}
	}
}

// told takes back what replace raised: n has learned it from one unit and
// need not hear it from each. A nil Map has told nothing.
func (m *Map) told(n *Nexus) {
	if m == nil {
		return
	}
	for _, u := range m.current.Load().units {
		if a, ok := u.(attentive); ok {
			a.clear(n, scsi.ASC_REPORTED_LUNS_DATA_HAS_CHANGED)
		}
	}
}

// LUNs returns the numbers in use, ascending.
func (m *Map) LUNs() []uint16 { return slices.Clone(m.current.Load().luns) }

// Unit returns the unit that the eight bytes of a LUN field (SAM-5 4.7)
// address. It is never nil: a number without a unit is answered for by one
// that ends commands as SAM-5 5.11 asks. Unit takes no lock.
func (m *Map) Unit(field [8]byte) Unit {
	lun, ok := decodeLUN(field)
	if !ok {
		if field == reportLUNsWellKnown {
			return m.wellKnown
		}
		return m.absent
	}
	if u := m.current.Load().units[lun]; u != nil {
		return u
	}
	if lun == 0 {
		return m.zero
	}
	return m.absent
}

// AttachNexus tells all units that n came, before its first command. A nexus
// is attached to one map.
func (m *Map) AttachNexus(n *Nexus) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n.luns = m
	m.nexuses[n] = struct{}{}
	for _, u := range m.current.Load().units {
		m.attach(u, n)
	}
}

// attach tells u that n is there, and how the ports stand that it came through.
func (m *Map) attach(u Unit, n *Nexus) {
	u.Attach(n)
	if a, ok := u.(attentive); ok {
		a.setAccess(n, m.access(n))
	}
}

// DetachNexus tells all units that n went, after its last command.
func (m *Map) DetachNexus(n *Nexus) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.nexuses, n)
	for _, u := range m.current.Load().units {
		u.Detach(n)
	}
}

// Reset resets the unit of that number, as LOGICAL UNIT RESET asks (SAM-5 7.7),
// and tells whether there is one.
func (m *Map) Reset(lun uint16) bool {
	u := m.current.Load().units[lun]
	if r, ok := u.(Resetter); ok {
		r.Reset()
	}
	return u != nil
}

// ResetAll resets all units, as the TARGET RESET functions of RFC 7143 11.5.1
// ask.
func (m *Map) ResetAll() {
	for lun := range m.current.Load().units {
		m.Reset(lun)
	}
}

// inventory returns the map n is attached to, nil if it never was.
func (n *Nexus) inventory() *Map {
	if n == nil {
		return nil
	}
	return n.luns
}
