package target

import (
	"slices"
	"strings"

	"skylun/lun"
	"skylun/target/pdu"
)

// Task management, RFC 7143 4.2.3 and 11.5. A request is answered when the
// commands it concerns can have no further effect: those of all connections of
// its session that come before it by their CmdSN, and for some functions those
// of other sessions that are there.
//
// One thing of 4.2.3.3 is left out: the target does not wait for Data-Out that
// it has asked for and that now is of no use. Initiators stop sending it,
// whatever was agreed; what does come is dropped.

// taskRequest takes a task management request in its turn, or at once if it is
// immediate.
func (c *conn) taskRequest(h *pdu.Header) {
	f := h.TaskFunction()
	c.mu.Lock()
	tooMany := c.aborts >= maxImmediates
	c.aborts++
	c.mu.Unlock()
	itt, code := h.ITT(), byte(pdu.TaskComplete)
	unit := lunNumber(h.LUN())
	switch {
	case tooMany:
		code = pdu.TaskRejected
	case f == pdu.AbortTask:
		c.abortTask(h)
		return
	case f == pdu.AbortTaskSet, f == pdu.ClearTaskSet, f == pdu.LogicalUnitReset:
		if !c.hasUnit(unit) {
			code = pdu.TaskNoLUN
			break
		}
		later := *h
		c.afterThoseBefore(h, func() { c.manageUnit(&later, unit) })
		return
	case f == pdu.TargetWarmReset, f == pdu.TargetColdReset:
		c.resetTarget(h)
		return
	case f == pdu.TaskReassign: // error recovery level 2
		code = pdu.TaskNoReassign
	case f == pdu.ClearACA: // NormACA is 0
		code = pdu.TaskNotSupported
	default:
		code = pdu.TaskRejected
	}
	c.taskResponse(itt, code)
}

// taskResponse answers a task management request.
func (c *conn) taskResponse(itt uint32, code byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.aborts--
	c.wake()
	if c.err == nil {
		c.respond(pdu.TaskResponse, itt, true).SetResponseCode(code)
		c.aside(c.flushLocked)
	}
}

// afterThoseBefore calls run when all commands before an immediate request have
// been received, 4.2.3.3 b: they may be on their way through another connection.
func (c *conn) afterThoseBefore(h *pdu.Header, run func()) {
	exp, sn := c.win.exp.Load(), h.CmdSN()
	if h.Immediate() && pdu.After(sn, exp) && pdu.Within(sn, exp, c.win.max.Load()+1) {
		c.win.wait(c.sess, sn, run)
		return
	}
	run()
}

// before returns which tasks of the own session a request with the header h may
// concern: those with a CmdSN before its own. With one connection that is all
// there are.
func (c *conn) before(h *pdu.Header) func(t *task) bool {
	if len(c.sess.connections()) < 2 {
		return func(*task) bool { return true }
	}
	sn := h.CmdSN()
	return func(t *task) bool { return pdu.Before(t.cmdSN, sn) || t.immediate && t.cmdSN == sn }
}

// abortTask executes ABORT TASK. The command may be one of another connection.
func (c *conn) abortTask(h *pdu.Header) {
	itt, ref := h.ITT(), h.RefTag()
	a := newAbort(c.srv, func() { c.taskResponse(itt, pdu.TaskComplete) })
	match := func(t *task) bool { return t.itt == ref }
	if !a.stop(c.sess, match, false) {
		code := c.absentTask(h)
		// Until the window has moved, the command can still be taken.
		if c.sess.advance(); !a.stop(c.sess, match, false) {
			c.taskResponse(itt, code)
			return
		}
	}
	a.found()
}

// absentTask returns the answer to an ABORT TASK for a task that is not there,
// 11.6.1. If its command is one that could still come, that counts as received.
// Otherwise its answer is on its way most likely, and it does not exist.
// VMware's initiator resets the target when it is told so, and is told that the
// function is complete.
func (c *conn) absentTask(h *pdu.Header) byte {
	ref := h.RefCmdSN()
	if pdu.Within(ref, c.win.exp.Load(), c.win.max.Load()) && pdu.Before(ref, h.CmdSN()) {
		c.win.plug(c.sess, ref)
		return pdu.TaskComplete
	}
	if strings.HasPrefix(c.sess.nexus.InitiatorName, "iqn.1998-01.com.vmware:") {
		return pdu.TaskComplete
	}
	return pdu.TaskNotFound
}

// manageUnit executes ABORT TASK SET, CLEAR TASK SET and LOGICAL UNIT RESET.
func (c *conn) manageUnit(h *pdu.Header, unit int) {
	f, itt := h.TaskFunction(), h.ITT()
	onUnit := func(t *task) bool { return lunNumber(t.lun) == unit }
	before := c.before(h)
	a := newAbort(c.srv, func() {
		if f == pdu.LogicalUnitReset {
			c.sess.target.Units.Reset(uint16(unit))
		}
		c.taskResponse(itt, pdu.TaskComplete)
	})
	a.stop(c.sess, func(t *task) bool { return onUnit(t) && before(t) }, false)
	if f != pdu.AbortTaskSet {
		c.stopOthers(a, onUnit)
	}
	a.found()
}

// resetTarget executes TARGET WARM RESET and TARGET COLD RESET. Commands that
// are still to come before it count as received, 4.2.3.3 b. A cold reset ends
// all sessions.
func (c *conn) resetTarget(h *pdu.Header) {
	f, itt, tgt := h.TaskFunction(), h.ITT(), c.sess.target
	if exp, sn := c.win.exp.Load(), h.CmdSN(); h.Immediate() && pdu.Within(sn, exp, c.win.max.Load()+1) {
		for ; exp != sn; exp++ {
			c.win.plug(c.sess, exp)
		}
	}
	a := newAbort(c.srv, func() {
		tgt.Units.ResetAll()
		c.taskResponse(itt, pdu.TaskComplete)
		if f == pdu.TargetColdReset {
			c.srv.wg.Go(func() { c.srv.dismiss(c.srv.sessionsOf(tgt), errReset, nil) })
		}
	})
	before := c.before(h)
	a.stop(c.sess, before, false)
	c.sess.advance()
	// Commands may have been taken until the window had moved.
	a.stop(c.sess, func(t *task) bool { return before(t) && !t.stopped }, false)
	c.stopOthers(a, func(*task) bool { return true })
	a.found()
}

// stopOthers stops tasks of the other sessions with the target.
func (c *conn) stopOthers(a *abort, match func(*task) bool) {
	for _, s := range c.srv.sessionsOf(c.sess.target) {
		if s != c.sess {
			a.stop(s, match, true)
		}
	}
}

// hasUnit tells whether the target has a unit of that number.
func (c *conn) hasUnit(n int) bool {
	return n >= 0 && n <= lun.MaxLUN && slices.Contains(c.sess.target.Units.LUNs(), uint16(n))
}

// lunNumber returns the number that a LUN field stands for, SAM-5 4.7, or a
// negative number. Numbers below 256 may be written in two ways.
func lunNumber(lun [8]byte) int {
	if [6]byte(lun[2:]) != [6]byte{} {
		return -1
	}
	switch lun[0] >> 6 {
	case 0: // peripheral device addressing
		if lun[0] == 0 {
			return int(lun[1])
		}
	case 1: // flat space addressing
		return int(lun[0]&0x3f)<<8 | int(lun[1])
	}
	return -1
}
