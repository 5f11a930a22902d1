package lun

import (
	"slices"

	"github.com/gostor/gotgt/pkg/scsi"
)

// nexusState is what a unit keeps for one nexus.
type nexusState struct {
	attentions []scsi.SCSISubError // pending unit attentions in the order of their reports, SAM-5 5.14
}

// attentive is a Unit with unit attentions. A map uses it to tell that the
// inventory changed.
type attentive interface {
	raise(n *Nexus, code scsi.SCSISubError)
	clear(n *Nexus, code scsi.SCSISubError)
}

var _ attentive = (*server)(nil)

// Attach implements Unit.
func (s *server) Attach(n *Nexus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nexuses[n] == nil {
		s.nexuses[n] = &nexusState{}
		s.push(s.nexuses[n], scsi.ASC_POWERON_RESET)
	}
}

// Detach implements Unit.
func (s *server) Detach(n *Nexus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.nexuses[n]; st != nil {
		s.gate.Add(-int32(len(st.attentions)))
		delete(s.nexuses, n)
	}
	s.release(n)
}

// raise makes a unit attention pending for n, unless it already is.
func (s *server) raise(n *Nexus, code scsi.SCSISubError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.nexuses[n]; st != nil {
		s.push(st, code)
	}
}

// raiseOthers makes a unit attention pending for every nexus but n.
func (s *server) raiseOthers(n *Nexus, code scsi.SCSISubError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for other, st := range s.nexuses {
		if other != n {
			s.push(st, code)
		}
	}
}

// Reset implements Resetter.
func (s *server) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.release(s.holder)
	for _, st := range s.nexuses {
		s.push(st, ascBusDeviceReset)
	}
	s.modes.reset()
}

// clear takes a unit attention from n's queue.
func (s *server) clear(n *Nexus, code scsi.SCSISubError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.nexuses[n]; st != nil {
		if i := slices.Index(st.attentions, code); i >= 0 {
			st.attentions = slices.Delete(st.attentions, i, i+1)
			s.gate.Add(-1)
		}
	}
}

// push appends to a queue. Whoever is still to hear of a power on, need not
// hear of a reset. s.mu is held.
func (s *server) push(st *nexusState, code scsi.SCSISubError) {
	if code == ascBusDeviceReset && slices.Contains(st.attentions, scsi.ASC_POWERON_RESET) {
		return
	}
	if !slices.Contains(st.attentions, code) {
		st.attentions = append(st.attentions, code)
		s.gate.Add(1)
	}
}

// take removes and returns the first unit attention pending for n, nil if
// there is none.
func (s *server) take(n *Nexus) *condition {
	s.mu.Lock()
	st := s.nexuses[n]
	if st == nil || len(st.attentions) == 0 {
		s.mu.Unlock()
		return nil
	}
	code := st.attentions[0]
	st.attentions = slices.Delete(st.attentions, 0, 1)
	s.gate.Add(-1)
	s.mu.Unlock()

	if code == scsi.ASC_REPORTED_LUNS_DATA_HAS_CHANGED {
		n.inventory().told(n)
	}
	return &condition{key: scsi.UNIT_ATTENTION, code: code}
}

// checkGate returns the unit attention or the reservation conflict that keeps
// c from running. op is nil when the CDB asks for nothing the unit knows.
func (s *server) checkGate(c *Command, op *operation) error {
	var flags opFlags
	if op != nil {
		flags = op.flags
	}
	if flags&early == 0 {
		if attention := s.take(c.Nexus); attention != nil {
			return attention
		}
	}
	if flags&shared == 0 && s.reservedAgainst(c.Nexus) {
		return errReserved
	}
	return nil
}
