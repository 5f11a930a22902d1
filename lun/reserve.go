package lun

import "context"

// RESERVE(6) and RELEASE(6) of SPC-2 5.5: one nexus has the unit to itself.
// Windows and ESXi use them while they format. A reservation ends with its
// nexus. It is one reason more to look at the gate, and so costs commands
// nothing while there is none.

// reserve6 executes RESERVE(6), SPC-2 7.21, without extents and third parties.
func (s *server) reserve6(_ context.Context, c *Command) error {
	if err := onlyWholeUnit(c.CDB); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
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
	s.release(c.Nexus)
	return nil
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

// release ends n's reservation, if it has one. s.mu is held.
func (s *server) release(n *Nexus) {
	if s.reserved && s.holder == n {
		s.reserved, s.holder = false, nil
		s.gate.Add(-1)
	}
}

// reservedAgainst tells whether another nexus holds the unit.
func (s *server) reservedAgainst(n *Nexus) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reserved && s.holder != n
}

// excluded returns errReserved when a reservation keeps operations of that
// access class from n, for handlers of operations that have none.
func (s *server) excluded(n *Nexus, class opFlags) error {
	if s.gate.Load() != 0 && s.reservedAgainst(n) {
		return errReserved
	}
	return nil
}
