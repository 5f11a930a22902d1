package target

import (
	"fmt"
	"hash/crc32"

	"skylun/target/pdu"
)

const (
	maxRecvData = 256 << 10 // our MaxRecvDataSegmentLength

	// inputSize is the length of the input buffer: any PDU, and some more
	// headers.
	inputSize = pdu.HeaderSize + pdu.MaxAHS + maxRecvData + 2*pdu.DigestSize + 16<<10

	directSize = 64 << 10 // payload that is missing, if it is so much, is read where it belongs
	followSize = 16 << 10 // what is read with it of that which follows
)

// input is the receiving end of a connection, used by its reader only. The
// bytes buf[r:w] have been read from the socket and not been looked at. A PDU
// is taken off it header first; its data segment is then either used where it
// lies or moved to where it belongs, and in the second case what has not
// arrived yet is read there directly.
type input struct {
	buf  []byte
	r, w int
	hdr  pdu.Header // of the PDU at hand, a copy: buf moves
	ahs  []byte     // its additional header segments, also a copy
	data int        // bytes of its data segment that have not been taken
	pad  int        // and of the padding
	sum  uint32     // checksum of what has been taken of the data segment

	headerDigest, dataDigest bool // what PDUs have
	digest                   int  // bytes of the data digest of the PDU at hand that have not been taken

	// brief keeps fill from reading far ahead: data is to be expected that
	// belongs elsewhere.
	brief bool
}

// buffered returns how many bytes wait in the buffer.
func (in *input) buffered() int { return in.w - in.r }

// fill reads until n bytes, at most len(buf), wait in the buffer.
func (c *conn) fill(n int) error {
	in := &c.in
	for in.w-in.r < n {
		idle, err := c.beforeRead()
		if err != nil {
			return err
		}
		if in.r == in.w {
			in.r, in.w = 0, 0
		} else if len(in.buf)-in.r < n || len(in.buf)-in.w < followSize {
			in.w = copy(in.buf, in.buf[in.r:in.w])
			in.r = 0
		}
		end := len(in.buf)
		if in.brief {
			end = min(end, in.r+max(n, followSize))
		}
		m, err := c.sock.read(in.buf[in.w:end], nil, idle)
		c.reads.Add(1)
		in.w += m
		if err != nil {
			return err
		}
	}
	return nil
}

// beforeRead lets the answers that are due leave before the reader waits for
// the peer. It tells whether the workers have nothing to do.
func (c *conn) beforeRead() (idle bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flush()
	c.in.brief = c.r2ts > 0
	return c.busy == 0, c.err
}

// nextPDU takes the header of the next PDU off the input, with its additional
// header segments. limit is the most data it may announce.
func (c *conn) nextPDU(limit int) (*pdu.Header, error) {
	in := &c.in
	if err := c.fill(pdu.HeaderSize); err != nil {
		return nil, err
	}
	in.hdr = *pdu.FromBytes(in.buf[in.r:])
	in.r += pdu.HeaderSize
	h := &in.hdr
	in.data, in.sum, in.digest = h.DataLen(), 0, 0
	tooLong := in.data > limit
	if !tooLong || in.headerDigest { // a digest tells which error it is
		if err := c.moreHeader(); err != nil {
			return nil, err
		}
	}
	if tooLong {
		return nil, fmt.Errorf("%w: %v with a data segment of %d bytes, the limit is %d", errProtocol, h.Opcode(), in.data, limit)
	}
	in.pad = pdu.Padded(in.data) - in.data
	if in.dataDigest && in.data > 0 {
		in.digest = pdu.DigestSize
	}
	return h, nil
}

// moreHeader takes what may follow the basic header: additional header
// segments, and a digest.
func (c *conn) moreHeader() error {
	in := &c.in
	in.ahs = in.ahs[:0]
	n := in.hdr.AHSLen()
	all := n
	if in.headerDigest {
		all += pdu.DigestSize
	}
	if all == 0 {
		return nil
	}
	if err := c.fill(all); err != nil {
		return err
	}
	tail := in.buf[in.r : in.r+all]
	in.r += all
	in.ahs = append(in.ahs, tail[:n]...)
	if in.headerDigest && !goodDigest(tail, crc32.Checksum(in.hdr[:], castagnoli)) {
		return errHeaderDigest
	}
	return nil
}

// inPlace tells whether payload should be called, not receive: the data
// segment is in the buffer, or so little is missing that it is better read
// together with what follows.
func (in *input) inPlace() bool { return in.data-in.buffered() < directSize }

// payload takes the data segment, where it lies in the buffer. It is valid
// until the next PDU is asked for.
func (c *conn) payload() ([]byte, error) {
	in := &c.in
	n, all := in.data, in.data+in.pad+in.digest
	if err := c.fill(all); err != nil {
		return nil, err
	}
	p := in.buf[in.r : in.r+n : in.r+n]
	tail := in.buf[in.r+n : in.r+all]
	in.r += all
	digest := in.digest > 0
	in.data, in.pad, in.digest = 0, 0, 0
	if digest && !goodDigest(tail, crc32.Checksum(p, castagnoli)) {
		return nil, errDataDigest
	}
	return p, nil
}

// receive takes the data segment into p, which has its length.
func (c *conn) receive(p []byte) error {
	in := &c.in
	n := copy(p, in.buf[in.r:in.w])
	in.r += n
	in.passed(p[:n])
	for n < len(p) { // and so the buffer is empty
		idle, err := c.beforeRead()
		if err != nil {
			return err
		}
		m, err := c.sock.read(p[n:], in.buf[:min(len(in.buf), followSize)], idle)
		c.reads.Add(1)
		in.r, in.w = 0, max(0, m-(len(p)-n))
		m -= in.w
		in.passed(p[n : n+m])
		n += m
		if err != nil {
			return err
		}
	}
	return c.skip()
}

// passed takes note of a part of the data segment that was taken.
func (in *input) passed(p []byte) {
	in.data -= len(p)
	if in.dataDigest {
		in.sum = crc32.Update(in.sum, castagnoli, p)
	}
}

// skip drops what has not been taken of the PDU at hand.
func (c *conn) skip() error {
	in := &c.in
	for in.data > 0 {
		if in.buffered() == 0 {
			if err := c.fill(1); err != nil {
				return err
			}
		}
		n := min(in.buffered(), in.data)
		in.passed(in.buf[in.r : in.r+n])
		in.r += n
	}
	n := in.pad + in.digest
	if n == 0 {
		return nil
	}
	if err := c.fill(n); err != nil {
		return err
	}
	tail := in.buf[in.r : in.r+n]
	in.r += n
	digest := in.digest > 0
	in.pad, in.digest = 0, 0
	if digest && !goodDigest(tail, in.sum) {
		return errDataDigest
	}
	return nil
}
