package target

import (
	"net/netip"

	"skylun/target/pdu"
)

// LoginAttempt is who wants to log in where, before it has authenticated.
type LoginAttempt struct {
	Initiator string // names in lower case, as they are compared
	Target    string
	Remote    netip.AddrPort // the initiator
	Local     netip.AddrPort // the portal that it has chosen
}

// Redirection sends an initiator to another portal, RFC 7143 11.13.5.
type Redirection struct {
	Address   string // IP:PORT, [IPv6]:PORT or HOST:PORT
	Permanent bool   // the initiator need not ask here again
}

// RedirectLogins has f asked at each login of a normal session, whether this
// server has the target or not. When f returns true the initiator is sent
// elsewhere, before it has authenticated, so where a target is can be learned by
// anybody who knows its name. f is called by many goroutines, and a login waits for
// it. RedirectLogins is to be called before Serve.
func (s *Server) RedirectLogins(f func(LoginAttempt) (Redirection, bool)) { s.redirect = f }

// redirect sends the initiator elsewhere, if it has to go there.
func (l *login) redirect() error {
	f := l.srv.redirect
	if f == nil {
		return nil
	}
	to, moved := f(LoginAttempt{Initiator: l.initiator, Target: l.target, Remote: l.conn.remote, Local: l.conn.local})
	if !moved {
		return nil
	}
	status := pdu.LoginMovedTemporarily
	if to.Permanent {
		status = pdu.LoginMovedPermanently
	}
	return &loginError{status: status, reason: "target is elsewhere", moved: to.Address}
}
