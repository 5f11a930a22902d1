package overlay

import (
	"math/bits"
	"sync/atomic"

	"skylun/block"
	"skylun/overlay/prefetch"
)

// guesses are blocks that were fetched though nobody had asked for them, and
// that nobody has read since. They bound how much more is guessed, see
// prefetch.SpareBeside, unless all of the image is to be fetched anyway.
type guesses struct {
	read          atomic.Int64 // bytes that readers wanted of what was fetched, of late
	beside, ahead guessed
	full          atomic.Int64 // bytes under way when the link is full
}

// guessed are guesses of one kind. Every read of the image looks at them, so
// they take no lock.
type guessed struct {
	chunks []atomic.Pointer[blockChunk]
	open   atomic.Int64 // bytes, of late
}

func (g *guesses) init(size int64) {
	g.beside.chunks = make([]atomic.Pointer[blockChunk], chunkCount(size))
	g.ahead.chunks = make([]atomic.Pointer[blockChunk], chunkCount(size))
}

// asked tells that readers wanted n bytes of what was fetched.
func (g *guesses) asked(n int64) {
	if read := g.read.Add(n); read >= prefetch.GuessMemory && g.read.CompareAndSwap(read, read/2) {
		g.beside.open.Add(-g.beside.open.Load() / 2)
		g.ahead.open.Add(-g.ahead.open.Load() / 2)
	}
}

// met tells of a read of n bytes at off.
func (g *guesses) met(off, n int64) {
	if met := g.beside.take(off, n) + g.ahead.take(off, n); met > 0 {
		g.asked(met)
	}
}

// add opens guesses.
func (s *guessed) add(r block.Range) {
	for b, end := r.Off/block.Size, r.End/block.Size; b < end; {
		word, mask, n := bitsOf(chunkOf(s.chunks, b), b, end)
		s.open.Add(int64(bits.OnesCount64(mask&^word.Or(mask))) * block.Size)
		b += n
	}
}

// take closes those that a read of n bytes at off meets, and returns how many
// bytes they have.
func (s *guessed) take(off, n int64) (taken int64) {
	for b, end := off/block.Size, (off+n+block.Size-1)/block.Size; b < end; {
		chunk := s.chunks[b/chunkSpan].Load()
		if chunk == nil {
			b = block.Floor(b, chunkSpan) + chunkSpan
			continue
		}
		word, mask, n := bitsOf(chunk, b, end)
		if word.Load()&mask != 0 {
			taken += int64(bits.OnesCount64(mask&word.And(^mask))) * block.Size
		}
		b += n
	}
	if taken > 0 {
		s.open.Add(-taken)
	}
	return taken
}

// spareBeside and spareAhead return how much more may be guessed.
func (c *Cache) spareBeside() int64 {
	if c.prefetched.wholly() {
		return prefetch.Unbounded
	}
	return prefetch.SpareBeside(c.guesses.read.Load(), c.guesses.beside.open.Load())
}

func (c *Cache) spareAhead() int64 {
	if c.prefetched.wholly() {
		return prefetch.Unbounded
	}
	return prefetch.SpareAhead(c.guesses.read.Load(), c.guesses.ahead.open.Load(), c.guesses.full.Load())
}
