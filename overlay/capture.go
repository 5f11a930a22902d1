package overlay

import (
	"sync"
	"sync/atomic"
)

// capture keeps a copy of what is written to the file of a layer between two
// rounds, for the log, as long as that is little.
//
// What a small round does not sync must be in the log, all of it, and as the file
// has it: of two writes to the same place that run at the same time the one that
// came last. So writes of the same part of the file are in line while they are
// captured. Whoever writes without that spills, before anybody is answered, and
// the next round is a large one.
type capture struct {
	spilled atomic.Bool // something was written that is not captured
	lines   [64]sync.Mutex

	mu    sync.Mutex // after lines
	taken captured   // guarded by mu: since the last round
	spare captured   // guarded by mu: empty, to be used again
}

// captured are writes, oldest first, whose bytes lie one behind the other.
type captured struct {
	writes []write
	bytes  []byte
}

// write is where bytes were written.
type write struct {
	off int64
	n   int
}

// each calls f with each write.
func (c captured) each(f func(p []byte, off int64) error) error {
	p := c.bytes
	for _, w := range c.writes {
		if err := f(p[:w.n], w.off); err != nil {
			return err
		}
		p = p[w.n:]
	}
	return nil
}

// captureGrain is the part of a file within which captured writes are in line. None
// is larger, so none lies in more than two.
const captureGrain = smallMost

// spill says that something is not captured, and ends it until the next round.
func (c *capture) spill() {
	if !c.spilled.Load() {
		c.spilled.Store(true)
	}
}

// line returns the locks of a write of n bytes at off, in the order in which
// they are taken; second is nil when one is enough.
func (c *capture) line(off int64, n int) (first, second *sync.Mutex) {
	i, j := int(off/captureGrain)%len(c.lines), int((off+int64(n)-1)/captureGrain)%len(c.lines)
	switch {
	case i == j:
		return &c.lines[i], nil
	case i > j:
		i, j = j, i
	}
	return &c.lines[i], &c.lines[j]
}

// write has do write p at off and say so to large rounds, and captures it.
func (c *capture) write(p []byte, off int64, do func(p []byte, off int64) error) error {
	if len(p) == 0 || len(p) > captureGrain || c.spilled.Load() {
		defer c.spill()
		return do(p, off)
	}
	first, second := c.line(off, len(p))
	first.Lock()
	defer first.Unlock()
	if second != nil {
		second.Lock()
		defer second.Unlock()
	}
	if err := do(p, off); err != nil {
		c.spill() // part of it may be there
		return err
	}
	c.add(p, off)
	return nil
}

func (c *capture) add(p []byte, off int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.taken.bytes)+len(p) > smallMost {
		c.spill()
	}
	if c.spilled.Load() {
		return
	}
	c.taken.bytes = append(c.taken.bytes, p...)
	c.taken.writes = append(c.taken.writes, write{off, len(p)})
}

// take returns what was written since it was called last, and whether that is all.
func (c *capture) take() (t captured, all bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, c.taken = c.taken, captured{c.spare.writes[:0], c.spare.bytes[:0]}
	c.spare = captured{}
	return t, !c.spilled.Load()
}

// again begins to capture after a spill. What was written before is going to be
// synced.
func (c *capture) again() { c.spilled.Store(false) }

// free gives back what take has returned.
func (c *capture) free(t captured) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spare = t
}
