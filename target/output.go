package target

import (
	"hash/crc32"

	"skylun/target/pdu"
)

// How PDUs leave a connection.
//
// PDUs are appended to a batch, the next one to be written, under the
// connection's mutex; that is where they get their StatSN, so they have it in
// the order in which they leave. At most one goroutine at a time is the writer: it takes the
// batch away, puts an empty one in its place, writes without the mutex, and
// goes on until it finds the batch empty. Whoever finds a writer at work when
// it has appended something leaves it to the writer. The reader of the
// connection appends without writing as long as it has more requests in its
// input buffer, so that many answers leave in one system call.
//
//	reader   --append-->  +-------+           +-------+
//	workers  --append-->  | next  |  --swap-> | being | --writev--> socket
//	pings    --append-->  +-------+           | sent  |
//	                                          +-------+

const (
	chunkSize = 8 << 10   // of the memory that headers are written into
	keepVec   = 4 << 10   // vectors longer than this are not kept for reuse
	keepChunk = 8         // nor are more chunks than this
	writeSize = 256 << 10 // bytes of one write call, so that progress can be seen
	flushSize = 256 << 10 // the reader does not collect more than this
	queueSize = 1 << 20   // the reader waits when more than this is waiting to leave
)

// batch is a sequence of PDUs that leave together: headers and short data in
// chunks of its own, longer data in the buffers that they were read into.
type batch struct {
	vec    [][]byte  // all bytes, in order
	bytes  int       // length of vec
	chunks [][]byte  // memory of headers
	used   int       // chunks in use
	free   []byte    // the rest of the last chunk in use
	open   bool      // the last element of vec ends where free begins
	bufs   []*buffer // to be given back when the batch has left
	held   int64     // size of bufs

	inventory bool // one of the PDUs tells that the inventory has changed

	headerDigest, dataDigest bool // what PDUs have
	headerSums               []headerSum
	dataSums                 []dataSum
}

// grow appends n bytes, n at most chunkSize, and returns them to be written.
func (b *batch) grow(n int) []byte {
	if len(b.free) < n {
		if b.used == len(b.chunks) {
			b.chunks = append(b.chunks, make([]byte, chunkSize))
		}
		b.free = b.chunks[b.used]
		b.used++
		b.open = false
	}
	p := b.free[:n]
	b.free = b.free[n:]
	if b.open {
		last := &b.vec[len(b.vec)-1]
		*last = (*last)[:len(*last)+n]
	} else {
		b.vec = append(b.vec, p)
		b.open = true
	}
	b.bytes += n
	return p
}

// header appends a zeroed header.
func (b *batch) header() *pdu.Header {
	n := pdu.HeaderSize
	if b.headerDigest {
		n += pdu.DigestSize
	}
	p := b.grow(n)
	h := pdu.FromBytes(p)
	*h = pdu.Header{}
	if b.headerDigest {
		b.headerSums = append(b.headerSums, headerSum{p[:pdu.HeaderSize], p[pdu.HeaderSize:]})
	}
	return h
}

// data appends p itself, padding and digest. p must not change until the batch
// has left.
func (b *batch) data(p []byte) {
	if len(p) == 0 {
		return
	}
	b.vec = append(b.vec, p)
	b.bytes += len(p)
	b.open = false
	if tail := b.tail(len(p)); b.dataDigest {
		b.dataSums = append(b.dataSums, dataSum{p, tail})
	}
}

// copy appends the bytes of p, padding and digest.
func (b *batch) copy(p []byte) {
	if len(p) == 0 {
		return
	}
	for rest := p; len(rest) > 0; {
		rest = rest[copy(b.grow(min(len(rest), chunkSize)), rest):]
	}
	if tail := b.tail(len(p)); b.dataDigest {
		putDigest(tail, crc32.Checksum(p, castagnoli))
	}
}

// tail appends what follows n bytes of data: padding to a multiple of 4, and
// room for the digest.
func (b *batch) tail(n int) []byte {
	n = pdu.Padded(n) - n
	if b.dataDigest {
		n += pdu.DigestSize
	}
	if n == 0 {
		return nil
	}
	p := b.grow(n)
	clear(p)
	return p
}

// keep lets the batch give buf back when it has left.
func (b *batch) keep(buf *buffer) {
	b.bufs = append(b.bufs, buf)
	b.held += int64(len(buf.data))
}

// reset makes b empty, and gives its buffers to pool.
func (b *batch) reset(pool *bufferPool) {
	for i, buf := range b.bufs {
		pool.put(buf)
		b.bufs[i] = nil
	}
	clear(b.vec)
	if cap(b.vec) > keepVec {
		b.vec, b.bufs = nil, nil
	}
	if len(b.chunks) > keepChunk {
		b.chunks = append([][]byte(nil), b.chunks[:keepChunk]...)
	}
	clear(b.dataSums)
	if cap(b.dataSums) > keepVec {
		b.dataSums, b.headerSums = nil, nil
	}
	*b = batch{
		vec: b.vec[:0], chunks: b.chunks, bufs: b.bufs[:0],
		headerDigest: b.headerDigest, dataDigest: b.dataDigest, headerSums: b.headerSums[:0], dataSums: b.dataSums[:0],
	}
}

// flush writes what is queued, and what can go on now that there is memory
// again, unless somebody else is at it. c.mu is held; it is released while
// writing.
func (c *conn) flush() {
	if c.writing {
		return
	}
	c.writing = true
	for c.admitParked(); c.next.bytes > 0 && c.err == nil; c.admitParked() {
		b := c.next
		c.next, c.spareBatch = c.spareBatch, nil
		c.mu.Unlock()
		err := c.write(b)
		held := b.held
		b.reset(&c.srv.buffers)
		c.mu.Lock()
		c.spareBatch = b
		c.acct.add(-held)
		if err != nil {
			c.fail(err)
			break
		}
		c.wake()
	}
	c.writing = false
	c.wake()
}

// write writes b.
func (c *conn) write(b *batch) error {
	b.sum()
	for vec := b.vec; len(vec) > 0; {
		n, size := 0, 0
		for n < len(vec) && size < writeSize {
			size += len(vec[n])
			n++
		}
		if err := c.sock.write(vec[:n]); err != nil {
			return err
		}
		c.writes.Add(1)
		vec = vec[n:]
	}
	return nil
}

// drainOutput lets the reader wait until no more than limit bytes are queued.
// A peer that does not read is not read from. c.mu is held.
func (c *conn) drainOutput(limit int) {
	for c.next.bytes > limit && c.err == nil {
		if c.flush(); c.next.bytes > limit && c.err == nil {
			c.wait()
		}
	}
}
