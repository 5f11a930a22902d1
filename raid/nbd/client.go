package nbd

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Config names an export.
type Config struct {
	Socket  string
	Export  string
	Timeout time.Duration // of every request, and of a connection attempt; 0: 30 s
	Retry   time.Duration // between two attempts to connect; 0: 1 s

	// Check is called with a new connection in place of one that was lost: an
	// error says that it is not the same export. nil: none.
	Check func(read func(p []byte, off int64) error) error
}

// Errors that callers tell apart.
var (
	ErrClosed = errors.New("closed")
	ErrLost   = errors.New("the connection to the NBD server was lost with writes that nobody had flushed: no more writes until a restart")
)

// Client is an export. Its methods are safe for parallel calls.
type Client struct {
	cfg  Config
	size int64

	rewriting sync.Mutex   // held while a part of a block of the server's is written
	unflushed atomic.Int64 // writes that no flush has followed
	lost      atomic.Bool  // some of them may be

	mu     sync.Mutex
	conn   *conn     // guarded by mu; nil: there is none
	last   time.Time // guarded by mu: of an attempt to connect
	failed error     // guarded by mu: what became of it
	closed bool      // guarded by mu
}

// Dial connects to an export.
func Dial(cfg Config) (*Client, error) {
	if cfg.Timeout == 0 {
		cfg.Timeout = 30 * time.Second
	}
	if cfg.Retry == 0 {
		cfg.Retry = time.Second
	}
	c := &Client{cfg: cfg}
	n, err := c.connect()
	if err != nil {
		return nil, fmt.Errorf("NBD %s: %w", cfg.Socket, err)
	}
	c.conn, c.size = n, n.export.size
	return c, nil
}

func (c *Client) connect() (*conn, error) {
	nc, err := net.DialTimeout("unix", c.cfg.Socket, c.cfg.Timeout)
	if err != nil {
		return nil, err
	}
	nc.SetDeadline(time.Now().Add(c.cfg.Timeout))
	e, err := handshake(nc, c.cfg.Export)
	switch {
	case err != nil:
	case e.flags&canReadOnly != 0:
		err = errors.New("the export is read-only")
	case e.flags&(canFlush|canFUA) == 0:
		err = errors.New("the server can neither flush nor write through")
	}
	if err != nil {
		nc.Close()
		return nil, err
	}
	nc.SetDeadline(time.Time{})
	n := &conn{c: nc, export: e, timeout: c.cfg.Timeout, calls: map[uint64]*call{}}
	n.reading.Go(n.read)
	return n, nil
}

// get returns a connection that works, as far as is known.
func (c *Client) get() (*conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	if c.conn != nil {
		if !c.conn.broken.Load() {
			return c.conn, nil
		}
		c.conn.close()
		c.conn = nil
		c.lost.CompareAndSwap(false, c.unflushed.Load() > 0)
	}
	if c.failed != nil && time.Since(c.last) < c.cfg.Retry {
		return nil, c.failed
	}
	n, err := c.connect()
	if err == nil && n.export.size != c.size {
		err = fmt.Errorf("the export has %d bytes now and had %d", n.export.size, c.size)
	}
	if err == nil && c.cfg.Check != nil {
		err = c.cfg.Check(func(p []byte, off int64) error { return n.do(cmdRead, 0, p, nil, off, len(p)) })
	}
	if err != nil && n != nil {
		n.close()
	}
	c.last, c.failed = time.Now(), err
	if err != nil {
		return nil, err
	}
	c.conn = n
	return n, nil
}

func (c *Client) failure(what string, off, n int64, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %d+%d of NBD %s: %w", what, off, n, c.cfg.Socket, err)
}

// Size returns the length of the export in bytes.
func (c *Client) Size() int64 { return c.size }

// ReadAt fills p from off.
func (c *Client) ReadAt(p []byte, off int64) error {
	n, err := c.get()
	if err == nil {
		err = n.blocks(p, off, func(p []byte, off int64) error { return n.do(cmdRead, 0, p, nil, off, len(p)) })
	}
	return c.failure("read", off, int64(len(p)), err)
}

// blocks calls read for whole blocks of the server's that hold p.
func (n *conn) blocks(p []byte, off int64, read func(p []byte, off int64) error) error {
	first, end := off/n.export.minBlock*n.export.minBlock, off+int64(len(p))
	end = (end + n.export.minBlock - 1) / n.export.minBlock * n.export.minBlock
	if first != off || end != off+int64(len(p)) {
		whole := make([]byte, end-first)
		if err := n.split(whole, first, read); err != nil {
			return err
		}
		copy(p, whole[off-first:])
		return nil
	}
	return n.split(p, off, read)
}

// split calls f for parts of p that the server takes.
func (n *conn) split(p []byte, off int64, f func(p []byte, off int64) error) error {
	for {
		part := p[:min(int64(len(p)), n.export.maxBlock)]
		if err := f(part, off); err != nil {
			return err
		}
		if p, off = p[len(part):], off+int64(len(part)); len(p) == 0 {
			return nil
		}
	}
}

// writer returns a connection that may be written to, and counts the write before
// it begins.
func (c *Client) writer() (*conn, error) {
	n, err := c.get()
	if err != nil {
		return nil, err
	}
	if c.lost.Load() {
		return nil, ErrLost
	}
	if n.export.flags&canFlush != 0 {
		c.unflushed.Add(1)
	}
	return n, nil
}

// through is the flag of writes when the server cannot flush.
func (n *conn) through() uint16 {
	if n.export.flags&canFlush == 0 {
		return cmdFUA
	}
	return 0
}

// WriteAt writes p at off.
func (c *Client) WriteAt(p []byte, off int64) error {
	n, err := c.writer()
	if err == nil {
		err = c.write(n, p, off)
	}
	return c.failure("write", off, int64(len(p)), err)
}

func (c *Client) write(n *conn, p []byte, off int64) error {
	write := func(p []byte, off int64) error { return n.do(cmdWrite, n.through(), nil, p, off, len(p)) }
	block := n.export.minBlock
	if off%block == 0 && int64(len(p))%block == 0 {
		return n.split(p, off, write)
	}
	c.rewriting.Lock()
	defer c.rewriting.Unlock()
	first := off / block * block
	whole := make([]byte, (off+int64(len(p))+block-1)/block*block-first)
	if err := n.blocks(whole, first, func(p []byte, off int64) error { return n.do(cmdRead, 0, p, nil, off, len(p)) }); err != nil {
		return err
	}
	copy(whole[off-first:], p)
	return n.split(whole, first, write)
}

// zeroAtOnce is what one request makes zeros: a server that has to write them
// must have answered in time.
const zeroAtOnce = 64 << 20

// Zero makes [off, off+length) read as zeros. The server may give its space back.
func (c *Client) Zero(off, length int64) error {
	n, err := c.writer()
	for at, end := off, off+length; err == nil && at < end; {
		part := min(end-at, zeroAtOnce)
		switch block := n.export.minBlock; {
		case n.export.flags&canWriteZeroes == 0:
			part = min(part, int64(len(zeros)))
			err = c.write(n, zeros[:part], at)
		case at%block != 0:
			part = min(part, block-at%block)
			err = c.write(n, zeros[:part], at)
		case part < block:
			err = c.write(n, zeros[:part], at)
		default:
			part = part / block * block
			err = n.do(cmdWriteZeroes, n.through(), nil, nil, at, int(part))
		}
		at += part
	}
	return c.failure("zero", off, length, err)
}

var zeros = make([]byte, 1<<20)

// ZeroesFast tells whether the server has a way to make zeros.
func (c *Client) ZeroesFast() bool {
	n, err := c.get()
	return err == nil && n.export.flags&canWriteZeroes != 0
}

// Flush makes all writes durable that have returned.
func (c *Client) Flush() error {
	n, err := c.get()
	if err == nil && c.lost.Load() {
		err = ErrLost
	}
	if err == nil && n.export.flags&canFlush != 0 {
		writes := c.unflushed.Load()
		if err = n.do(cmdFlush, 0, nil, nil, 0, 0); err == nil {
			c.unflushed.Add(-writes)
		} else {
			c.lost.Store(true) // as after a failed fsync: what is there is not known
		}
	}
	return c.failure("flush", 0, c.size, err)
}

// Close ends the connection, in order.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	if c.conn != nil {
		c.conn.send(cmdDisconnect, 0, 0, 0, 0, nil)
		c.conn.close()
	}
	return nil
}

// conn is one connection.
type conn struct {
	c       net.Conn
	export  export
	timeout time.Duration
	reading sync.WaitGroup
	broken  atomic.Bool

	sending sync.Mutex // held while a request is written
	head    [requestSize]byte
	out     net.Buffers

	mu     sync.Mutex
	calls  map[uint64]*call // guarded by mu: in flight
	cookie uint64           // guarded by mu: of the last one
	looked time.Time        // guarded by mu: when the oldest call was looked for
	err    error            // guarded by mu: why the connection is broken
}

// call is a request in flight.
type call struct {
	into  []byte // of a read
	begun time.Time
	done  chan error
}

var callPool = sync.Pool{New: func() any { return &call{done: make(chan error, 1)} }}

// do does one request.
func (n *conn) do(cmd, flags uint16, into, data []byte, off int64, length int) error {
	k := callPool.Get().(*call)
	k.into = into
	n.mu.Lock()
	if n.err != nil {
		err := n.err
		n.mu.Unlock()
		return err
	}
	n.cookie++
	cookie := n.cookie
	k.begun = time.Now()
	n.calls[cookie] = k
	if len(n.calls) == 1 { // else the answer to another is waited for already
		n.c.SetReadDeadline(k.begun.Add(n.timeout))
	}
	n.mu.Unlock()
	if err := n.send(cmd, flags, cookie, off, length, data); err != nil {
		n.fail(err)
	}
	err := <-k.done
	k.into = nil
	callPool.Put(k)
	return err
}

// send writes one request.
func (n *conn) send(cmd, flags uint16, cookie uint64, off int64, length int, data []byte) error {
	n.sending.Lock()
	defer n.sending.Unlock()
	n.c.SetWriteDeadline(time.Now().Add(n.timeout))
	putRequest(n.head[:], flags, cmd, cookie, off, uint32(length))
	if len(data) == 0 {
		_, err := n.c.Write(n.head[:])
		return err
	}
	n.out = append(n.out[:0], n.head[:], data)
	out := n.out // WriteTo takes away what it has written
	_, err := out.WriteTo(n.c)
	n.out[0], n.out[1] = nil, nil
	return err
}

// read takes the answers.
func (n *conn) read() {
	var head [replySize]byte
	for {
		if _, err := io.ReadFull(n.c, head[:]); err != nil {
			n.fail(err)
			return
		}
		code, cookie, ok := getReply(head[:])
		n.mu.Lock()
		k := n.calls[cookie]
		delete(n.calls, cookie)
		if len(n.calls) > 0 || k != nil && len(k.into) > 0 {
			n.c.SetReadDeadline(time.Now().Add(n.timeout))
		} else {
			n.c.SetReadDeadline(time.Time{})
		}
		late := n.late()
		n.mu.Unlock()
		if late {
			n.fail(os.ErrDeadlineExceeded)
		}
		if !ok || k == nil {
			n.fail(errors.New("the server does not keep to the protocol"))
			if k != nil {
				k.done <- errors.New("the server does not keep to the protocol")
			}
			return
		}
		err := replyError(code)
		if err == nil && len(k.into) > 0 {
			if _, err := io.ReadFull(n.c, k.into); err != nil {
				n.fail(err)
				k.done <- err
				return
			}
			n.mu.Lock()
			if len(n.calls) == 0 {
				n.c.SetReadDeadline(time.Time{})
			}
			n.mu.Unlock()
		}
		k.done <- err
	}
}

// late tells whether a call has waited for too long while others were answered. It
// looks now and then. The caller holds mu.
func (n *conn) late() bool {
	now := time.Now()
	if now.Sub(n.looked) < n.timeout/4 {
		return false
	}
	n.looked = now
	for _, k := range n.calls {
		if now.Sub(k.begun) > n.timeout {
			return true
		}
	}
	return false
}

// fail ends the connection, and all requests in flight with it.
func (n *conn) fail(err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("the server has closed the connection")
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("the server does not answer within %v", n.timeout)
	}
	n.broken.Store(true)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err == nil {
		n.err = err
	}
	for cookie, k := range n.calls {
		delete(n.calls, cookie)
		k.done <- n.err
	}
	n.c.Close()
}

// close ends the connection and waits for its goroutine.
func (n *conn) close() {
	n.fail(ErrClosed)
	n.reading.Wait()
}
