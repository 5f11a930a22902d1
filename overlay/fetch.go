package overlay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"skylun/block"
)

// A fetch is one ranged read of the image, done once for all who want any of
// its bytes. What a reader waits for takes a little more than was asked for,
// because a request to the store costs milliseconds and neighbours are wanted
// soon (prefetch.Sizer says how much), but never what is here already, under
// way, or known to be empty.
//
// Prefetch is not in the way of readers: its fetches have limits of their own
// (ahead.go, prefetcher.go), and come into the list when they are
// sent, so who meets one there waits for nothing but the store.
//
// A fetch stays in the list until its bytes are in the file and marked
// present. So who looks under the list's lock finds each absent block either
// in a fetch or not asked for.
const (
	fetchMax      = 1 << 20  // one for a reader or a stream is no longer than this
	fetchParallel = 32       // fetches of one image for readers that read the store at a time
	joinOver      = 64 << 10 // what is here already is fetched again rather than sending two requests
	fetchKeep     = 64 << 20 // bytes waiting to be stored; above this a copy is not kept
)

// purpose is for whom a fetch was begun.
type purpose uint8

const (
	forReader purpose = iota // somebody waits
	forStream                // ahead of a sequential reader
	forFill                  // to have all of the image
)

type fetch struct {
	r    block.Range
	why  purpose
	done chan struct{}
	data []byte // r's bytes, valid once done is closed and err is nil
	err  error

	settled chan struct{} // closed after done, when the bytes are stored or given up
	lost    error         // why they were given up, valid once settled is closed
}

// wait returns when the fetch has its bytes or has failed, or ctx ends.
func (f *fetch) wait(ctx context.Context) error {
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *fetches) init() {
	f.ctx, f.cancel = context.WithCancel(context.Background())
	f.slots = make(chan struct{}, fetchParallel)
}

func (f *fetches) close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.cancel()
	f.run.Wait()
}

// piece is a part of a read: in the file, zeros, or in a fetch.
type piece struct {
	r     block.Range
	state state
	fetch *fetch // nil: local
}

// plan cuts r into pieces and starts the fetches that it needs.
func (c *Cache) plan(r block.Range) (pieces []piece) {
	f := &c.fetches
	f.mu.Lock()
	defer f.mu.Unlock()
	for off := r.Off; off < r.End; {
		p := c.next(block.Range{Off: off, End: r.End})
		pieces = append(pieces, p)
		off = p.r.End
	}
	return pieces
}

// next returns the piece that r begins with. The caller holds the lock of
// fetches.
func (c *Cache) next(r block.Range) piece {
	f := &c.fetches
	c.copy.mu.RLock()
	st, first, end := c.copy.index.runAt(r.Off / block.Size)
	c.copy.mu.RUnlock()
	run := block.Range{Off: first * block.Size, End: end * block.Size}
	if st != absent {
		return piece{r: r.Intersect(run), state: st}
	}
	i := f.search(r.Off)
	if i < len(f.list) {
		if o := f.list[i]; o.r.Off <= r.Off {
			return piece{r: r.Intersect(o.r), fetch: o}
		}
		run.End = min(run.End, f.list[i].r.Off)
	}
	if i > 0 {
		run.Off = max(run.Off, f.list[i-1].r.End)
	}
	// Widen what is wanted to the grain, within the run.
	want := r.Intersect(run).Outward(block.Size)
	grain := f.sizer.Size()
	if c.isKnown(want.Off) {
		grain = block.Size
	}
	want.End = min(want.End, block.Floor(want.Off, grain)+fetchMax)
	o := &fetch{r: c.widen(want, grain).Intersect(run), done: make(chan struct{}), settled: make(chan struct{})}
	c.guesses.asked(want.Len())
	c.guesses.beside.add(block.Range{Off: o.r.Off, End: want.Off})
	c.guesses.beside.add(block.Range{Off: want.End, End: o.r.End})
	if o.r.End == run.End {
		o.r.End = c.join(o.r, min(block.Ceil(r.End, block.Size), c.Size()))
	}
	if f.closed {
		o.err = block.ErrClosed
		close(o.done)
		close(o.settled)
	} else {
		f.list = slices.Insert(f.list, i, o)
		f.run.Go(func() { c.fetch(o) })
	}
	return piece{r: r.Intersect(o.r), fetch: o}
}

// widen returns want with what is beside it in the grain, or in a smaller one if
// too much of what was taken along was not read. The caller holds the lock of fetches.
func (c *Cache) widen(want block.Range, grain int64) block.Range {
	least, spare := max(c.fetches.sizer.Least(), block.Size), c.spareBeside()
	for grain > least && want.Outward(grain).Len()-want.Len() > spare {
		grain /= 2
	}
	return want.Outward(grain)
}

// join returns where a fetch of m ends that also takes what else is absent up to end,
// if no more than joinOver lies in between each time: a request more costs
// more than that. What lies in between is stored again as it is, and if it was
// damaged it is not any more. The caller holds the lock of fetches.
func (c *Cache) join(m block.Range, end int64) int64 {
	for m.End < end {
		st, next := c.copy.at(m.End)
		if st != present || next-m.End > joinOver || next >= end {
			break
		}
		st, e := c.copy.at(next)
		e = min(e, end, m.Off+fetchMax)
		if wider := (block.Range{Off: m.End, End: e}); st != absent || e <= next || c.fetches.freeLocked(wider) != wider {
			break
		}
		m.End = e
	}
	return m.End
}

// search returns the place in the list of the first fetch that ends behind
// off: it covers off or follows it. The caller holds mu.
func (f *fetches) search(off int64) int {
	i, _ := slices.BinarySearchFunc(f.list, off, func(o *fetch, off int64) int {
		if o.r.End <= off {
			return -1
		}
		return 1
	})
	return i
}

// free returns the first part of r that no fetch covers.
func (f *fetches) free(r block.Range) block.Range {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.freeLocked(r)
}

func (f *fetches) freeLocked(r block.Range) block.Range {
	for i := f.search(r.Off); i < len(f.list) && !r.Empty(); i++ {
		o := f.list[i].r
		if o.Off > r.Off {
			r.End = min(r.End, o.Off)
			break
		}
		r.Off = o.End
	}
	return r
}

// begin starts a fetch that nobody waits for, of what r begins with, as far as
// it is still to be fetched, and returns it; nil: nothing is, or the cache closes.
// after, if any, is called when the fetch has been settled.
func (c *Cache) begin(r block.Range, why purpose, after func(o *fetch)) *fetch {
	f := &c.fetches
	f.mu.Lock()
	defer f.mu.Unlock()
	r = f.freeLocked(r)
	if f.closed || r.Empty() {
		return nil
	}
	st, end := c.copy.at(r.Off)
	if r.End = min(r.End, end); st != absent {
		return nil
	}
	o := &fetch{r: r, why: why, done: make(chan struct{}), settled: make(chan struct{})}
	f.list = slices.Insert(f.list, f.search(r.Off), o)
	c.prefetched.begun(o)
	if why == forStream {
		c.guesses.ahead.add(r)
	}
	f.run.Go(func() {
		c.fetch(o)
		c.settled(o)
		if after != nil {
			after(o)
		}
	})
	return o
}

// fetch reads o's bytes, answers, and then keeps them.
func (c *Cache) fetch(o *fetch) {
	f := &c.fetches
	defer close(o.settled)
	o.data, o.err = c.read(o)
	if o.err != nil {
		c.counts.failed.Add(1)
		if f.ctx.Err() == nil && c.fetchLog.now() {
			c.log.Warn("cannot read image", "image", c.name, "offset", o.r.Off, "bytes", o.r.Len(), "error", o.err)
		}
		c.remove(o) // before the answer: who asks again after it gets a new try
		close(o.done)
		return
	}
	close(o.done)
	o.lost = c.keep(o)
	c.remove(o)
}

func (c *Cache) remove(o *fetch) {
	f := &c.fetches
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = slices.DeleteFunc(f.list, func(x *fetch) bool { return x == o })
}

// read reads o's bytes from the image; behind its end are zeros.
func (c *Cache) read(o *fetch) ([]byte, error) {
	f, r := &c.fetches, o.r
	if o.why == forReader {
		select {
		case f.slots <- struct{}{}:
			defer func() { <-f.slots }()
		case <-f.ctx.Done():
			return nil, block.ErrClosed
		}
	}
	began := time.Now()
	data := make([]byte, r.Len())
	n := min(r.End, c.image.Size()) - r.Off
	if err := c.image.ReadAt(f.ctx, data[:n], r.Off); err != nil {
		if f.ctx.Err() != nil {
			return nil, block.ErrClosed
		}
		return nil, fmt.Errorf("fetch %d+%d: %w", r.Off, n, err)
	}
	c.counts.fetches.Add(1)
	c.counts.fetched.Add(n)
	f.mu.Lock()
	f.sizer.Fetched(n, time.Since(began))
	c.guesses.full.Store(f.sizer.Full())
	f.mu.Unlock()
	return data, nil
}

// keep stores o's bytes, unless too many wait to be stored or there is no
// room: that costs fetching them again, nothing else.
func (c *Cache) keep(o *fetch) error {
	f := &c.fetches
	n := o.r.Len()
	defer f.kept.Add(-n)
	if f.kept.Add(n) > fetchKeep {
		c.counts.dropped.Add(1)
		return errors.New("too many copies wait to be stored")
	}
	if err := c.store(o); err != nil {
		c.counts.dropped.Add(1)
		if !errors.Is(err, block.ErrClosed) && c.keepLog.now() {
			c.log.Warn("cannot keep a local copy", "image", c.name, "offset", o.r.Off, "bytes", n, "error", err)
		}
		return err
	}
	return nil
}
