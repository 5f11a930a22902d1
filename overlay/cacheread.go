package overlay

import (
	"sync"

	"skylun/block"
)

// A read of a copy takes no lock. What may happen to the copy meanwhile:
//
//	evicted   its blocks become absent, that becomes durable, the hole is
//	          counted in punched, and then punched. A read that finds the
//	          count as it was before it looked at the states has read no hole.
//	filled    absent blocks are, so nobody reads them; and present ones between
//	          them, with the bytes that they have.
//	damaged   the sum does not match.
//
// In each case, and when the disk fails, the caller reads again or fetches.

// verdict is what came of reading a copy.
type verdict uint8

const (
	sound   verdict = iota
	later           // it would have to wait for the disk
	damaged         // not what was stored, or it cannot be read
)

// here fills p with what is local, and tells whether all of it is. It waits for
// the disk only if wait says so.
func (c *Cache) here(p []byte, off int64, wait bool) bool {
	for len(p) > 0 {
		g := c.regions.at(off)
		punched := g.punched.Load()
		st, end := c.copy.at(off)
		n := min(int64(len(p)), end-off)
		switch st {
		case absent:
			return false
		case zero:
			clear(p[:n])
		default:
			n = min(n, regionOf(off).End-off)
			if !c.copied(p[:n], off, g, punched, wait) {
				return false
			}
		}
		p, off = p[n:], off+n
	}
	return true
}

// copied fills p with copies of blocks of the region g, which were present after
// so many holes.
func (c *Cache) copied(p []byte, off int64, g *cacheRegion, punched uint32, wait bool) bool {
	g.touch(c.pool.clock.Load())
	if !wait {
		sums := g.sums.Load()
		if sums == nil && c.sums != nil {
			return false
		}
		got, _, _ := c.readCopy(p, off, sums, false)
		return got == sound && g.punched.Load() == punched
	}
	g.reading.Add(1)
	defer g.reading.Add(-1)
	r := block.Range{Off: off, End: off + int64(len(p))}
	var sums *regionSums
	var err error
	if c.sums != nil {
		sums, err = c.sumsOf(g, off)
	}
	if err == nil {
		// Once more, where it is damaged: the disk may be better at it, and
		// what was fetched again meanwhile may have been met half written.
		for range 2 {
			var got verdict
			if got, r, err = c.readCopy(p, off, sums, true); got == sound {
				return g.punched.Load() == punched
			}
		}
	}
	if g.punched.Load() == punched {
		c.spoilt(r, err)
	}
	return false
}

// readCopy fills p from off and checks it. What is damaged is told: which
// blocks, or why they cannot be read.
func (c *Cache) readCopy(p []byte, off int64, sums *regionSums, wait bool) (verdict, block.Range, error) {
	if sums == nil {
		return c.readBlocks(p, off, nil, wait)
	}
	for len(p) > 0 {
		in, n := off%block.Size, block.Floor(int64(len(p)), block.Size)
		if in == 0 && n > 0 {
			if got, r, err := c.readBlocks(p[:n], off, sums, wait); got != sound {
				return got, r, err
			}
		} else { // a part of a block
			n = min(int64(len(p)), block.Size-in)
			b := blockBuffers.Get().(*[block.Size]byte)
			got, r, err := c.readBlocks(b[:], off-in, sums, wait)
			copy(p[:n], b[in:])
			blockBuffers.Put(b)
			if got != sound {
				return got, r, err
			}
		}
		p, off = p[n:], off+n
	}
	return sound, block.Range{}, nil
}

// blockBuffers are for blocks of which a part is wanted.
var blockBuffers = sync.Pool{New: func() any { return new([block.Size]byte) }}

// readBlocks is readCopy for whole blocks, if there are sums.
func (c *Cache) readBlocks(p []byte, off int64, sums *regionSums, wait bool) (verdict, block.Range, error) {
	r := block.Range{Off: off, End: off + int64(len(p))}
	if done, err := c.copy.read(p, off, wait); !done {
		return later, r, nil
	} else if err != nil {
		return damaged, r, err
	}
	if sums == nil {
		return sound, r, nil
	}
	_, i := sumsAt(off)
	for ; len(p) > 0; i++ {
		if want := sums[i].Load(); want != blockSum(p[:block.Size]) && !(want == 0 && c.unsummed.Load()) {
			at := r.End - int64(len(p))
			return damaged, block.Range{Off: at, End: at + block.Size}, nil
		}
		p = p[block.Size:]
	}
	return sound, r, nil
}

// spoilt gives up copies that are damaged, or, with an error, that cannot be
// read. They are fetched again.
func (c *Cache) spoilt(r block.Range, err error) {
	n := c.copy.drop(r.Outward(block.Size))
	if n == 0 {
		return // evicted meanwhile, or somebody else has found out
	}
	text, count := "a local copy is damaged; it is fetched again", &c.counts.damaged
	args := []any{"image", c.name, "offset", r.Off, "bytes", r.Len()}
	if err != nil {
		text, count = "a local copy cannot be read; it is fetched again", &c.counts.unreadable
		args = append(args, "error", err)
	}
	count.Add(n / block.Size)
	if c.spoiltLog.now() {
		c.log.Warn(text, args...)
	}
}

// drop makes those blocks of r, which is aligned, absent that are present, and
// returns how many bytes these are.
func (s *sparse) drop(r block.Range) (dropped int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for b, end := r.Off/block.Size, min(r.End/block.Size, s.index.blocks); b < end; {
		st, next := s.index.get(b)
		if next = min(next, end); st == present {
			s.markLocked(block.Range{Off: b * block.Size, End: next * block.Size}, absent)
			dropped += (next - b) * block.Size
		}
		b = next
	}
	return dropped
}
