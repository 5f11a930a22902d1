package target

import (
	"strings"
	"sync/atomic"

	"skylun/lun"
	"skylun/target/pdu"
)

// abort is a task management request that waits for the tasks it has stopped,
// RFC 7143 11.5. It is answered when none of them can have any further effect.
type abort struct {
	conn *conn // through which it came
	itt  uint32
	left atomic.Int32 // tasks that are not gone, and one for the request itself until it has found all
}

// oneGone tells s that one of its tasks has ended. The mutex of the task's
// connection is held, so the answer is left to somebody who holds none.
func (s *abort) oneGone() {
	if s.left.Add(-1) == 0 {
		s.conn.srv.wg.Go(func() {
			s.conn.mu.Lock()
			defer s.conn.mu.Unlock()
			s.conn.aborts--
			s.conn.taskResponse(s.itt, pdu.TaskComplete)
			s.conn.flush()
		})
	}
}

// taskRequest takes a task management request.
func (c *conn) taskRequest(h *pdu.Header) error {
	if ok, err := c.take(h); !ok {
		return err
	}
	c.mu.Lock()
	tooMany := c.aborts >= maxImmediates
	c.aborts++
	c.mu.Unlock()
	s := &abort{conn: c, itt: h.ITT()}
	s.left.Store(1)
	code := byte(pdu.TaskComplete)
	unit := lunNumber(h.LUN())
	onUnit := func(t *task) bool { return lunNumber(t.lun) == unit }
	switch f := h.TaskFunction(); {
	case tooMany:
		code = pdu.TaskRejected
	case f == pdu.AbortTask:
		if !c.stopTasks(s, c, func(t *task) bool { return t.itt == h.RefTag() }) {
			code = c.absentTask(h)
		}
	case f == pdu.AbortTaskSet:
		c.stopTasks(s, c, onUnit)
	case f == pdu.ClearTaskSet, f == pdu.LogicalUnitReset:
		if !c.hasUnit(unit) {
			code = pdu.TaskNoLUN
			break
		}
		c.stopEverywhere(s, onUnit)
		if f == pdu.LogicalUnitReset {
			c.sess.target.Units.Reset(uint16(unit))
		}
	case f == pdu.TargetWarmReset, f == pdu.TargetColdReset:
		c.stopEverywhere(s, func(*task) bool { return true })
		c.sess.target.Units.ResetAll()
	case f == pdu.TaskReassign: // error recovery level 2
		code = pdu.TaskNoReassign
	case f == pdu.ClearACA: // NormACA is 0
		code = pdu.TaskNotSupported
	default:
		code = pdu.TaskRejected
	}
	if s.left.Add(-1) == 0 {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.aborts--
		c.taskResponse(s.itt, code)
		return c.err
	}
	return nil
}

// absentTask returns the answer to an ABORT TASK for a task that is not there.
// Most likely its answer is on its way. RFC 7143 11.6.1 has "task does not
// exist" for that, if the command is not one that is still to come. VMware's
// initiator resets the target when it is told so, and is told that the
// function is complete.
func (c *conn) absentTask(h *pdu.Header) byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	missing := pdu.Within(h.RefCmdSN(), c.win.exp, c.win.max) && pdu.Before(h.RefCmdSN(), h.CmdSN())
	if missing || strings.HasPrefix(c.sess.nexus.InitiatorName, "iqn.1998-01.com.vmware:") {
		return pdu.TaskComplete
	}
	return pdu.TaskNotFound
}

// taskResponse appends a task management response. c.mu is held.
func (c *conn) taskResponse(itt uint32, code byte) {
	if c.err == nil {
		c.respond(pdu.TaskResponse, itt, true).SetResponseCode(code)
	}
}

// hasUnit tells whether the target has a unit of that number.
func (c *conn) hasUnit(n int) bool {
	for _, l := range c.sess.target.Units.LUNs() {
		if int(l) == n {
			return true
		}
	}
	return false
}

// stopEverywhere stops tasks in all sessions with the target.
func (c *conn) stopEverywhere(s *abort, match func(*task) bool) {
	for _, o := range c.srv.connsOf(c.sess.target) {
		c.stopTasks(s, o, match)
	}
}

// stopTasks stops the tasks of o that match, and lets s wait for them. It
// tells whether there are any. Those of the requesting session get no answer;
// those of others end with TASK ABORTED.
func (c *conn) stopTasks(s *abort, o *conn, match func(*task) bool) (found bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, t := range o.tasks {
		if !match(t) {
			continue
		}
		found = true
		s.left.Add(1)
		t.reported = append(t.reported, s)
		o.stop(t, o == c)
	}
	if found && o != c {
		o.aside(o.flushLocked)
	}
	return found
}

// stop makes t end soon. With silent, it gets no answer. c.mu is held.
func (c *conn) stop(t *task, silent bool) {
	c.count.Aborts++
	t.stopped, t.aborted = true, t.aborted || silent
	switch {
	case !t.used:
		c.unpark(t)
		c.finishStopped(t)
	case t.cancel != nil:
		t.cancel()
	}
}

// finishStopped ends a stopped task that nobody uses. c.mu is held.
func (c *conn) finishStopped(t *task) {
	t.cmd.Status, t.cmd.Sense, t.cmd.In, t.cmd.Transfer = lun.StatusTaskAborted, nil, nil, 0
	c.finish(t)
}

// flushLocked is flush for those who do not hold c.mu.
func (c *conn) flushLocked() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flush()
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

// logout takes a logout request, 11.14. The commands in flight are stopped
// first.
func (c *conn) logout(h *pdu.Header) error {
	if ok, err := c.take(h); !ok {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	code := byte(pdu.LogoutDone)
	switch reason := h.LogoutReason(); {
	case reason == pdu.LogoutSession:
	case reason == pdu.LogoutConnection && h.CID() == c.sess.cid:
	case reason == pdu.LogoutConnection:
		code = pdu.LogoutNoCID
	case reason == pdu.LogoutRecovery:
		code = pdu.LogoutNoRecovery
	default:
		code = pdu.LogoutCleanupFail
	}
	if code == pdu.LogoutDone {
		for _, t := range c.tasks {
			c.stop(t, true)
		}
		for c.busy > 0 && c.err == nil {
			c.wait()
		}
	}
	r := c.respond(pdu.LogoutResp, h.ITT(), true)
	r.SetResponseCode(code)
	r.SetLogoutTimes(uint16(c.params.time2Wait), uint16(c.params.time2Retain))
	if code != pdu.LogoutDone {
		return c.err
	}
	c.finishCommands()
	if c.err != nil {
		return c.err
	}
	return errLoggedOut
}
