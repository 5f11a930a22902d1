package overlay

import (
	"slices"
	"sort"
)

// state is what a local file knows about one of its blocks. The numbers are
// on disk.
type state uint8

const (
	absent  state = 0 // not here: ask what lies below
	present state = 1 // the bytes are in the file at the same offset
	zero    state = 2 // reads as zeros, whatever lies below

	states = 3
)

// index tells the state of every block of a file. It is cut into chunks, each
// in the form that is small for it:
//
//	uniform   all blocks alike: one shared chunk per state, nil for absent
//	runs      few runs: sorted starts, found by a binary search of bounded depth
//	dense     many runs: one state a block
//
// So a look-up takes constant time however many extents there are, a terabyte
// in long runs costs some kilobytes, and the worst case is one byte a block.
//
// An index is not safe for parallel use.
type index struct {
	blocks int64
	chunks []*chunk
	counts [states]int64 // blocks in each state
}

const (
	chunkShift  = 12
	chunkBlocks = 1 << chunkShift

	denseAbove = 512 // a chunk with more runs becomes dense
	runsBelow  = 128 // a dense chunk with fewer runs goes back
)

type chunk struct {
	runs  []run   // the first starts at 0, neighbours differ
	dense []state // instead of runs
	edges int     // of dense: neighbours that differ
}

type run struct {
	start uint16
	state state
}

// uniform chunks are shared and never changed.
var uniform = [states]*chunk{
	absent:  nil,
	present: {runs: []run{{0, present}}},
	zero:    {runs: []run{{0, zero}}},
}

func newIndex(blocks int64) *index {
	x := &index{blocks: blocks, chunks: make([]*chunk, (blocks+chunkBlocks-1)>>chunkShift)}
	x.counts[absent] = blocks
	return x
}

// get returns the state of block b and a later block up to which, exclusive,
// all are in that state too. The block after may or may not differ.
//
// Blocks behind the end are absent: who asks may have seen it farther away.
func (x *index) get(b int64) (s state, end int64) {
	base := b &^ (chunkBlocks - 1)
	if b >= x.blocks {
		return absent, base + chunkBlocks
	}
	s, _, e := x.chunks[b>>chunkShift].at(int(b - base))
	return s, min(base+int64(e), x.blocks)
}

// runAt is get that also returns the first block of the run within its chunk.
func (x *index) runAt(b int64) (s state, first, end int64) {
	base := b &^ (chunkBlocks - 1)
	s, f, e := x.chunks[b>>chunkShift].at(int(b - base))
	return s, base + int64(f), min(base+int64(e), x.blocks)
}

// at returns the state of block o of the chunk and the run [first, end) that
// it is in.
func (c *chunk) at(o int) (s state, first, end int) {
	if c == nil {
		return absent, 0, chunkBlocks
	}
	if c.dense != nil {
		s = c.dense[o]
		for end = o + 1; end < chunkBlocks && c.dense[end] == s; end++ {
		}
		for first = o; first > 0 && c.dense[first-1] == s; first-- {
		}
		return s, first, end
	}
	i := c.find(o)
	return c.runs[i].state, int(c.runs[i].start), c.end(i)
}

// find returns the run that holds block o.
func (c *chunk) find(o int) int {
	return sort.Search(len(c.runs), func(i int) bool { return int(c.runs[i].start) > o }) - 1
}

func (c *chunk) end(i int) int {
	if i+1 < len(c.runs) {
		return int(c.runs[i+1].start)
	}
	return chunkBlocks
}

// set puts the blocks [first, end) in state s and tells whether that changed
// any.
func (x *index) set(first, end int64, s state) (changed bool) {
	for first < end {
		i := first >> chunkShift
		base := i << chunkShift
		e := min(end, base+chunkBlocks)
		if x.setChunk(i, int(first-base), int(e-base), s) {
			changed = true
		}
		first = e
	}
	return changed
}

// resize changes the number of blocks. New ones are absent.
func (x *index) resize(blocks int64) {
	chunks := (blocks + chunkBlocks - 1) >> chunkShift
	if blocks < x.blocks {
		x.set(blocks, x.blocks, absent)
		x.counts[absent] -= x.blocks - blocks
		x.blocks, x.chunks = blocks, x.chunks[:chunks]
		return
	}
	// What the last chunk holds behind the end was in no state up to now.
	old, rest := x.blocks, min(blocks, int64(len(x.chunks))<<chunkShift)
	x.blocks = rest
	for b := old; b < rest; {
		s, end := x.get(b)
		x.counts[s] += end - b
		b = end
	}
	x.set(old, rest, absent)
	x.counts[absent] += blocks - rest
	x.blocks, x.chunks = blocks, append(x.chunks, make([]*chunk, chunks-int64(len(x.chunks)))...)
}

func (x *index) setChunk(i int64, o, e int, s state) (changed bool) {
	c := x.chunks[i]
	for b := o; b < e; { // count what changes
		old, _, end := c.at(b)
		end = min(end, e)
		if old != s {
			x.counts[old] -= int64(end - b)
			x.counts[s] += int64(end - b)
			changed = true
		}
		b = end
	}
	if !changed {
		return false
	}
	if o == 0 && e == chunkBlocks || int64(o) == 0 && i<<chunkShift+int64(e) == x.blocks {
		x.chunks[i] = uniform[s] // blocks beyond the end are in no state
		return true
	}
	switch {
	case c == nil:
		c = &chunk{runs: []run{{0, absent}}}
	case c == uniform[present] || c == uniform[zero]:
		c = &chunk{runs: slices.Clone(c.runs)}
	}
	c.set(o, e, s)
	if c.dense == nil && len(c.runs) == 1 {
		c = uniform[s]
	}
	x.chunks[i] = c
	return true
}

func (c *chunk) set(o, e int, s state) {
	if c.dense != nil {
		c.setDense(o, e, s)
		return
	}
	i, j := c.find(o), c.find(e-1)
	var repl [3]run
	n := 0
	before, hasBefore := state(0), false
	if int(c.runs[i].start) < o {
		repl[n] = c.runs[i]
		n++
		before, hasBefore = c.runs[i].state, true
	} else if i > 0 {
		before, hasBefore = c.runs[i-1].state, true
	}
	if !hasBefore || before != s {
		repl[n] = run{uint16(o), s}
		n++
	}
	if e < c.end(j) {
		if c.runs[j].state != s {
			repl[n] = run{uint16(e), c.runs[j].state}
			n++
		}
	} else if j+1 < len(c.runs) && c.runs[j+1].state == s {
		j++ // becomes one with what follows
	}
	c.runs = slices.Replace(c.runs, i, j+1, repl[:n]...)
	if len(c.runs) > denseAbove {
		c.toDense()
	}
}

func (c *chunk) toDense() {
	dense := make([]state, chunkBlocks)
	for i, r := range c.runs {
		for b := int(r.start); b < c.end(i); b++ {
			dense[b] = r.state
		}
	}
	*c = chunk{dense: dense, edges: len(c.runs) - 1}
}

func (c *chunk) toRuns() {
	runs := make([]run, 0, c.edges+1)
	for b, s := range c.dense {
		if b == 0 || s != c.dense[b-1] {
			runs = append(runs, run{uint16(b), s})
		}
	}
	*c = chunk{runs: runs}
}

func (c *chunk) setDense(o, e int, s state) {
	c.edges -= c.countEdges(o, e)
	for b := o; b < e; b++ {
		c.dense[b] = s
	}
	c.edges += c.countEdges(o, e)
	if c.edges+1 < runsBelow {
		c.toRuns()
	}
}

// countEdges counts the neighbours that differ from o-1 up to e.
func (c *chunk) countEdges(o, e int) (n int) {
	for b := max(o, 1); b <= min(e, chunkBlocks-1); b++ {
		if c.dense[b] != c.dense[b-1] {
			n++
		}
	}
	return n
}
