package target

import (
	"context"
	"errors"
	"slices"
	"time"

	"skylun/lun"
	"skylun/target/pdu"
)

// begin finds or makes the session that a login asks for, RFC 7143 6.3.1 and
// 11.12.6, and enters c into it.
func (s *Server) begin(ctx context.Context, c *conn, l *login) (*session, error) {
	if l.tsih != 0 {
		return s.join(ctx, c, l)
	}
	sess := &session{
		srv: s, discovery: l.discovery, alias: l.alias, user: l.auth.user, source: sourceOf(c.remote.Addr()), target: l.tgt, params: l.params,
		conns: []*conn{c}, since: time.Now(), done: make(chan struct{}),
		nexus: &lun.Nexus{InitiatorName: l.initiator, ISID: l.isid, PortalGroup: c.group},
	}
	sess.nexus.Transport = sess
	if l.tgt != nil {
		sess.nexus.TargetName = l.tgt.Name
	}
	sess.win.reset(c.win.exp.Load(), uint32(s.cfg.QueueDepth))
	// A normal session takes the place of one with the same initiator port and
	// target (session reinstatement, 6.3.5): that one is dropped, and the new one
	// begins when nothing of it is being executed any more. Otherwise a late write
	// of the old session could overwrite one of the new. Discovery sessions do
	// not move data and live side by side.
	for {
		old, err := s.register(sess)
		if err != nil {
			return nil, err
		}
		if old == nil {
			break
		}
		old.drop(errReinstated)
		if err := wait(ctx, old.done, s.cfg.LoginTimeout); err != nil {
			return nil, refuse(pdu.LoginServiceDown, "commands of the session to be replaced are still being executed")
		}
	}
	if sess.target != nil {
		sess.target.Units.AttachNexus(sess.nexus)
	}
	s.mu.Lock()
	sess.open = true
	s.mu.Unlock()
	return sess, nil
}

// register enters sess into the tables, or returns the session that has to end
// before.
func (s *Server) register(sess *session) (old *session, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !sess.discovery {
		old = s.ports[sess.key()]
	}
	switch {
	case s.stopping:
		return nil, refuse(pdu.LoginServiceDown, "server is stopping")
	case sess.target != nil && sess.target.removed:
		return nil, refuse(pdu.LoginTargetRemoved, "the target has just been removed")
	case old != nil && old.user != sess.user:
		return nil, refuse(pdu.LoginForbidden, "CHAP user %q has a session of this initiator name and ISID", old.user)
	case old != nil:
		return old, nil
	case len(s.sessions) >= s.cfg.MaxSessions:
		return nil, refuse(pdu.LoginOutOfResources, "%d sessions are open, as many as are configured", len(s.sessions))
	case s.sessionsFrom(sess.source) >= s.cfg.MaxSourceSessions:
		return nil, refuse(pdu.LoginOutOfResources, "%d sessions from %v are open, as many as one source may have", s.cfg.MaxSourceSessions, sess.source)
	}
	sess.tsih = s.newTSIH()
	s.sessions[sess.tsih] = sess
	if !sess.discovery {
		s.ports[sess.key()] = sess
	}
	return nil, nil
}

// join adds c to the session that its login names, 6.3.1. A connection with
// the same CID ends before (connection reinstatement, 6.3.4): at error recovery
// level 0 all its commands go with it, but the session goes on.
func (s *Server) join(ctx context.Context, c *conn, l *login) (*session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		sess := s.named(l)
		switch {
		case s.stopping:
			return nil, refuse(pdu.LoginServiceDown, "server is stopping")
		case sess == nil || sess.closing || !sess.open:
			return nil, refuse(pdu.LoginNoSession, "no session 0x%04x of this initiator", l.tsih)
		case sess.user != l.auth.user:
			return nil, refuse(pdu.LoginForbidden, "session 0x%04x is one of CHAP user %q", sess.tsih, sess.user)
		}
		i := slices.IndexFunc(sess.conns, func(o *conn) bool { return o.cid == l.cid })
		if i < 0 {
			if len(sess.conns) >= sess.params.maxConns {
				return nil, refuse(pdu.LoginTooManyConns, "session 0x%04x has %d connections, as many as were negotiated", sess.tsih, len(sess.conns))
			}
			sess.conns = append(sess.conns, c)
			return sess, nil
		}
		old := sess.conns[i]
		sess.joining++
		s.mu.Unlock()
		old.drop(errReinstated)
		err := wait(ctx, old.done, s.cfg.LoginTimeout)
		s.mu.Lock()
		sess.joining--
		if err != nil || sess.closing {
			s.endIfEmpty(sess)
			return nil, refuse(pdu.LoginServiceDown, "commands of the connection to be replaced are still being executed")
		}
	}
}

// named returns the session that a login wants to join, or nil. s.mu is held.
func (s *Server) named(l *login) *session {
	sess := s.sessions[l.tsih]
	if sess == nil || sess.discovery || sess.target != l.tgt {
		return nil
	}
	if n := sess.nexus; n.InitiatorName != l.initiator || n.ISID != l.isid || n.PortalGroup != l.conn.group {
		return nil
	}
	return sess
}

// judge sets the window by which the login request h is answered: that of the
// session if it is one to be joined. An initiator takes note of it at once.
func (c *conn) judge(l *login, h *pdu.Header) {
	if l.tsih != 0 && l.checked {
		c.srv.mu.Lock()
		sess := c.srv.named(l)
		c.srv.mu.Unlock()
		if sess != nil {
			c.win = &sess.win
			return
		}
	}
	c.win = new(window)
	c.win.reset(h.CmdSN(), uint32(c.srv.cfg.QueueDepth))
}

// newTSIH returns a handle that is not in use, and not 0. s.mu is held; there
// are fewer sessions than handles.
func (s *Server) newTSIH() uint16 {
	for {
		s.lastTSIH++
		if s.lastTSIH != 0 && s.sessions[s.lastTSIH] == nil {
			return s.lastTSIH
		}
	}
}

// begin makes c a connection of the session that its login asks for.
func (c *conn) begin(ctx context.Context, l *login) error {
	c.cid = l.cid
	sess, err := c.srv.begin(ctx, c, l)
	if err != nil {
		return err
	}
	c.win, c.sess = &sess.win, sess
	c.mu.Lock()
	c.params = l.params.session(sess.params)
	c.mu.Unlock()
	c.log = c.log.With("initiator", sess.nexus.InitiatorName, "tsih", sess.tsih)
	if sess.target != nil {
		c.log = c.log.With("target", sess.target.Name)
	}
	if l.tsih == 0 {
		c.srv.logins.Add(1)
	} else {
		c.log = c.log.With("cid", c.cid)
	}
	return nil
}

// leave takes c out of its session, after its last command. With its last
// connection the session ends.
func (s *Server) leave(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sess := c.sess
	sess.conns = slices.DeleteFunc(sess.conns, func(o *conn) bool { return o == c })
	n, _ := c.snapshot()
	sess.past.add(&n)
	close(c.done)
	s.endIfEmpty(sess)
}

// endIfEmpty ends a session that has no connection and will not get one. s.mu
// is held, and released for a moment.
func (s *Server) endIfEmpty(sess *session) {
	if len(sess.conns) > 0 || sess.joining > 0 {
		return
	}
	sess.closing = true
	sess.joining = 1 // nobody else gets here
	s.mu.Unlock()
	sess.win.stop()
	if sess.target != nil {
		sess.target.Units.DetachNexus(sess.nexus)
	}
	s.mu.Lock()
	delete(s.sessions, sess.tsih)
	if !sess.discovery {
		delete(s.ports, sess.key())
	}
	s.past.add(&sess.past)
	close(sess.done)
}

var errTimeout = errors.New("timeout")

// wait waits for done, but no longer than timeout.
func wait(ctx context.Context, done <-chan struct{}, timeout time.Duration) error {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-timer.C:
		return errTimeout
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sessionList returns the sessions, oldest first.
func (s *Server) sessionList() []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*session, 0, len(s.sessions))
	for _, sess := range s.sessions {
		list = append(list, sess)
	}
	slices.SortFunc(list, func(a, b *session) int { return a.since.Compare(b.since) })
	return list
}

// Sessions returns the sessions that are open, oldest first.
func (s *Server) Sessions() []SessionInfo {
	infos := []SessionInfo{}
	list := s.sessionList()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sess := range list {
		infos = append(infos, sess.info())
	}
	return infos
}

// Stats returns the counters of the server.
func (s *Server) Stats() Stats {
	st := Stats{
		Accepted: s.accepted.Load(), Refused: s.refused.Load(), LoginFailures: s.failed.Load(), Logins: s.logins.Load(),
		Buffered: s.budget.used.Load(),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Connections, st.Sessions, st.Counters = len(s.conns), len(s.sessions), s.past
	for _, sess := range s.sessions {
		st.Counters.add(&sess.past)
		for _, c := range sess.conns {
			n, _ := c.snapshot()
			st.Counters.add(&n)
		}
	}
	return st
}
