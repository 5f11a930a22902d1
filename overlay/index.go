package overlay

import "slices"

// state is what a local file knows about one of its blocks. The numbers are
// on disk.
type state uint8

const (
	absent  state = 0 // not here: ask what lies below
	present state = 1 // the bytes are in the file at the same offset
	zero    state = 2 // reads as zeros, whatever lies below

	states = 3
)

// index tells a value of every block: its state in a file, or which of several
// layers has it (chain.go); 0 is absent in both. It is cut into chunks, each in
// the form that is small for it:
//
//	uniform   all blocks alike: one shared chunk per value, nil for absent
//	runs      few runs: sorted starts, found by a binary search of bounded depth
//	dense     many runs: one value a block
//
// So a look-up takes constant time however many extents there are, a terabyte
// in long runs costs some kilobytes, and the worst case is one value a block.
//
// An index is not safe for parallel use, unless nobody changes it.
type index[T value] struct {
	blocks int64
	chunks []*chunk[T]
	counts []int64 // blocks of each value

	// uniform chunks, one for each value that was needed, are shared and never
	// changed. That of absent is nil.
	uniform []*chunk[T]

	// Of a fork all chunks are shared, except own, the one that was changed
	// last.
	forked bool
	own    int64
}

type value interface{ ~uint8 | ~uint16 }

const (
	chunkShift  = 12
	chunkBlocks = 1 << chunkShift

	denseAbove = 512 // a chunk with more runs becomes dense
	runsBelow  = 128 // a dense chunk with fewer runs goes back
)

type chunk[T value] struct {
	runs  []run[T] // the first starts at 0, neighbours differ; a single one is that of a uniform chunk
	dense []T      // instead of runs
	edges int      // of dense: neighbours that differ
}

type run[T value] struct {
	start uint16
	value T
}

func newIndex[T value](blocks int64) *index[T] {
	return &index[T]{
		blocks:  blocks,
		chunks:  make([]*chunk[T], (blocks+chunkBlocks-1)>>chunkShift),
		counts:  []int64{blocks},
		uniform: []*chunk[T]{nil},
	}
}

// fork returns a copy that shares the chunks of x, neither of which may change
// any more; the copy may, as long as nobody else knows it. It is quick when its
// changes come in ascending order.
func (x *index[T]) fork() *index[T] {
	f := *x
	f.chunks, f.counts, f.uniform = slices.Clone(x.chunks), slices.Clone(x.counts), slices.Clone(x.uniform)
	f.forked, f.own = true, -1
	return &f
}

// room makes room for the count and the uniform chunk of value v.
func (x *index[T]) room(v T) {
	for len(x.counts) <= int(v) {
		x.counts = append(x.counts, 0)
		x.uniform = append(x.uniform, &chunk[T]{runs: []run[T]{{0, T(len(x.uniform))}}})
	}
}

// count returns how many blocks have value v.
func (x *index[T]) count(v T) int64 {
	if int(v) < len(x.counts) {
		return x.counts[v]
	}
	return 0
}

// get returns the state of block b and a later block up to which, exclusive,
// all are in that state too. The block after may or may not differ.
//
// Blocks behind the end are absent: who asks may have seen it farther away.
func (x *index[T]) get(b int64) (s T, end int64) {
	base := b &^ (chunkBlocks - 1)
	if b >= x.blocks {
		return 0, base + chunkBlocks
	}
	s, _, e := x.chunks[b>>chunkShift].at(int(b - base))
	return s, min(base+int64(e), x.blocks)
}

// runAt is get that also returns the first block of the run within its chunk.
func (x *index[T]) runAt(b int64) (s T, first, end int64) {
	base := b &^ (chunkBlocks - 1)
	s, f, e := x.chunks[b>>chunkShift].at(int(b - base))
	return s, base + int64(f), min(base+int64(e), x.blocks)
}

// at returns the state of block o of the chunk and the run [first, end) that
// it is in.
func (c *chunk[T]) at(o int) (s T, first, end int) {
	if c == nil {
		return 0, 0, chunkBlocks
	}
	if c.dense != nil {
		s = c.dense[o]
		for end = o + 1; end < chunkBlocks && c.dense[end] == s; end++ {
		}
		for first = o; first > 0 && c.dense[first-1] == s; first-- {
		}
		return s, first, end
	}
	if len(c.runs) == 1 {
		return c.runs[0].value, 0, chunkBlocks
	}
	i := c.find(o)
	return c.runs[i].value, int(c.runs[i].start), c.end(i)
}

// find returns the run that holds block o.
func (c *chunk[T]) find(o int) int {
	lo, hi := 0, len(c.runs)
	for lo < hi {
		if m := (lo + hi) / 2; int(c.runs[m].start) > o {
			hi = m
		} else {
			lo = m + 1
		}
	}
	return lo - 1
}

func (c *chunk[T]) end(i int) int {
	if i+1 < len(c.runs) {
		return int(c.runs[i+1].start)
	}
	return chunkBlocks
}

// set puts the blocks [first, end) in state s and tells whether that changed
// any.
func (x *index[T]) set(first, end int64, s T) (changed bool) {
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
func (x *index[T]) resize(blocks int64) {
	chunks := (blocks + chunkBlocks - 1) >> chunkShift
	if blocks < x.blocks {
		x.set(blocks, x.blocks, 0)
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
	x.set(old, rest, 0)
	x.counts[absent] += blocks - rest
	x.blocks, x.chunks = blocks, append(x.chunks, make([]*chunk[T], chunks-int64(len(x.chunks)))...)
}

func (x *index[T]) setChunk(i int64, o, e int, s T) (changed bool) {
	x.room(s)
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
		x.chunks[i] = x.uniform[s] // blocks beyond the end are in no state
		return true
	}
	switch {
	case c == nil:
		c = &chunk[T]{runs: append(make([]run[T], 0, 4), run[T]{0, 0})} // becomes three, as a rule
	case len(c.runs) == 1 || x.forked && x.own != i:
		c = &chunk[T]{runs: slices.Clone(c.runs), dense: slices.Clone(c.dense), edges: c.edges}
	}
	x.own = i
	c.set(o, e, s)
	if len(c.runs) == 1 {
		c = x.uniform[s]
	}
	x.chunks[i] = c
	return true
}

func (c *chunk[T]) set(o, e int, s T) {
	if c.dense != nil {
		c.setDense(o, e, s)
		return
	}
	i, j := c.find(o), c.find(e-1)
	var repl [3]run[T]
	n := 0
	before, hasBefore := T(0), false
	if int(c.runs[i].start) < o {
		repl[n] = c.runs[i]
		n++
		before, hasBefore = c.runs[i].value, true
	} else if i > 0 {
		before, hasBefore = c.runs[i-1].value, true
	}
	if !hasBefore || before != s {
		repl[n] = run[T]{uint16(o), s}
		n++
	}
	if e < c.end(j) {
		if c.runs[j].value != s {
			repl[n] = run[T]{uint16(e), c.runs[j].value}
			n++
		}
	} else if j+1 < len(c.runs) && c.runs[j+1].value == s {
		j++ // becomes one with what follows
	}
	c.runs = slices.Replace(c.runs, i, j+1, repl[:n]...)
	if len(c.runs) > denseAbove {
		c.toDense()
	}
}

func (c *chunk[T]) toDense() {
	dense := make([]T, chunkBlocks)
	for i, r := range c.runs {
		for b := int(r.start); b < c.end(i); b++ {
			dense[b] = r.value
		}
	}
	*c = chunk[T]{dense: dense, edges: len(c.runs) - 1}
}

func (c *chunk[T]) toRuns() {
	runs := make([]run[T], 0, c.edges+1)
	for b, s := range c.dense {
		if b == 0 || s != c.dense[b-1] {
			runs = append(runs, run[T]{uint16(b), s})
		}
	}
	*c = chunk[T]{runs: runs}
}

func (c *chunk[T]) setDense(o, e int, s T) {
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
func (c *chunk[T]) countEdges(o, e int) (n int) {
	for b := max(o, 1); b <= min(e, chunkBlocks-1); b++ {
		if c.dense[b] != c.dense[b-1] {
			n++
		}
	}
	return n
}
