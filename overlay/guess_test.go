package overlay

import (
	"math/rand/v2"
	"sync"
	"testing"

	"skylun/block"
	"skylun/overlay/prefetch"
)

// TestGuesses opens and closes guesses at random and compares with a simple
// model.
func TestGuesses(t *testing.T) {
	const size = 3 * chunkSpan * block.Size
	rnd := rand.New(rand.NewPCG(1, 2))
	var g guesses
	g.init(size)
	model, read := map[int64]bool{}, int64(0)
	for range 5000 {
		off := rnd.Int64N(size)
		n := 1 + rnd.Int64N(min(1<<20, size-off))
		if rnd.IntN(2) == 0 {
			r := block.Range{Off: off, End: off + n}.Inward(block.Size)
			g.ahead.add(r)
			for b := r.Off / block.Size; b < r.End/block.Size; b++ {
				model[b] = true
			}
		} else {
			taken := int64(0)
			for b := off / block.Size; b*block.Size < off+n; b++ {
				if model[b] {
					delete(model, b)
					taken += block.Size
				}
			}
			if got := g.ahead.take(off, n); got != taken {
				t.Fatalf("a read of %d+%d met %d bytes, want %d", off, n, got, taken)
			}
			read += taken
		}
		if got, want := g.ahead.open.Load(), int64(len(model))*block.Size; got != want {
			t.Fatalf("%d bytes are open, want %d", got, want)
		}
	}
	if read == 0 {
		t.Fatal("nothing was read")
	}
}

// TestGuessesInParallel gives each guess to one of several readers.
func TestGuessesInParallel(t *testing.T) {
	const size = 64 << 20
	var g guesses
	g.init(size)
	g.beside.add(block.Range{Off: 0, End: size / 2})
	var run sync.WaitGroup
	for range 8 {
		run.Go(func() {
			for off := int64(0); off < size; off += 12 << 10 {
				g.met(off, 12<<10)
			}
		})
	}
	run.Wait()
	if open, read := g.beside.open.Load(), g.read.Load(); open != 0 || read != size/2 {
		t.Errorf("%d bytes are open and %d were read, want 0 and %d", open, read, size/2)
	}
}

// TestGuessesAreForgotten: what was wasted long ago does not count for ever.
func TestGuessesAreForgotten(t *testing.T) {
	var g guesses
	g.init(1 << 30)
	g.beside.add(block.Range{Off: 0, End: 64 << 20})
	for range 20 {
		g.asked(prefetch.GuessMemory / 2)
	}
	if open, read := g.beside.open.Load(), g.read.Load(); open > 1<<20 || read < prefetch.GuessMemory/2 || read > prefetch.GuessMemory {
		t.Errorf("%d bytes are open of %d read", open, read)
	}
}
