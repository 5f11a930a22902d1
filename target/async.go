package target

import (
	"time"

	"skylun/target/pdu"
)

// Asynchronous messages, RFC 7143 11.9: what a target tells without being asked.

var senseInventoryChanged = fixedSense(0x06, 0x3f, 0x0e) // UNIT ATTENTION, reported LUNs data has changed

// goodbyeTime is how long the last message of a connection may take to leave.
const goodbyeTime = time.Second

// asyncMessage appends an asynchronous message, with sense data if it is about
// a SCSI event. c.mu is held.
func (c *conn) asyncMessage(ev pdu.AsyncEvent, p1, p2, p3 uint16, sense []byte) {
	h := c.respond(pdu.AsyncMessage, pdu.NoTag, true)
	h.SetAsyncEvent(ev, p1, p2, p3)
	if sense != nil {
		data := append([]byte{byte(len(sense) >> 8), byte(len(sense))}, sense...)
		h.SetDataLen(len(data))
		c.next.copy(data)
	}
}

// InventoryChanged implements lun.Transport: it sends what Linux takes as a
// reason to look at the LUNs again, through one of the connections. The unit
// attentions that tell the same are there in any case, so a message that nobody
// has read yet is enough.
func (s *session) InventoryChanged() {
	for _, c := range s.connections() {
		if c.tellInventory() {
			return
		}
	}
}

func (c *conn) tellInventory() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || !c.ready || c.draining {
		return false
	}
	if !c.next.inventory {
		c.next.inventory = true
		c.asyncMessage(pdu.AsyncSCSI, 0, 0, 0, senseInventoryChanged)
		c.aside(c.flushLocked)
	}
	return true
}

// askLogout asks the initiator to log this connection out. Whoever does logs in
// again, and so finds out early when the target is back.
func (c *conn) askLogout() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil && c.ready {
		seconds := (c.srv.cfg.LogoutTimeout + time.Second - 1) / time.Second
		c.asyncMessage(pdu.AsyncLogoutRequest, 0, 0, uint16(seconds), nil)
		c.aside(c.flushLocked)
	}
}

// canLogOut tells whether the connection is one of a normal session.
func (c *conn) canLogOut() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ready && !c.sess.discovery
}

// sayGoodbye tells the initiator that the session ends. c.mu is held.
func (c *conn) sayGoodbye() {
	if c.err == nil && c.ready && !c.sess.discovery {
		c.asyncMessage(pdu.AsyncDropSession, 0, uint16(c.params.time2Wait), uint16(c.params.time2Retain), nil)
		c.flushAll()
	}
}

// dismissal ends the connection because of err, and says so before, unless that
// takes long.
func (c *conn) dismissal(err error) {
	timer := time.AfterFunc(goodbyeTime, func() { c.drop(err) })
	defer timer.Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sayGoodbye()
	c.fail(err)
}

// awaitLogout asks the initiators of normal sessions to log out, and waits for
// them, but not longer than Config.LogoutTimeout and until stop is closed.
func (s *Server) awaitLogout(sessions []*session, stop <-chan struct{}) {
	if s.cfg.LogoutTimeout < 0 {
		return
	}
	for _, sess := range sessions {
		for _, c := range sess.connections() {
			c.askLogout()
		}
	}
	timer := time.NewTimer(s.cfg.LogoutTimeout)
	defer timer.Stop()
	for _, sess := range sessions {
		select {
		case <-sess.done:
		case <-stop:
			return
		case <-timer.C:
			return
		}
	}
}

// dismiss ends sessions because of err, after their initiators had the time to
// log out or stop was closed.
func (s *Server) dismiss(sessions []*session, err error, stop <-chan struct{}) {
	s.awaitLogout(sessions, stop)
	for _, sess := range sessions {
		s.mu.Lock()
		sess.closing = true
		s.mu.Unlock()
		for _, c := range sess.connections() {
			s.wg.Go(func() { c.dismissal(err) })
		}
	}
}
