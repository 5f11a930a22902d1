package target

import (
	"fmt"
	"time"

	"skylun/target/pdu"
)

// nopOut takes a NOP-Out, RFC 7143 11.18: a ping, which is answered with its
// own data, or with the reserved tag the answer to one of ours.
func (c *conn) nopOut(h *pdu.Header) error {
	if !c.receivedNow(h) || h.ITT() == pdu.NoTag {
		return nil
	}
	data, err := c.payload()
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	data = data[:min(len(data), c.params.maxSend)]
	r := c.respond(pdu.NOPIn, h.ITT(), true)
	r.SetLUN(h.LUN())
	r.SetTTT(pdu.NoTag)
	r.SetDataLen(len(data))
	c.next.copy(data)
	c.drainOutput(queueSize)
	return c.err
}

// pinger finds out whether the peer is still there. Anything that arrives, and
// anything that leaves, is a sign of life. After an interval without one
// the peer is pinged, and after the timeout without one it is given up. A
// discovery session is not pinged but ended: it has nothing to wait for.
//
// It runs on a timer, not in a goroutine of its own.
type pinger struct {
	timer *time.Timer // guarded by conn.mu

	// Used by the timer's function only.

	seen  uint64 // reads and writes at the last look
	asked bool   // a ping has been sent since then
}

func (c *conn) startPings() {
	if c.srv.cfg.PingInterval < 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ping.seen = c.reads.Load() + c.writes.Load()
	c.ping.timer = time.AfterFunc(c.srv.cfg.PingInterval, c.lookForLife)
}

func (c *conn) stopPings() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ping.timer != nil {
		c.ping.timer.Stop()
		c.ping.timer = nil
	}
}

// lookForLife is called when the peer was given enough time.
func (c *conn) lookForLife() {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := &c.ping
	if p.timer == nil || c.err != nil {
		return
	}
	wait := c.srv.cfg.PingInterval
	switch seen := c.reads.Load() + c.writes.Load(); {
	case seen != p.seen:
		p.seen, p.asked = seen, false
	case p.asked:
		c.fail(fmt.Errorf("%w: nothing for %v after a ping", errDead, c.srv.cfg.PingTimeout))
		return
	case c.sess.discovery:
		c.fail(fmt.Errorf("%w: discovery session idle for %v", errDead, wait))
		return
	default:
		p.asked, wait = true, c.srv.cfg.PingTimeout
		c.sendPing()
	}
	p.timer.Reset(wait)
}

// sendPing appends a NOP-In that asks for an answer, 11.19. The write that it
// causes is no sign of life. c.mu is held.
func (c *conn) sendPing() {
	if c.writing {
		return // the answer to what is being written will do
	}
	c.respond(pdu.NOPIn, pdu.NoTag, false).SetTTT(c.nextTTT())
	c.ping.seen++
	c.aside(c.flushLocked)
}
