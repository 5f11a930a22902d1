package target

import (
	"encoding/hex"
	"net/netip"
	"time"

	"skylun/lun"
	"skylun/target/pdu"
)

// session is a normal or a discovery session, RFC 7143 4.2. It has one
// connection, which also guards its window with its mutex.
type session struct {
	tsih      uint16
	cid       uint16
	discovery bool
	nexus     *lun.Nexus // in a discovery session it has no target name
	alias     string     // of the initiator
	user      string     // who has authenticated by CHAP, or nobody
	source    netip.Prefix
	target    *target // nil in a discovery session
	conn      *conn
	since     time.Time
	done      chan struct{} // closed when no command is being executed any more and the units know
}

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

func (s *session) info() SessionInfo {
	i := SessionInfo{
		TSIH: s.tsih, ISID: hex.EncodeToString(s.nexus.ISID[:]), Initiator: s.nexus.InitiatorName, Alias: s.alias, User: s.user,
		Target: s.nexus.TargetName, Remote: s.conn.remote, Local: s.conn.local, Since: s.since,
	}
	i.Counters, i.InFlight = s.conn.snapshot()
	return i
}

// window is the command window of a session, RFC 7143 4.2.2.1: the commands
// numbered exp to max may be sent. Each command that ends moves max, so there
// are never more of them in flight than the window is wide.
type window struct {
	exp, max uint32
}

// verdict is what becomes of a request because of its CmdSN.
type verdict int

const (
	accepted verdict = iota
	ignored          // outside of the window
	gap              // within the window, but a request before it is missing
)

// take judges a request, and moves exp over it when it is accepted.
// Immediate requests have a CmdSN that is not looked at.
func (w *window) take(h *pdu.Header) verdict {
	if h.Immediate() {
		return accepted
	}
	switch sn := h.CmdSN(); {
	case !pdu.Within(sn, w.exp, w.max):
		return ignored
	case sn != w.exp:
		return gap
	}
	w.exp++
	return accepted
}
