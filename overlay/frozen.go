package overlay

import (
	"slices"

	"skylun/block"
)

// frozen are the states of a sealed layer: its runs in ascending order, a word
// each. They take a fraction of what an index takes where extents are far apart,
// and nobody looks a block up in them to answer a call: the combined index of
// all sealed layers (chain.go) tells who has it. A frozen is never changed.
type frozen struct {
	runs   []uint64 // first block << frozenShift | state; neighbours differ, the first starts at 0
	blocks int64
	counts [states]int64
}

const frozenShift = 2

func (f *frozen) add(first, end int64, st state) {
	if first >= end {
		return
	}
	f.counts[st] += end - first
	if n := len(f.runs); n == 0 || state(f.runs[n-1]&(1<<frozenShift-1)) != st {
		f.runs = append(f.runs, uint64(first)<<frozenShift|uint64(st))
	}
}

// get returns the state of block b and the end of its run.
func (f *frozen) get(b int64) (st state, end int64) {
	if b >= f.blocks {
		return absent, b + chunkBlocks
	}
	i, _ := slices.BinarySearch(f.runs, uint64(b+1)<<frozenShift)
	return f.run(i - 1)
}

func (f *frozen) run(i int) (st state, end int64) {
	end = f.blocks
	if i+1 < len(f.runs) {
		end = int64(f.runs[i+1] >> frozenShift)
	}
	return state(f.runs[i] & (1<<frozenShift - 1)), end
}

// each calls fn for the runs that are not absent, in ascending order, until it
// returns false.
func (f *frozen) each(fn func(first, end int64, st state) bool) {
	for i, r := range f.runs {
		if st, end := f.run(i); st != absent && !fn(int64(r>>frozenShift), end, st) {
			return
		}
	}
}

// with returns f with changes, which are in ascending order without overlaps,
// and the number of blocks, which is not less than f's.
func (f *frozen) with(changes []Extent, blocks int64) *frozen {
	n := &frozen{runs: make([]uint64, 0, len(f.runs)+2*len(changes)), blocks: blocks}
	at := int64(0)
	keep := func(end int64) { // as they were, up to end
		for at < end {
			st, e := f.get(at)
			e = min(e, end)
			n.add(at, e, st)
			at = e
		}
	}
	for _, c := range changes {
		keep(c.Off / block.Size)
		at = c.End / block.Size
		n.add(c.Off/block.Size, at, state(c.State))
	}
	keep(blocks)
	n.runs = slices.Clip(n.runs)
	return n
}

// freeze replaces the index of a layer that nobody writes to any more, and
// returns the states.
func (s *sparse) freeze() *frozen {
	s.mu.RLock()
	f, x := s.frozen, s.index
	s.mu.RUnlock()
	if f != nil {
		return f
	}
	f = &frozen{blocks: x.blocks}
	for i, c := range x.chunks {
		base := int64(i) << chunkShift
		end := min(base+chunkBlocks, x.blocks)
		if c == nil {
			f.add(base, end, absent)
			continue
		}
		for b := base; b < end; {
			st, e := x.get(b)
			f.add(b, e, st)
			b = e
		}
	}
	f.runs = slices.Clip(f.runs)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.frozen == nil {
		s.frozen, s.index = f, nil
	}
	return s.frozen
}
