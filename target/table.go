package target

import (
	"context"
	"errors"
	"slices"
	"time"

	"skylun/lun"
	"skylun/target/pdu"
)

// begin makes the session that a login asks for, RFC 7143 6.3.1 and 11.12.6.
//
// A normal session takes the place of one with the same initiator port and
// target (session reinstatement, 6.3.5): that one is dropped, and the new one
// begins when nothing of it is being executed any more. Otherwise a late write
// of the old session could overwrite one of the new. Discovery sessions do
// not move data and live side by side.
//
// A TSIH names a session to add a connection to. There can be only one, so this
// is possible only for the connection that is there already (connection
// reinstatement, 6.3.4). At error recovery level 0 that ends all its commands,
// which leaves nothing to tell it from session reinstatement but the TSIH, and
// that is kept.
func (s *Server) begin(ctx context.Context, c *conn, l *login) (*session, error) {
	sess := &session{
		cid: l.cid, discovery: l.discovery, alias: l.alias, user: l.auth.user, source: sourceOf(c.remote.Addr()), target: l.tgt, conn: c, since: time.Now(), done: make(chan struct{}),
		nexus: &lun.Nexus{InitiatorName: l.initiator, ISID: l.isid, PortalGroup: c.group},
	}
	if l.tgt != nil {
		sess.nexus.TargetName = l.tgt.Name
	}
	replaces := l.tsih
	for {
		old, err := s.register(sess, replaces)
		if old == nil {
			return sess, err
		}
		replaces = 0 // it has been found, and may be gone at the next look
		if l.tsih != 0 {
			sess.tsih = l.tsih
		}
		old.conn.drop(errReinstated)
		if err := wait(ctx, old.done, s.cfg.LoginTimeout); err != nil {
			return nil, refuse(pdu.LoginServiceDown, "commands of the session to be replaced are still being executed")
		}
	}
}

// register enters sess into the tables, or returns the session that has to end
// before. With replaces, that must be the one of this TSIH.
func (s *Server) register(sess *session, replaces uint16) (old *session, err error) {
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
	case replaces != 0 && (old == nil || old.tsih != replaces):
		return nil, refuse(pdu.LoginNoSession, "no session 0x%04x of this initiator", replaces)
	case replaces != 0 && old.cid != sess.cid:
		return nil, refuse(pdu.LoginTooManyConns, "session 0x%04x has its one connection", replaces)
	case old != nil:
		return old, nil
	case len(s.sessions) >= s.cfg.MaxSessions:
		return nil, refuse(pdu.LoginOutOfResources, "%d sessions are open, as many as are configured", len(s.sessions))
	case s.sessionsFrom(sess.source) >= s.cfg.MaxSourceSessions:
		return nil, refuse(pdu.LoginOutOfResources, "%d sessions from %v are open, as many as one source may have", s.cfg.MaxSourceSessions, sess.source)
	}
	if sess.tsih == 0 || s.sessions[sess.tsih] != nil {
		sess.tsih = s.newTSIH()
	}
	s.sessions[sess.tsih] = sess
	if !sess.discovery {
		s.ports[sess.key()] = sess
	}
	return nil, nil
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

// begin makes the session of the connection.
func (c *conn) begin(ctx context.Context, l *login) error {
	sess, err := c.srv.begin(ctx, c, l)
	if err != nil {
		return err
	}
	c.srv.logins.Add(1)
	c.sess = sess
	c.params = l.params
	c.log = c.log.With("initiator", sess.nexus.InitiatorName, "tsih", sess.tsih)
	if sess.target != nil {
		c.log = c.log.With("target", sess.target.Name)
		sess.target.Units.AttachNexus(sess.nexus)
	}
	return nil
}

// endSession takes a session out of the tables, after its last command.
func (s *Server) endSession(sess *session) {
	if sess.target != nil {
		sess.target.Units.DetachNexus(sess.nexus)
	}
	count, _ := sess.conn.snapshot()
	s.mu.Lock()
	delete(s.sessions, sess.tsih)
	if !sess.discovery {
		delete(s.ports, sess.key())
	}
	s.past.add(&count)
	s.mu.Unlock()
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
	for _, sess := range s.sessionList() {
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
	list := s.sessionList()
	s.mu.Lock()
	st.Connections, st.Counters = len(s.conns), s.past
	s.mu.Unlock()
	st.Sessions = len(list)
	for _, sess := range list {
		n, _ := sess.conn.snapshot()
		st.Counters.add(&n)
	}
	return st
}
