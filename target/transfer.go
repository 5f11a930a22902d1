package target

import (
	"skylun/target/pdu"
)

// How Data-Out reaches a write command, RFC 7143 4.2.5.2 and 4.4.6:
//
//	0            immediate     first burst                            want    edtl
//	|--in the command--|--unsolicited--|--R2T 0--|--R2T 1--| ...  --|...not taken|
//
// Immediate and unsolicited data come when the initiator likes; they are
// bounded by FirstBurstLength. The rest comes when an R2T asks for it, and that
// is sent only when there is memory. No more than want bytes are asked for: a
// unit refuses commands that need more than MaxTransfer, and is asked with that
// much.

const maxR2T = 8 // our MaxOutstandingR2T

// transfer is the state of the Data-Out of a task.
type transfer struct {
	want      uint32 // bytes to be gathered
	got       uint32 // unsolicited bytes received, including immediate ones
	open      bool   // unsolicited Data-Out PDUs are still to come
	dataSN    uint32 // of the next unsolicited Data-Out PDU
	solicited uint32 // R2Ts have been sent up to here
	r2tSN     uint32 // of the next R2T
	active    int    // R2Ts that have not been answered completely
	spoiled   bool   // data with a bad digest has come: the task ends when all that is on its way has
	r2t       [maxR2T]r2t
}

// r2t is the answer to an R2T on its way: Data-Out PDUs that arrive in order
// (DataPDUInOrder=Yes).
type r2t struct {
	active    bool
	ttt       uint32
	next, end uint32 // offsets within the command's buffer
	dataSN    uint32 // of the next Data-Out PDU
}

// writeCommand takes a command that comes with data or is going to.
func (c *conn) writeCommand(h *pdu.Header, t *task) error {
	n := uint32(c.in.data)
	x := &t.transfer
	x.want = min(t.edtl, uint32(c.srv.cfg.MaxTransfer))
	x.open = !h.Final()
	first := min(t.edtl, uint32(c.params.firstBurst))
	switch {
	case !t.write, n > 0 && !c.params.immediateData, x.open && c.params.initialR2T:
		t.fail(senseUnexpectedData)
		return c.finishInline(t)
	case n > first:
		t.fail(senseIncorrectAmount)
		return c.finishInline(t)
	case n > x.want: // more than a command may transfer
		x.want = n
	}

	if n == x.want && c.in.inPlace() && !t.cameEarly { // all of it: the unit takes it from the input buffer
		data, err := c.payload()
		if err == errDataDigest {
			if err := c.reject(h, pdu.RejectDataDigest); err != nil {
				return err
			}
			return c.failTransfer(t, senseCRC)
		}
		if err != nil {
			return err
		}
		t.cmd.Out = data
		c.countIn(n)
		if c.try(t) {
			return c.finishInline(t)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.list(t)
		c.spare = c.newTask()
		t.out = c.srv.buffers.get(int(n))
		t.cmd.Out = t.out.data[:copy(t.out.data, data)]
		t.admitted = true
		c.charge(t, bufferSize(int(n)))
		c.dispatch(t)
		return c.err
	}

	// From here on the task is in the table; used keeps it there.
	unsolicited := n
	if x.open {
		unsolicited = max(n, min(first, x.want))
	}
	c.mu.Lock()
	c.list(t)
	c.spare = c.newTask()
	if need := bufferSize(int(x.want)); len(c.parked) == 0 && c.acct.admits(need) || unsolicited == x.want {
		t.admitted = true
		t.out = c.srv.buffers.get(int(x.want))
		c.charge(t, need)
	} else if unsolicited > 0 {
		t.out = c.srv.buffers.get(int(unsolicited))
		c.charge(t, int64(len(t.out.data)))
		c.acct.parked += t.charge
	}
	c.mu.Unlock()
	if n > 0 {
		if err := c.receiveFor(h, t, t.out.data[:n]); err != nil {
			return err
		}
		x.got = n
	}
	return c.gathered(t)
}

// receiveFor takes the data segment of h, which belongs to t, into p. A bad
// digest spoils t.
func (c *conn) receiveFor(h *pdu.Header, t *task, p []byte) error {
	err := c.receive(p)
	if err == errDataDigest {
		t.transfer.spoiled = true
		err = c.reject(h, pdu.RejectDataDigest)
	}
	c.countIn(uint32(len(p)))
	return err
}

// countIn counts n bytes of Data-Out.
func (c *conn) countIn(n uint32) {
	c.mu.Lock()
	c.count.BytesWrite += uint64(n)
	c.mu.Unlock()
}

// gathered lets t go on after some of its data has arrived. The reader calls
// it; t.used is set.
func (c *conn) gathered(t *task) error {
	x := &t.transfer
	if x.got == x.want && x.open {
		x.open = false // the F bit of the last one is missing, or is still to come in an empty one
	}
	if x.spoiled && !x.open && x.active == 0 {
		return c.failTransfer(t, senseCRC)
	}
	c.mu.Lock()
	if t.stopped {
		c.finishStopped(t)
		c.mu.Unlock()
		return nil
	}
	if t.complete() {
		c.mu.Unlock()
		if x.want > 0 {
			t.cmd.Out = t.out.data[:x.want]
		}
		return c.execute(t, 0)
	}
	defer c.mu.Unlock()
	t.used = false
	c.proceed(t)
	return c.err
}

// solicit sends the R2Ts for an admitted task that may be outstanding now,
// 11.8. c.mu is held.
func (c *conn) solicit(t *task) {
	x := &t.transfer
	if x.solicited == 0 {
		x.solicited = x.got
	}
	if t.out == nil || len(t.out.data) < int(x.want) {
		b := c.srv.buffers.get(int(x.want))
		if t.out != nil {
			copy(b.data, t.out.data[:x.got])
			c.srv.buffers.put(t.out)
		}
		t.out = b
	}
	for i := 0; i < c.params.maxR2T && x.solicited < x.want; i++ {
		r := &x.r2t[i]
		if r.active {
			continue
		}
		n := min(x.want-x.solicited, uint32(c.params.maxBurst))
		*r = r2t{active: true, ttt: c.nextTTT(), next: x.solicited, end: x.solicited + n}
		h := c.respond(pdu.R2T, t.itt, false)
		h.SetLUN(t.lun)
		h.SetTTT(r.ttt)
		h.SetDataSN(x.r2tSN)
		h.SetOffset(x.solicited)
		h.SetDesiredLen(n)
		x.r2tSN++
		x.active++
		c.r2ts++
		x.solicited += n
	}
}

// dataOut takes a Data-Out PDU, 11.7. One that belongs to no task is dropped:
// its task has ended, because of an error or an abort, while it was on its way.
// The LUN field is not looked at; some initiators do not set it.
func (c *conn) dataOut(h *pdu.Header) error {
	c.mu.Lock()
	t := c.tasks[h.ITT()]
	if t == nil || !t.write || t.used {
		c.mu.Unlock()
		return nil
	}
	t.used = true
	c.unpark(t) // one that is there is not to get data, and ends below
	c.mu.Unlock()

	x := &t.transfer
	n := uint32(c.in.data)
	if !x.open && !t.admitted {
		return c.failTransfer(t, senseUnexpectedData)
	}
	if h.TTT() == pdu.NoTag {
		limit := min(t.edtl, uint32(c.params.firstBurst), x.want)
		switch {
		case !x.open:
			return c.failTransfer(t, senseUnexpectedData)
		case h.Offset() != x.got, h.DataSN() != x.dataSN, n > limit-x.got:
			return c.failTransfer(t, senseIncorrectAmount)
		}
		if err := c.receiveFor(h, t, t.out.data[x.got:x.got+n]); err != nil {
			return err
		}
		x.got += n
		x.dataSN++
		x.open = !h.Final()
		return c.gathered(t)
	}

	r := x.find(h.TTT())
	if r == nil { // of an earlier use of the task tag
		return c.gathered(t)
	}
	if h.Offset() != r.next || h.DataSN() != r.dataSN || n > r.end-r.next || h.Final() && n < r.end-r.next {
		return c.failTransfer(t, senseIncorrectAmount)
	}
	if err := c.receiveFor(h, t, t.out.data[r.next:r.next+n]); err != nil {
		return err
	}
	r.next += n
	r.dataSN++
	if r.next == r.end {
		c.mu.Lock()
		r.active = false
		x.active--
		c.r2ts--
		c.mu.Unlock()
	}
	return c.gathered(t)
}

// find returns the R2T with that tag that has not been answered completely.
func (x *transfer) find(ttt uint32) *r2t {
	for i := range x.r2t {
		if r := &x.r2t[i]; r.active && r.ttt == ttt {
			return r
		}
	}
	return nil
}

// failTransfer ends a task whose data did not come as it should. What is still
// on its way is dropped when it arrives.
func (c *conn) failTransfer(t *task, sense []byte) error {
	t.fail(sense)
	return c.finishInline(t)
}
