package target

import (
	"context"
	"runtime/debug"
	"sync"
)

// workers are the goroutines of a connection that execute commands which have
// to wait. They are started when all there are have something to do, up to a
// limit; what is beyond it queues.
type workers struct {
	queue chan *task // never full: it has room for all tasks there can be
	spawn func()
	wg    sync.WaitGroup // workers, and others who use the connection for a moment

	// Guarded by conn.mu.

	n       int  // running
	idle    int  // of these: wait for a task that nobody is on the way to bring
	backlog int  // tasks in the queue for which no worker is idle
	stopped bool // no more are started
}

func (c *conn) startWorkers(ctx context.Context) {
	c.workers.queue = make(chan *task, c.srv.cfg.QueueDepth+maxImmediates)
	c.workers.spawn = func() { go c.work(ctx) }
}

// stopWorkers returns when all workers have gone. Contexts have been
// cancelled.
func (c *conn) stopWorkers() {
	c.mu.Lock()
	c.workers.stopped = true
	c.mu.Unlock()
	if c.workers.queue != nil {
		close(c.workers.queue)
	}
	c.workers.wg.Wait()
}

// aside runs f, which must end when the connection does, beside the reader and
// the workers. c.mu is held.
func (c *conn) aside(f func()) {
	if !c.workers.stopped {
		c.workers.wg.Go(f)
	}
}

// dispatch hands t to a worker. c.mu is held.
func (c *conn) dispatch(t *task) {
	w := &c.workers
	if w.stopped {
		return
	}
	t.used = true
	c.busy++
	switch {
	case w.idle > 0:
		w.idle--
	case w.n < c.srv.cfg.Workers:
		w.n++
		w.wg.Add(1)
		w.spawn()
	default:
		w.backlog++
	}
	w.queue <- t
}

// work is a worker.
func (c *conn) work(ctx context.Context) {
	w := &c.workers
	defer w.wg.Done()
	for t := range w.queue {
		c.executeWaiting(ctx, t)
		if err := c.guard(func() error { c.finishWaiting(t); return nil }); err != nil {
			c.drop(err)
		}
	}
}

// finishWaiting ends a task that a worker has executed.
func (c *conn) finishWaiting(t *task) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy--
	c.finish(t)
	c.flush() // may take long
	c.wake()
	if w := &c.workers; w.backlog > 0 {
		w.backlog--
	} else {
		w.idle++
	}
}

// executeWaiting calls the unit's Execute.
func (c *conn) executeWaiting(ctx context.Context, t *task) {
	ctx, cancel := context.WithCancel(ctx)
	c.mu.Lock()
	t.cancel = cancel
	stopped := t.stopped
	c.mu.Unlock()
	if stopped {
		cancel()
	}
	defer func() {
		if p := recover(); p != nil {
			t.panicked(p)
		}
	}()
	t.unit.Execute(ctx, &t.cmd)
}

// panicked ends a command whose handler panicked.
func (t *task) panicked(p any) {
	t.conn.log.Error("command ended by a panic", "cdb", t.cmd.CDB, "panic", p, "stack", string(debug.Stack()))
	t.fail(senseInternal)
}
