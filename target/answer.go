package target

import (
	"math"

	"skylun/lun"
	"skylun/target/pdu"
)

// answer appends the answer of a command that has ended: Data-In PDUs, the
// last of which carries the status if it is GOOD, else a SCSI response.
// c.mu is held.
func (c *conn) answer(t *task) {
	cmd := &t.cmd
	in := cmd.In
	if limit := cmd.InLimit; len(in) > limit {
		in = in[:limit]
	}
	flags, residual := t.residual(len(in))
	var dataSN uint32
	if len(in) > 0 {
		c.count.BytesRead += uint64(len(in))
		collapse := cmd.Status == lun.StatusGood
		last := c.dataIn(t, in, &dataSN, collapse)
		for _, b := range t.in {
			c.next.keep(b)
		}
		if collapse {
			last.SetFlags(pdu.FlagFinal | pdu.FlagStatus | flags)
			last.SetResidual(residual)
			return
		}
	} else {
		for _, b := range t.in {
			c.acct.add(-int64(len(b.data)))
			c.srv.buffers.put(b)
		}
	}
	if t.write {
		dataSN = t.transfer.r2tSN
	}
	h := c.respond(pdu.SCSIResponse, t.itt, true)
	h.SetFlags(pdu.FlagFinal | flags)
	h.SetSCSIStatus(byte(cmd.Status))
	h.SetDataSN(dataSN)
	h.SetResidual(residual)
	if n := len(cmd.Sense); n > 0 {
		var p [2 + lun.MaxSense]byte
		n = copy(p[2:], cmd.Sense)
		p[0], p[1] = byte(n>>8), byte(n)
		h.SetDataLen(2 + n)
		c.next.copy(p[:2+n])
	}
}

// dataIn appends Data-In PDUs with all of p, RFC 7143 11.7, and returns the
// header of the last. With status, that gets a StatSN. A sequence ends, with
// the F bit, at MaxBurstLength. c.mu is held.
func (c *conn) dataIn(t *task, p []byte, dataSN *uint32, status bool) *pdu.Header {
	burst := 0
	for off := 0; ; {
		n := min(len(p), c.params.maxSend, c.params.maxBurst-burst)
		last := n == len(p)
		h := c.respond(pdu.DataIn, t.itt, last && status)
		if burst += n; burst < c.params.maxBurst && !last {
			h.SetFlags(0)
		} else {
			burst = 0
		}
		if !(last && status) {
			h.SetStatSN(0) // reserved when there is no status
		}
		h.SetTTT(pdu.NoTag)
		h.SetDataLen(n)
		h.SetDataSN(*dataSN)
		h.SetOffset(uint32(off))
		*dataSN++
		c.next.data(p[:n])
		if p = p[n:]; last {
			return h
		}
		off += n
	}
}

// residual returns the O and U bits and the residual count of a command that
// moved in bytes of Data-In, 11.4.5. Units say in Transfer what the command
// wanted to move.
func (t *task) residual(in int) (flags byte, count uint32) {
	expected, moved := int64(0), int64(0)
	switch {
	case t.read:
		expected, moved = int64(t.edtl), int64(in)
	case t.write:
		expected, moved = int64(t.edtl), min(t.cmd.Transfer, int64(t.edtl))
	}
	switch {
	case t.cmd.Transfer > expected:
		return pdu.FlagOverflow, uint32(min(t.cmd.Transfer-expected, math.MaxUint32))
	case moved < expected:
		return pdu.FlagUnderflow, uint32(expected - moved)
	}
	return 0, 0
}
