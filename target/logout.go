package target

import (
	"slices"

	"skylun/target/pdu"
)

// logout takes a logout request, 11.14. It is answered when the commands in
// flight of what it closes have been stopped.
func (c *conn) logout(h *pdu.Header) error {
	if !c.awaitTurn(h) {
		return nil
	}
	cid := h.CID()
	switch reason := h.LogoutReason(); {
	case reason == pdu.LogoutSession:
		c.closeOthers()
		return c.closeOwn(h)
	case reason == pdu.LogoutConnection && cid == c.cid:
		return c.closeOwn(h)
	case reason == pdu.LogoutConnection:
		conns := c.sess.connections()
		if i := slices.IndexFunc(conns, func(o *conn) bool { return o.cid == cid }); i >= 0 {
			return c.closeOther(h, conns[i])
		}
		return c.logoutResponse(h.ITT(), pdu.LogoutNoCID)
	case reason == pdu.LogoutRecovery: // error recovery level 2
		return c.logoutResponse(h.ITT(), pdu.LogoutNoRecovery)
	}
	return c.logoutResponse(h.ITT(), pdu.LogoutCleanupFail)
}

// awaitTurn takes the CmdSN of a request and lets the reader wait for its turn:
// on this connection nothing may follow it. It tells whether to go on.
func (c *conn) awaitTurn(h *pdu.Header) bool {
	switch c.win.take(h) {
	case ignored:
		return false
	case accepted:
		if !h.Immediate() {
			c.win.credit()
		}
		return true
	}
	turned := false
	kept := c.win.keep(c.sess, h.CmdSN(), earlyEntry{run: func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		turned = true
		c.wake()
	}})
	c.sess.advance()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flush()
	for kept && !turned && c.err == nil && !c.draining {
		c.wait()
	}
	return turned
}

// closeOthers ends the other connections of the session, and lets no more come.
func (c *conn) closeOthers() {
	c.srv.mu.Lock()
	c.sess.closing = true
	others := slices.DeleteFunc(slices.Clone(c.sess.conns), func(o *conn) bool { return o == c })
	c.srv.mu.Unlock()
	left := len(others)
	for _, o := range others {
		o.drop(errLoggedOut)
		c.srv.wg.Go(func() {
			<-o.done
			c.mu.Lock()
			defer c.mu.Unlock()
			left--
			c.wake()
		})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for left > 0 && c.err == nil {
		c.wait()
	}
}

// closeOwn ends this connection.
func (c *conn) closeOwn(h *pdu.Header) error {
	c.mu.Lock()
	for _, t := range c.tasks {
		c.stop(t, true)
	}
	for c.busy+c.aborts > 0 && c.err == nil {
		c.wait()
	}
	c.mu.Unlock()
	if err := c.logoutResponse(h.ITT(), pdu.LogoutDone); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finishCommands()
	if c.err != nil {
		return c.err
	}
	return errLoggedOut
}

// closeOther ends another connection of the session. This one goes on
// meanwhile.
func (c *conn) closeOther(h *pdu.Header, o *conn) error {
	c.mu.Lock()
	tooMany := c.aborts >= maxImmediates
	if !tooMany {
		c.aborts++
	}
	c.mu.Unlock()
	itt := h.ITT()
	if tooMany {
		return c.logoutResponse(itt, pdu.LogoutCleanupFail)
	}
	o.drop(errLoggedOut)
	c.srv.wg.Go(func() {
		<-o.done
		c.logoutResponse(itt, pdu.LogoutDone)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.aborts--
		c.wake()
		c.aside(c.flushLocked)
	})
	return nil
}

// logoutResponse appends a logout response, 11.15.
func (c *conn) logoutResponse(itt uint32, code byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		r := c.respond(pdu.LogoutResp, itt, true)
		r.SetResponseCode(code)
		r.SetLogoutTimes(uint16(c.params.time2Wait), uint16(c.params.time2Retain))
	}
	return c.err
}
