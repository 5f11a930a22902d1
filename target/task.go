package target

import (
	"slices"

	"skylun/lun"
)

// A task is a SCSI command on its way, RFC 7143 4.4.
//
//	            +--------------- all data came with it ----------------+
//	            |                                                      v
//	command --> | write: gathering --> parked --> soliciting --> Try by the reader --> answer
//	            |  unsolicited data   no memory   R2T, Data-Out        |                 ^
//	            | read: --> parked ----------------------------+       v                 |
//	            |            no memory                         +--> worker: Execute -----+
//	            +--> Try
//
// A command that came before its turn gathers, and waits before what comes then
// (early.go). Most commands end in Try and are never in the connection's table; their task
// is used again for the next command at once. A task that has to wait, for
// data, for memory or for its unit, goes into the table, where Data-Out PDUs
// and aborts find it.
//
// A task in the table is idle, and then whoever holds the mutex may take it
// out; or it is used by the reader or a worker, who then ends it and only
// marks of an abort are left on it.
type task struct {
	cmd  lun.Command
	conn *conn
	unit lun.Unit

	lun       [8]byte
	itt       uint32
	cmdSN     uint32
	edtl      uint32 // expected data transfer length
	read      bool   // R
	write     bool   // W
	immediate bool
	cameEarly bool // was not in turn when it came: the reader does not execute it
	cdb       [maxCDB]byte

	in  []*buffer // handed out by Get
	out *buffer   // Data-Out

	// Guarded by conn.mu, and for the transfer part used by the reader while
	// the task is in use.

	listed   bool  // in the table
	used     bool  // by the reader or a worker
	early    bool  // not executed before its turn
	admitted bool  // has its memory
	charge   int64 // what it is counted with in conn.acct
	transfer transfer
	cancel   func()   // of the context it is executed with, when it is
	stopped  bool     // its context is to be cancelled, or never made
	aborted  bool     // stopped, and gets no answer
	reported []*abort // who wait for it to be gone
}

// Get returns a Data-In buffer of n bytes, lun.BufferPool.
func (t *task) Get(n int) []byte {
	b := t.conn.srv.buffers.get(n)
	t.in = append(t.in, b)
	return b.data[:n]
}

// newTask returns a task for use. c.mu is held.
func (c *conn) newTask() *task {
	if n := len(c.free); n > 0 {
		t := c.free[n-1]
		c.free = c.free[:n-1]
		return t
	}
	return &task{conn: c}
}

// list puts t into the table. c.mu is held.
func (c *conn) list(t *task) {
	if c.tasks == nil {
		c.tasks = make(map[uint32]*task)
	}
	t.listed = true
	c.tasks[t.itt] = t
	c.hand = nil
}

// complete tells whether t has all the data that its command takes.
func (t *task) complete() bool {
	x := &t.transfer
	return !x.open && x.active == 0 && (x.got == x.want || x.solicited == x.want)
}

// need returns the memory that the Data-In of t takes.
func (t *task) need() int64 {
	if !t.read || t.edtl == 0 {
		return 0
	}
	return bufferSize(int(min(t.edtl, uint32(t.conn.srv.cfg.MaxTransfer))))
}

// finish ends t after its command has ended: its answer is appended, unless it
// was aborted. The task may be used again when finish has returned. c.mu is
// held.
func (c *conn) finish(t *task) {
	if t.aborted || c.err != nil {
		c.release(t)
		return
	}
	c.settle(t)
	c.answer(t)
	c.forget(t)
}

// abandon ends a task without an answer that nobody uses. c.mu is held.
func (c *conn) abandon(t *task) {
	c.unpark(t)
	c.release(t)
}

// unpark takes t out of the queue for memory, if it is in there. c.mu is held.
func (c *conn) unpark(t *task) {
	if i := slices.Index(c.parked, t); i >= 0 {
		c.parked = slices.Delete(c.parked, i, i+1)
	}
}

// release ends a task without an answer. c.mu is held.
func (c *conn) release(t *task) {
	c.settle(t)
	for _, b := range t.in {
		c.acct.add(-int64(len(b.data)))
		c.srv.buffers.put(b)
	}
	c.forget(t)
}

// settle replaces what t is charged with by the Data-In buffers it really
// has, gives back its Data-Out buffer, and lets the initiator send one more
// command. c.mu is held.
func (c *conn) settle(t *task) {
	if !t.immediate && !t.early {
		c.win.credit()
	}
	n := -t.charge
	for _, b := range t.in {
		n += int64(len(b.data))
	}
	if !t.admitted {
		c.acct.parked -= t.charge
	}
	c.acct.add(n)
	t.charge = 0
	if t.out != nil {
		c.srv.buffers.put(t.out)
		t.out = nil
	}
}

// forget takes t out of all books and makes it ready for use. c.mu is held.
func (c *conn) forget(t *task) {
	if t.immediate {
		c.immediates--
	}
	c.r2ts -= t.transfer.active
	if c.hand == t {
		c.hand = nil
	}
	if t.listed {
		delete(c.tasks, t.itt)
		c.free = append(c.free, t)
	}
	if t.cancel != nil {
		t.cancel()
	}
	for _, s := range t.reported {
		s.oneGone()
	}
	clear(t.in)
	*t = task{conn: c, in: t.in[:0], reported: t.reported[:0]}
}
