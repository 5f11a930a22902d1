package lun

// A unit that is being formatted or sanitized does nothing else. That is one
// reason more to look at the gate, so it costs commands nothing otherwise.

// enter makes most commands end with cond, or fails with what they already
// end with. Only a sanitize gets a unit out of one that failed.
func (s *server) enter(cond *condition) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blocked != nil && !(s.blocked == errSanitizeFailed && cond == errSanitizing) {
		return s.blocked
	}
	s.setBlocked(cond)
	return nil
}

// leave ends what enter began; commands then end with cond, or run when it is
// nil.
func (s *server) leave(cond *condition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setBlocked(cond)
}

// setBlocked replaces what most commands end with. s.mu is held.
func (s *server) setBlocked(cond *condition) {
	switch {
	case s.blocked == nil && cond != nil:
		s.gate.Add(1)
	case s.blocked != nil && cond == nil:
		s.gate.Add(-1)
	}
	s.blocked = cond
}

// blocking returns the condition that keeps op from running, or nil. What
// tells of the unit or its state goes on, and so does SANITIZE after one that
// failed.
func (s *server) blocking(op *operation) *condition {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.blocked == nil, op != nil && op.flags&early != 0:
		return nil
	case s.blocked == errSanitizeFailed && op != nil && op.usage[0] == byte(sanitizeCode):
		return nil
	}
	return s.blocked
}
