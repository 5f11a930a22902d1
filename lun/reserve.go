package lun

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
)

// Reservations of a unit, as its commands find them: RESERVE(6) and RELEASE(6)
// of SPC-2 5.5 (one nexus has the unit to itself, until it goes), and
// persistent reservations (registrations.go). There is never one of each. A
// reservation is one reason more to look at the gate, and so costs commands
// nothing while there is none.

// reserve6 executes RESERVE(6), SPC-2 7.21, without extents and third parties.
func (s *server) reserve6(ctx context.Context, c *Command) error {
	if err := onlyWholeUnit(c.CDB); err != nil {
		return err
	}
	done, err := s.takeTurn(ctx) // nobody registers meanwhile
	if err != nil {
		return err
	}
	defer done()
	s.mu.Lock()
	defer s.mu.Unlock()
	if compatible, err := s.compatible(c.Nexus); compatible || err != nil {
		return err
	}
	if s.reserved && s.holder != c.Nexus {
		return errReserved
	}
	if c.Nexus != nil && s.nexuses[c.Nexus] == nil {
		return context.Canceled // it went meanwhile, and nobody would release
	}
	if !s.reserved {
		s.reserved, s.holder = true, c.Nexus
		s.gate.Add(1)
	}
	return nil
}

// release6 executes RELEASE(6), SPC-2 7.16. Without a reservation of its own
// a nexus releases nothing, and that is no error.
func (s *server) release6(_ context.Context, c *Command) error {
	if err := onlyWholeUnit(c.CDB); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if compatible, err := s.compatible(c.Nexus); compatible || err != nil {
		return err
	}
	s.release(c.Nexus)
	return nil
}

// compatible is compatible reservation handling, SPC-4 5.13.3: who has access
// by a persistent reservation may RESERVE and RELEASE, and nothing happens. As
// long as there are registrations, all others get a conflict, SPC-2 5.5.1. s.mu
// is held.
func (s *server) compatible(n *Nexus) (bool, error) {
	switch {
	case len(s.persistent.list) == 0:
		return false, nil
	case s.persistent.access(n.name()):
		return true, nil
	}
	return false, errReserved
}

// onlyWholeUnit refuses the 3RDPTY and EXTENT bits.
func onlyWholeUnit(cdb []byte) error {
	if cdb[1]&0x10 != 0 {
		return invalidField(1, 4)
	}
	if cdb[1]&0x01 != 0 {
		return invalidField(1, 0)
	}
	return nil
}

// release ends n's reservation by RESERVE(6), if it has one. s.mu is held.
func (s *server) release(n *Nexus) {
	if s.reserved && s.holder == n {
		s.reserved, s.holder = false, nil
		s.gate.Add(-1)
	}
}

// excluded returns errReserved when a reservation keeps operations of that
// access class from n, for handlers of operations that have none.
func (s *server) excluded(n *Nexus, class opFlags) error {
	if s.gate.Load() != 0 && s.reservedAgainst(n, class) {
		return errReserved
	}
	return nil
}

// reservedAgainst tells whether a reservation of another nexus keeps operations
// with these flags from n.
func (s *server) reservedAgainst(n *Nexus, flags opFlags) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reserved && s.holder != n && flags&shared == 0 {
		return true
	}
	if s.persistent.kind == 0 {
		return false
	}
	if st := s.nexuses[n]; st != nil {
		return st.denied&flags != 0
	}
	return s.persistent.denies(n.name())&flags != 0
}

// takeTurn waits until the caller may change reservations; done ends that, and
// may be called twice.
func (s *server) takeTurn(ctx context.Context) (done func(), err error) {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	taken := true
	return func() {
		if taken {
			taken = false
			<-s.turn
		}
	}, nil
}

// loadReservations takes over what was saved, before the first command.
func (s *server) loadReservations() {
	if s.modes.store == nil {
		return
	}
	value, err := s.modes.store.Load(savedReservations)
	if err == nil {
		s.persistent, err = decodeRegistrations(value)
	}
	if err != nil {
		s.log.Error("persistent reservations are lost; clusters have to register again", slog.Any("err", err))
		return
	}
	s.savedReservations = value != nil
	if s.persistent.kind != 0 {
		s.gate.Add(1)
	}
}

// saveReservations makes next what is there after a loss of power. The caller
// has the turn.
func (s *server) saveReservations(next *registrations) error {
	value, err := next.encode()
	if err != nil {
		return fmt.Errorf("save %s: %w", savedReservations, err)
	}
	if value == nil && !s.savedReservations {
		return nil
	}
	if err := s.modes.store.Save(savedReservations, value); err != nil {
		return fmt.Errorf("save %s: %w", savedReservations, err)
	}
	s.savedReservations = value != nil
	return nil
}

// changeReservations makes a change take effect, and returns the nexuses whose
// commands are to be aborted, if any are. The caller has the turn.
func (s *server) changeReservations(change *prChange, abort bool) (nexuses []*Nexus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if had, has := s.persistent.kind != 0, change.next.kind != 0; has && !had {
		s.gate.Add(1)
	} else if had && !has {
		s.gate.Add(-1)
	}
	s.persistent = change.next
	for n, st := range s.nexuses {
		st.denied = s.persistent.denies(st.name)
		if code, tell := change.attentions[st.name]; tell {
			s.push(st, code)
		}
		if abort && n.Transport != nil && slices.Contains(change.preempted, st.name) {
			nexuses = append(nexuses, n)
		}
	}
	return nexuses
}
