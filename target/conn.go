package target

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"skylun/target/pdu"
)

// conn is a connection. It is owned by its reader, the goroutine that runs
// serve; workers execute the commands that have to wait.
type conn struct {
	srv    *Server
	sock   socket // replaced once, at the end of the login, with mu
	log    *slog.Logger
	group  uint16 // of the portal that it came by
	local  netip.AddrPort
	remote netip.AddrPort

	// Of the reader.

	in    input
	sess  *session // set at the end of the login
	cid   uint16
	win   *window // of the session, or of a login that has none yet
	spare *task   // for the next command
	text  textExchange

	reads, writes atomic.Uint64 // system calls on the socket

	mu         sync.Mutex
	cond       sync.Cond // with mu: a batch has left, a task has ended, the connection has failed
	waiters    int       // who wait on cond
	err        error     // why the connection ended; nothing is sent after it is set
	draining   bool      // no new commands, the old ones may end
	ready      bool      // in full feature phase
	cancel     func()    // ends the contexts of all commands
	params     params
	statSN     uint32
	ttt        uint32 // target transfer tag given last
	immediates int    // immediate commands in flight
	r2ts       int    // R2Ts that have not been answered completely
	aborts     int    // task management requests that have not been answered
	tasks      map[uint32]*task
	hand       *task   // that the reader has, if it is not in the table
	busy       int     // tasks that a worker has or is going to have
	parked     []*task // wait for memory, in order
	free       []*task
	acct       account
	workers    workers
	count      Counters

	next       *batch // what is to be written next
	spareBatch *batch
	writing    bool

	ping pinger
	done chan struct{} // closed when it has left its session
}

// newConn returns a connection that came by p; cancel ends the context of its run.
func newConn(s *Server, nc net.Conn, p *portal, cancel func()) *conn {
	c := &conn{
		srv: s, sock: &netSocket{Conn: nc}, cancel: cancel, group: p.group, local: addrPort(nc.LocalAddr()), remote: addrPort(nc.RemoteAddr()),
		params: defaultParams, next: new(batch), spareBatch: new(batch),
		win: new(window), done: make(chan struct{}),
		acct: account{limit: s.cfg.ConnectionBuffers, share: int64(s.cfg.MaxTransfer), server: &s.budget},
	}
	c.cond.L = &c.mu
	c.log = s.log.With("remote", c.remote.String())
	return c
}

// addrPort returns the address of one end of a TCP connection, or an invalid
// one.
func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

// run is the life of a connection: login, full feature phase, end.
func (c *conn) run(ctx context.Context) {
	defer c.cancel()
	err := c.guard(func() error { return c.login(ctx) })
	c.srv.loginDone(c)
	if err == nil {
		c.startWorkers(ctx)
		c.startPings()
		err = c.guard(c.serve)
	}
	c.end(err)
}

// guard turns a panic into an error, so that it ends the connection and no
// more.
func (c *conn) guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			c.log.Error("connection ended by a panic", "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return f()
}

// serve is the full feature phase, RFC 7143 4.3.
func (c *conn) serve() error {
	for {
		h, err := c.nextPDU(maxRecvData)
		if err != nil {
			return err
		}
		err = c.request(h)
		if err == nil {
			err = c.skip()
		}
		if err == errDataDigest {
			err = c.reject(h, pdu.RejectDataDigest)
		}
		if c.win.kept.Load() != 0 {
			c.sess.advance()
		}
		if err != nil {
			return err
		}
	}
}

// request handles one PDU, whose data segment has not been taken.
func (c *conn) request(h *pdu.Header) error {
	op := h.Opcode()
	if c.sess.discovery && op != pdu.TextReq && op != pdu.LogoutReq && op != pdu.NOPOut {
		return c.reject(h, pdu.RejectProtocol)
	}
	switch op {
	case pdu.SCSICommand:
		return c.command(h)
	case pdu.DataOut:
		return c.dataOut(h)
	case pdu.NOPOut:
		return c.nopOut(h)
	case pdu.TextReq:
		return c.textRequest(h)
	case pdu.TaskRequest:
		return c.inOrder(h, c.taskRequest)
	case pdu.LogoutReq:
		return c.logout(h)
	case pdu.SNACK: // error recovery level 0 has none, 11.16
		return c.reject(h, pdu.RejectSNACK)
	case pdu.LoginReq:
		return fmt.Errorf("%w: login request in full feature phase", errProtocol)
	}
	return c.reject(h, pdu.RejectNotSupported)
}

// respond appends a response header to the next batch: opcode, final bit, tag
// and the sequence numbers. Responses that carry status advance StatSN. c.mu
// is held.
func (c *conn) respond(op pdu.Opcode, itt uint32, status bool) *pdu.Header {
	h := c.next.header()
	h.SetOpcode(op)
	h.SetFlags(pdu.FlagFinal)
	h.SetITT(itt)
	h.SetStatSN(c.statSN)
	h.SetExpCmdSN(c.win.exp.Load()) // before MaxCmdSN: both only grow
	h.SetMaxCmdSN(c.win.max.Load())
	if status {
		c.statSN++
	}
	return h
}

// nextTTT returns a new target transfer tag. c.mu is held.
func (c *conn) nextTTT() uint32 {
	if c.ttt++; c.ttt == pdu.NoTag {
		c.ttt++
	}
	return c.ttt
}

// reject answers a PDU with a Reject that carries its header, 11.17.
func (c *conn) reject(bad *pdu.Header, reason pdu.RejectReason) error {
	c.log.Debug("PDU rejected", "pdu", bad.Opcode().String(), "reason", fmt.Sprintf("0x%02x", byte(reason)))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count.Rejects++
	h := c.respond(pdu.Reject, pdu.NoTag, true)
	h.SetRejectReason(reason)
	h.SetDataLen(pdu.HeaderSize)
	c.next.copy(bad[:])
	c.drainOutput(queueSize)
	return c.err
}

// wait waits for wake. c.mu is held.
func (c *conn) wait() {
	c.waiters++
	c.cond.Wait()
	c.waiters--
}

// wake lets those who wait look again. c.mu is held.
func (c *conn) wake() {
	if c.waiters > 0 {
		c.cond.Broadcast()
	}
}

// snapshot returns the counters and the number of tasks that wait.
func (c *conn) snapshot() (Counters, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.count
	n.Reads, n.Writes = c.reads.Load(), c.writes.Load()
	return n, len(c.tasks)
}
