package target

import (
	"fmt"

	"skylun/target/pdu"
)

// Commands that come before their turn, because another connection of their
// session still has to deliver one before them (RFC 7143 4.2.2.1). They gather
// their unsolicited data like others; anything that follows waits for the turn.

// gapError says that a request is missing, and that nothing will fill the gap.
func gapError(missing uint32) error {
	return fmt.Errorf("%w: CmdSN %d has been missing for %v", errProtocol, missing, gapTimeout)
}

// keepEarly keeps t until its turn. It tells whether t is the first of its
// number. c.mu is held.
func (c *conn) keepEarly(t *task) bool {
	if !c.win.keep(c.sess, t.cmdSN, earlyEntry{task: t, conn: c}) {
		return false
	}
	t.early, t.cameEarly = true, true
	return true
}

// turn tells t, a task of c that came early as number sn, that its turn has
// come, or with inTurn false that another request had its number. It tells
// whether t is still there.
func (c *conn) turn(t *task, sn uint32, inTurn bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !t.early || t.cmdSN != sn || c.err != nil {
		return false
	}
	if !inTurn {
		c.stop(t, true)
		return false
	}
	t.early = false
	if !t.used {
		c.proceed(t)
		if c.next.bytes > 0 {
			c.aside(c.flushLocked)
		}
	}
	return true
}

// proceed lets a task go on that nobody uses: it is executed when it has its
// data, else it waits for that, for memory or for R2Ts. c.mu is held.
func (c *conn) proceed(t *task) {
	x := &t.transfer
	switch {
	case t.early, x.open, x.spoiled:
	case t.complete():
		if x.want > 0 {
			t.cmd.Out = t.out.data[:x.want]
		}
		if t.need() > 0 && !t.admitted {
			c.park(t)
			return
		}
		c.dispatch(t)
	case !t.admitted:
		c.park(t)
	default:
		c.solicit(t)
	}
}

// receivedNow takes the CmdSN of a request whose place in the order does not
// matter. It tells whether to go on.
func (c *conn) receivedNow(h *pdu.Header) bool {
	switch c.win.take(h) {
	case accepted:
		if !h.Immediate() {
			c.win.credit()
		}
		return true
	case early:
		return c.win.keep(c.sess, h.CmdSN(), earlyEntry{})
	}
	return false
}

// inOrder takes the CmdSN of a request and runs it in its turn, which may be
// later.
func (c *conn) inOrder(h *pdu.Header, run func(h *pdu.Header)) error {
	if h.ITT() == pdu.NoTag {
		c.receivedNow(h)
		return c.reject(h, pdu.RejectInvalidField)
	}
	switch c.win.take(h) {
	case accepted:
		if !h.Immediate() {
			c.win.credit()
		}
		run(h)
	case early:
		later := *h
		c.win.keep(c.sess, h.CmdSN(), earlyEntry{run: func() { run(&later) }})
	}
	return nil
}
