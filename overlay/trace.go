package overlay

import (
	"math/bits"
	"sync"
	"sync/atomic"

	"skylun/block"
)

// A Trace notes which blocks of an image are read, in the order of their first
// reads. It is what a boot profile is made of.
//
// It lies on the path of every read of the image, so it takes no lock and, once
// a block was noted, costs a look at one word of a bitmap. The bitmap is
// made in chunks, where somebody reads. What is read first is appended to a list
// that is there from the beginning; when that is full, or the blocks in it are
// too many, the trace is over.
//
//	read ── bits not set yet ──▶ set them ──▶ list: runs of those that this read has set
//
// Two reads that set bits of the same word share them out: each bit is in the
// list once.
type Trace struct {
	cache  *Cache
	chunks []atomic.Pointer[blockChunk]
	list   []atomic.Uint64 // first block of a run, and how many; 0: not written yet
	used   atomic.Int64    // of list, and beyond it when it is full
	blocks atomic.Int64    // in list

	begin sync.Once
	begun chan struct{}
}

const (
	traceRuns   = 32 << 10
	traceBlocks = 1 << 30 / block.Size // as many as a profile has room for
)

// Trace begins to note what is read. It returns nil when somebody does
// already, or when the image is too large to be traced.
func (c *Cache) Trace() *Trace {
	if c.trace.Load() != nil || c.copy.index.blocks > 1<<40 {
		return nil
	}
	t := &Trace{cache: c, chunks: make([]atomic.Pointer[blockChunk], chunkCount(c.Size())),
		list: make([]atomic.Uint64, traceRuns), begun: make(chan struct{})}
	if !c.trace.CompareAndSwap(nil, t) {
		return nil
	}
	return t
}

// Begun is closed when something has been read.
func (t *Trace) Begun() <-chan struct{} { return t.begun }

// Stop ends the trace and returns what was read, in the order of first reads:
// ranges of whole blocks without overlaps. What is known to be empty is not
// among them.
func (t *Trace) Stop() []block.Range {
	t.cache.trace.CompareAndSwap(t, nil)
	var rs []block.Range
	add := func(r block.Range) {
		if n := len(rs); n > 0 && rs[n-1].End == r.Off {
			rs[n-1].End = r.End
			return
		}
		rs = append(rs, r)
	}
	for i := range min(t.used.Load(), traceRuns) {
		run := t.list[i].Load()
		first, n := int64(run>>7), int64(run&(1<<7-1))
		if n == 0 { // of a read that is under way
			continue
		}
		for off, end := first*block.Size, (first+n)*block.Size; off < end; {
			st, next := t.cache.copy.at(off)
			next = min(next, end)
			if st != zero {
				add(block.Range{Off: off, End: next})
			}
			off = next
		}
	}
	return rs
}

// note tells of a read of n bytes at off: what was guessed, and the trace, if
// there is one.
func (c *Cache) note(off int64, n int) {
	c.guesses.met(off, int64(n))
	if t := c.trace.Load(); t != nil && n > 0 {
		t.note(off/block.Size, (off+int64(n)-1)/block.Size+1)
	}
}

// note notes the blocks [b, end).
func (t *Trace) note(b, end int64) {
	for b < end {
		word, mask, n := bitsOf(chunkOf(t.chunks, b), b, end)
		if word.Load()&mask != mask {
			t.append(block.Floor(b, 64), mask&^word.Or(mask))
		}
		b += n
	}
}

// append adds to the list the blocks whose bits are set, of the word that begins
// with block first.
func (t *Trace) append(first int64, set uint64) {
	for set != 0 {
		from := int64(bits.TrailingZeros64(set))
		n := int64(bits.TrailingZeros64(^(set >> from)))
		set &^= ^uint64(0) >> (64 - n) << from
		if t.blocks.Add(n) > traceBlocks {
			return
		}
		i := t.used.Add(1) - 1
		if i >= traceRuns {
			return
		}
		t.list[i].Store(uint64(first+from)<<7 | uint64(n))
	}
	t.begin.Do(func() { close(t.begun) })
}
