package lun

import (
	"slices"

	"github.com/gostor/gotgt/pkg/scsi"
)

// Unit attentions that gotgt has no name for, SPC-4 annex F.
const (
	ascBusDeviceReset         scsi.SCSISubError = 0x2903 // BUS DEVICE RESET FUNCTION OCCURRED
	ascNexusLoss              scsi.SCSISubError = 0x2907 // I_T NEXUS LOSS OCCURRED
	ascLogChanged             scsi.SCSISubError = 0x2a02 // LOG PARAMETERS CHANGED
	ascRegistrationsPreempted scsi.SCSISubError = 0x2a05 // REGISTRATIONS PREEMPTED
	ascAccessStateChanged     scsi.SCSISubError = 0x2a06 // ASYMMETRIC ACCESS STATE CHANGED
	ascCapacityChanged        scsi.SCSISubError = 0x2a09 // CAPACITY DATA HAS CHANGED
	ascSoftThreshold          scsi.SCSISubError = 0x3807 // THIN PROVISIONING SOFT THRESHOLD REACHED
)

// nexusState is what a unit keeps for one nexus.
type nexusState struct {
	name       nexusName
	denied     opFlags             // the access classes that a persistent reservation keeps from it
	attentions []scsi.SCSISubError // pending unit attentions in the order of their reports, SAM-5 5.14
	access     AccessState         // of the port group it came through
	stopped    bool                // with START STOP UNIT
}

// attentive is a Unit with unit attentions. A map uses it to tell that the
// inventory changed.
type attentive interface {
	raise(n *Nexus, code scsi.SCSISubError)
	clear(n *Nexus, code scsi.SCSISubError)
	setAccess(n *Nexus, state AccessState)
}

var _ attentive = (*server)(nil)

// Attach implements Unit.
func (s *server) Attach(n *Nexus) {
	if s.attached != nil {
		s.attached()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nexuses[n] == nil {
		name := n.name()
		s.nexuses[n] = &nexusState{name: name, denied: s.persistent.denies(name)}
		s.push(s.nexuses[n], scsi.ASC_POWERON_RESET)
	}
}

// Detach implements Unit.
func (s *server) Detach(n *Nexus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.nexuses[n]; st != nil {
		s.gate.Add(-int32(len(st.attentions)))
		s.countAccess(st.access, -1)
		s.setStopped(st, false)
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

// raiseAll makes a unit attention pending for every nexus.
func (s *server) raiseAll(code scsi.SCSISubError) { s.raiseOthers(nil, code) }

// Reset implements Resetter.
func (s *server) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.release(s.holder) // persistent reservations stay
	for _, st := range s.nexuses {
		s.push(st, ascBusDeviceReset)
		s.setStopped(st, false)
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

// push puts a unit attention into a queue that does not have it: those of a
// reset before the others, the most general first, because they say more. Whoever
// is still to hear of a more general one need not hear of it at all: SAM-5
// 5.14. s.mu is held.
func (s *server) push(st *nexusState, code scsi.SCSISubError) {
	rank := resetRank(code)
	at := len(st.attentions)
	for i, pending := range st.attentions {
		r := resetRank(pending)
		if pending == code || r < rank && rank < notReset {
			return
		}
		if r > rank {
			at = min(at, i)
		}
	}
	st.attentions = slices.Insert(st.attentions, at, code)
	s.gate.Add(1)
}

// notReset is the rank of what has nothing to do with a reset.
const notReset = 3

// resetRank orders the unit attentions of resets, the most general first.
func resetRank(code scsi.SCSISubError) int {
	switch code {
	case scsi.ASC_POWERON_RESET:
		return 0
	case ascBusDeviceReset:
		return 1
	case ascNexusLoss:
		return 2
	default:
		return notReset
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
	if len(st.attentions) == 0 && s.heard != nil {
		s.heard(n)
	}
	s.mu.Unlock()

	if code == scsi.ASC_REPORTED_LUNS_DATA_HAS_CHANGED {
		n.inventory().told(n)
	}
	return &condition{key: scsi.UNIT_ATTENTION, code: code}
}

// pending returns what REQUEST SENSE tells n: a unit attention, which is told
// by that, or why the unit does not run its commands, SPC-4 5.11.2. It is nil
// when there is nothing to tell.
func (s *server) pending(n *Nexus) *condition {
	if s.gate.Load() == 0 {
		return nil
	}
	if attention := s.take(n); attention != nil {
		return attention
	}
	if state := s.accessOf(n); state.restricts() {
		return state.notReady()
	}
	if s.stoppedFor(n) {
		return errStopped
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.blocked
}

// checkGate returns the unit attention, the reservation conflict or the state
// of the port or the unit that keeps c from running. op is nil when the CDB
// asks for nothing the unit knows.
func (s *server) checkGate(c *Command, op *operation) error {
	var flags opFlags
	if op != nil {
		flags = op.flags
	}
	if !s.unhindered(c.Nexus, flags) {
		if err := s.hindrance(c, op, flags); err != nil {
			return err
		}
	}
	if flags&writes != 0 && s.notice != nil {
		s.notice(c, op)
	}
	return nil
}

// unhindered tells whether nothing keeps an operation with these flags from
// running for n. It is a short way for those who have access by a persistent
// reservation: in a cluster that is every command.
func (s *server) unhindered(n *Nexus, flags opFlags) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.nexuses[n]
	return st != nil && len(st.attentions) == 0 && !st.access.restricts() && !st.stopped &&
		st.denied&flags == 0 && !s.reserved && s.blocked == nil
}

// hindrance returns what keeps c from running, in the order in which it is
// told.
func (s *server) hindrance(c *Command, op *operation, flags opFlags) error {
	if flags&early == 0 {
		if attention := s.take(c.Nexus); attention != nil {
			return attention
		}
	}
	if err := s.checkAccess(c.Nexus, op); err != nil {
		return err
	}
	if op != nil && s.stoppedFor(c.Nexus) && !runsStopped(op) {
		return errStopped
	}
	if s.reservedAgainst(c.Nexus, flags) {
		return errReserved
	}
	if cond := s.blocking(op); cond != nil {
		return cond
	}
	return nil
}

// CommandsCleared tells u that commands of n have ended without an answer
// because another nexus has cleared them: n is told so by its next command,
// SAM-5 5.14.
func CommandsCleared(u Unit, n *Nexus) {
	if a, ok := u.(attentive); ok {
		a.raise(n, scsi.ASC_CMDS_CLEARED_BY_ANOTHER_INI)
	}
}
