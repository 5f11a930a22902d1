package target

import (
	"sync/atomic"

	"skylun/lun"
)

// abort stops tasks and waits until none of them can have any further effect.
type abort struct {
	srv  *Server
	left atomic.Int32 // tasks that are not gone, and one until all have been found
	end  func()       // called once, without locks, when they are gone
}

// newAbort returns an abort to which tasks can be added until found is
// called.
func newAbort(s *Server, end func()) *abort {
	a := &abort{srv: s, end: end}
	a.left.Store(1)
	return a
}

// found says that there are no more tasks to stop. The caller holds no lock.
func (a *abort) found() {
	if a.left.Add(-1) == 0 {
		a.end()
	}
}

// oneGone tells a that one of its tasks has ended. The mutex of the task's
// connection is held.
func (a *abort) oneGone() {
	if a.left.Add(-1) == 0 {
		a.srv.wg.Go(a.end)
	}
}

// stop stops the tasks of a session that match, and tells whether there are
// any. Those that their own session aborts get no answer. Of those that
// another one aborts the unit says how they end: with TASK ABORTED, or without
// an answer and with a unit attention for their nexus, SAM-5 5.3.1.
func (a *abort) stop(s *session, match func(*task) bool, byOther bool) (found bool) {
	for _, c := range s.connections() {
		cleared, any := a.stopOn(c, match, byOther)
		found = found || any
		for _, u := range cleared {
			lun.CommandsCleared(u, s.nexus)
		}
	}
	return found
}

// stopOn is stop for one connection. It returns the units whose commands got
// no answer because another session has aborted them.
func (a *abort) stopOn(c *conn, match func(*task) bool, byOther bool) (cleared []lun.Unit, found bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	one := func(t *task) {
		if !match(t) {
			return
		}
		found = true
		silent := true
		if byOther {
			r, ok := t.unit.(lun.AbortReporter)
			silent = ok && !r.ReportsAborts()
			if silent {
				cleared = append(cleared, t.unit)
			}
		}
		a.left.Add(1)
		t.reported = append(t.reported, a)
		c.stop(t, silent)
	}
	if c.hand != nil {
		one(c.hand)
	}
	for _, t := range c.tasks {
		one(t)
	}
	if found {
		c.aside(c.flushLocked)
	}
	return cleared, found
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
