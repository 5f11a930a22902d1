package target

import (
	"context"
	"errors"
	"io"
	"log/slog"
)

// Why a connection ends, other than an error of the socket.
var (
	errProtocol   = errors.New("peer does not keep to the protocol")
	errLoggedOut  = errors.New("logged out")
	errReinstated = errors.New("replaced by a new login of the same initiator port")
	errReset      = errors.New("target was reset")
	errRemoved    = errors.New("target was removed")
	errShutdown   = errors.New("server shuts down")
	errDead       = errors.New("peer does not answer")
)

// fail ends the connection because of err: nothing is sent any more, commands
// are cancelled, the reader comes back. The first error counts. c.mu is held.
func (c *conn) fail(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	c.sock.shut()
	c.cancel()
	c.wake()
}

// drop is fail for those who do not hold c.mu.
func (c *conn) drop(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail(err)
}

// drain lets the reader stop without cancelling the commands in flight.
func (c *conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = true
	c.wake()
	if c.err == nil {
		c.sock.interrupt()
	}
}

// end takes the connection down after the reader has stopped because of err.
// It returns when no command is being executed and nothing is held.
func (c *conn) end(err error) {
	c.stopPings()
	c.mu.Lock()
	if c.draining && c.err == nil {
		c.finishCommands()
		c.sayGoodbye()
	}
	if c.draining {
		err = errShutdown
	}
	c.fail(err)
	err = c.err
	c.mu.Unlock()

	c.stopWorkers()
	c.sock.close()

	c.mu.Lock()
	for _, t := range c.tasks {
		c.abandon(t)
	}
	c.next.reset(&c.srv.buffers)
	c.acct.add(-c.acct.held)
	c.mu.Unlock()
	if c.sess != nil {
		c.srv.leave(c)
		c.logEnd(err)
	}
}

// finishCommands waits for the commands that are being executed, and for
// their answers to leave. c.mu is held.
func (c *conn) finishCommands() {
	for c.busy > 0 && c.err == nil {
		c.wait()
	}
	c.flushAll()
}

// flushAll returns when nothing is left to be sent. c.mu is held.
func (c *conn) flushAll() {
	for (c.next.bytes > 0 || c.writing) && c.err == nil {
		if c.flush(); c.writing {
			c.wait()
		}
	}
}

func (c *conn) logEnd(err error) {
	level := slog.LevelInfo
	switch {
	case errors.Is(err, errProtocol), errors.Is(err, errDead), errors.Is(err, errHeaderDigest):
		level = slog.LevelWarn
	case errors.Is(err, io.EOF):
		err = errors.New("closed by the initiator")
	}
	if c.sess.discovery {
		level = min(level, slog.LevelDebug)
	}
	what := "session ended"
	if c.sess.params.maxConns > 1 {
		what = "connection of session ended"
	}
	c.log.Log(context.Background(), level, what, "reason", err)
}
