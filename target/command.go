package target

import (
	"skylun/lun"
	"skylun/target/pdu"
)

const (
	maxCDB        = pdu.MaxCDB
	maxImmediates = 32 // immediate commands in flight
)

// command takes a SCSI command, RFC 7143 11.3.
func (c *conn) command(h *pdu.Header) error {
	t := c.spare
	t.itt, t.cmdSN, t.lun, t.edtl = h.ITT(), h.CmdSN(), h.LUN(), h.ExpectedLen()
	t.read, t.write, t.immediate = h.Flags()&pdu.FlagRead != 0, h.Flags()&pdu.FlagWrite != 0, h.Immediate()
	more, ok := pdu.ExtendedCDB(c.in.ahs)
	ok = ok && !(t.read && t.write)

	t.unit = c.sess.target.Units.Unit(t.lun)

	c.mu.Lock()
	verdict := c.win.take(h)
	if verdict == ignored {
		c.mu.Unlock()
		return nil
	}
	if reason := c.refusal(t); reason != 0 {
		first := verdict != early || c.win.keep(c.sess, t.cmdSN, earlyEntry{})
		if verdict != early && !t.immediate {
			c.win.credit()
		}
		c.mu.Unlock()
		if !first {
			return nil
		}
		return c.reject(h, reason)
	}
	if verdict == early && !c.keepEarly(t) {
		c.mu.Unlock()
		return nil
	}
	c.hand, t.used = t, true
	if t.immediate {
		c.immediates++
	}
	c.count.Commands++
	need := t.need()
	wait := need > 0 && ok && (len(c.parked) > 0 || !c.acct.admits(need))
	c.mu.Unlock()

	cdb := t.cdb[:copy(t.cdb[:], h.CDB())]
	if len(more) > 0 {
		cdb = t.cdb[:16+copy(t.cdb[16:], more)]
	}
	t.cmd.CDB, t.cmd.Nexus, t.cmd.Alloc = cdb, c.sess.nexus, t
	if t.read {
		t.cmd.InLimit = int(t.edtl)
	}
	switch {
	case !ok:
		t.fail(senseInvalidUnit)
		return c.finishInline(t)
	case t.write && t.edtl > 0 || c.in.data > 0:
		return c.writeCommand(h, t)
	case wait, t.cameEarly:
		c.mu.Lock()
		defer c.mu.Unlock()
		c.list(t)
		c.spare = c.newTask()
		if t.used = false; t.stopped {
			c.finishStopped(t)
		} else {
			c.proceed(t)
		}
		return c.err
	}
	return c.execute(t, need)
}

// refusal returns why a command that has its turn is not taken, or 0. c.mu is
// held.
func (c *conn) refusal(t *task) pdu.RejectReason {
	if t.itt == pdu.NoTag {
		return pdu.RejectInvalidField
	}
	if len(c.tasks) > 0 && c.tasks[t.itt] != nil {
		return pdu.RejectInProgress
	}
	if t.immediate && c.immediates >= maxImmediates {
		return pdu.RejectTooMany
	}
	return 0
}

// execute lets the unit have t: at once if that takes no waiting, else by a
// worker. Its data has arrived; need is the memory it is going to take. The
// reader calls it for tasks that nobody else uses.
func (c *conn) execute(t *task, need int64) error {
	if !t.cameEarly && c.try(t) {
		return c.finishInline(t)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !t.listed {
		c.list(t)
		c.spare = c.newTask()
	}
	if t.early { // it has to wait, and is gone if it was aborted
		if t.used = false; t.stopped {
			c.finishStopped(t)
		}
		return c.err
	}
	if !t.admitted {
		t.admitted = true
		c.charge(t, need)
	}
	c.dispatch(t)
	return c.err
}

// try calls the unit's Try.
func (c *conn) try(t *task) (done bool) {
	defer func() {
		if p := recover(); p != nil {
			t.panicked(p)
			done = true
		}
	}()
	return t.unit.Try(&t.cmd)
}

// finishInline ends a task that the reader has executed. Its answer leaves
// when no more requests are in the input buffer.
func (c *conn) finishInline(t *task) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count.Inline++
	c.finish(t)
	if c.next.bytes >= flushSize {
		c.flush()
		c.drainOutput(queueSize)
	}
	return c.err
}

// park lets t wait for memory. c.mu is held.
func (c *conn) park(t *task) {
	c.parked = append(c.parked, t)
	c.admitParked()
}

// admitParked lets tasks go on for which there is memory now, in order. What
// it appends to the next batch is for the caller to flush. c.mu is held.
func (c *conn) admitParked() {
	for len(c.parked) > 0 && c.err == nil && !c.draining {
		t := c.parked[0]
		need := bufferSize(int(min(t.edtl, uint32(c.srv.cfg.MaxTransfer)))) // of Data-In or Data-Out
		if !c.acct.admits(need - t.charge) {
			return
		}
		c.parked = c.parked[:copy(c.parked, c.parked[1:])]
		c.acct.parked -= t.charge
		t.admitted = true
		c.charge(t, need)
		if t.write {
			c.solicit(t)
		} else {
			c.dispatch(t)
		}
	}
}

// charge counts t with n bytes. c.mu is held.
func (c *conn) charge(t *task, n int64) {
	c.acct.add(n - t.charge)
	t.charge = n
}

// Sense data of conditions that arise in the transport, RFC 7143 11.4.7.2 and
// SPC-4 4.5.
var (
	senseUnexpectedData  = fixedSense(0x0b, 0x0c, 0x0c) // ABORTED COMMAND, unexpected unsolicited data
	senseIncorrectAmount = fixedSense(0x0b, 0x0c, 0x0d) // ABORTED COMMAND, not enough unsolicited data
	senseCRC             = fixedSense(0x0b, 0x47, 0x05) // ABORTED COMMAND, protocol service CRC error
	senseInvalidUnit     = fixedSense(0x05, 0x0e, 0x03) // ILLEGAL REQUEST, invalid field in command information unit
	senseInternal        = fixedSense(0x04, 0x44, 0x00) // HARDWARE ERROR, internal target failure
)

// fixedSense returns sense data in fixed format, SPC-4 4.5.3.
func fixedSense(key, asc, ascq byte) []byte {
	return []byte{0: 0x70, 2: key, 7: 10, 12: asc, 13: ascq, 17: 0}
}

// fail ends the command with CHECK CONDITION. Nothing counts as transferred.
func (t *task) fail(sense []byte) {
	t.cmd.Status, t.cmd.Sense = lun.StatusCheckCondition, sense
	t.cmd.In, t.cmd.Transfer = nil, 0
}
