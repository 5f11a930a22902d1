package target

import (
	"fmt"

	"skylun/target/pdu"
)

const (
	maxRecvData = 256 << 10 // our MaxRecvDataSegmentLength

	// inputSize is the length of the input buffer: any PDU, and some more
	// headers.
	inputSize = pdu.HeaderSize + pdu.MaxAHS + maxRecvData + 16<<10

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
	in.data = h.DataLen()
	if in.data > limit {
		return nil, fmt.Errorf("%w: %v with a data segment of %d bytes, the limit is %d", errProtocol, h.Opcode(), in.data, limit)
	}
	in.pad = pdu.Padded(in.data) - in.data
	in.ahs = in.ahs[:0]
	if n := h.AHSLen(); n > 0 {
		if err := c.fill(n); err != nil {
			return nil, err
		}
		in.ahs = append(in.ahs, in.buf[in.r:in.r+n]...)
		in.r += n
	}
	return h, nil
}

// inPlace tells whether payload should be called, not receive: the data
// segment is in the buffer, or so little is missing that it is better read
// together with what follows.
func (in *input) inPlace() bool { return in.data-in.buffered() < directSize }

// payload takes the data segment, where it lies in the buffer. It is valid
// until the next PDU is asked for.
func (c *conn) payload() ([]byte, error) {
	in := &c.in
	n, all := in.data, in.data+in.pad
	if err := c.fill(all); err != nil {
		return nil, err
	}
	p := in.buf[in.r : in.r+n : in.r+n]
	in.r += all
	in.data, in.pad = 0, 0
	return p, nil
}

// receive takes the data segment into p, which has its length.
func (c *conn) receive(p []byte) error {
	in := &c.in
	n := copy(p, in.buf[in.r:in.w])
	in.r += n
	in.data -= n
	for n < len(p) { // and so the buffer is empty
		idle, err := c.beforeRead()
		if err != nil {
			return err
		}
		m, err := c.sock.read(p[n:], in.buf[:min(len(in.buf), followSize)], idle)
		c.reads.Add(1)
		in.r, in.w = 0, max(0, m-(len(p)-n))
		m -= in.w
		n += m
		in.data -= m
		if err != nil {
			return err
		}
	}
	return c.skip()
}

// skip drops what has not been taken of the PDU at hand.
func (c *conn) skip() error {
	in := &c.in
	for in.data+in.pad > 0 {
		if in.buffered() == 0 {
			if err := c.fill(1); err != nil {
				return err
			}
		}
		n := min(in.buffered(), in.data+in.pad)
		in.r += n
		fromData := min(n, in.data)
		in.data -= fromData
		in.pad -= n - fromData
	}
	return nil
}
