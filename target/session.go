package target

import (
	"context"
	"encoding/hex"
	"net/netip"
	"slices"
	"time"

	"skylun/lun"
)

// session is a normal or a discovery session, RFC 7143 4.2. It begins with its
// first connection, and ends with the last one.
type session struct {
	srv       *Server
	tsih      uint16
	discovery bool
	nexus     *lun.Nexus // in a discovery session it has no target name
	alias     string     // of the initiator
	user      string     // who has authenticated by CHAP, or nobody
	source    netip.Addr
	target    *target // nil in a discovery session
	params    params  // as its first connection has negotiated them
	since     time.Time
	win       window
	done      chan struct{} // closed when no command is being executed any more and the units know

	// Guarded by Server.mu.

	conns   []*conn  // in the order of their logins
	joining int      // logins that will add a connection, or fail
	open    bool     // the units know of it
	closing bool     // no connection is added any more
	past    Counters // of connections that have ended
}

var _ lun.Transport = (*session)(nil)

// sessionKey is what no two normal sessions share, RFC 7143 4.4.3: the names
// of the two ports of an I_T nexus.
type sessionKey struct {
	initiator, target string
	isid              [6]byte
	group             uint16
}

func (s *session) key() sessionKey {
	return sessionKey{s.nexus.InitiatorName, s.nexus.TargetName, s.nexus.ISID, s.nexus.PortalGroup}
}

// connections returns the connections of the session.
func (s *session) connections() []*conn {
	s.srv.mu.Lock()
	defer s.srv.mu.Unlock()
	return slices.Clone(s.conns)
}

// drop ends all connections of the session because of err, and with them the
// session.
func (s *session) drop(err error) {
	s.srv.mu.Lock()
	s.closing = true
	conns := slices.Clone(s.conns)
	s.srv.mu.Unlock()
	for _, c := range conns {
		c.drop(err)
	}
}

// AbortTasks implements lun.Transport. The commands end as those that another
// session has cleared.
func (s *session) AbortTasks(ctx context.Context, u lun.Unit, but *lun.Command) error {
	done := make(chan struct{})
	a := newAbort(s.srv, func() { close(done) })
	match := func(t *task) bool { return t.unit == u && &t.cmd != but }
	a.stop(s, match, true)
	a.found()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// info describes the connection.
func (c *conn) info() ConnectionInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	return ConnectionInfo{
		CID: c.cid, Remote: c.remote, Local: c.local, HeaderDigest: c.params.headerDigest, DataDigest: c.params.dataDigest,
	}
}

// info describes the session. Server.mu is held.
func (s *session) info() SessionInfo {
	i := SessionInfo{
		TSIH: s.tsih, ISID: hex.EncodeToString(s.nexus.ISID[:]), Initiator: s.nexus.InitiatorName, Alias: s.alias, User: s.user,
		Target: s.nexus.TargetName, Since: s.since, Counters: s.past, Connections: []ConnectionInfo{},
	}
	for _, c := range s.conns {
		n, inFlight := c.snapshot()
		i.Counters.add(&n)
		i.InFlight += inFlight
		i.Connections = append(i.Connections, c.info())
	}
	if len(s.conns) > 0 {
		i.Remote, i.Local = s.conns[0].remote, s.conns[0].local
	}
	return i
}
