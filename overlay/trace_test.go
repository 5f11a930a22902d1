package overlay

import (
	"context"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"

	"skylun/block"
	"skylun/test/memdev"
)

// blockRange is the range of n blocks from first on.
func blockRange(first, n int64) block.Range {
	return block.Range{Off: first * block.Size, End: (first + n) * block.Size}
}

// TestTrace notes what is read of the image, once, in order, and nothing that
// was not: what the layer has, what is empty, what is prefetched.
func TestTrace(t *testing.T) {
	const size = 300 << 20 // several chunks
	image := memdev.New(size)
	for _, off := range []int64{0, 60 << 20, 200 << 20} {
		if err := image.WriteAt(t.Context(), pattern(8<<20), off); err != nil {
			t.Fatal(err)
		}
	}
	r := newRig(t)
	c := r.cache(image)
	defer c.Close()
	v := r.volume(size, c)
	defer v.Close()
	read := func(off, n int64) {
		t.Helper()
		if err := v.ReadAt(t.Context(), make([]byte, n), off); err != nil {
			t.Fatal(err)
		}
	}
	c.copy.fill(block.Range{Off: 100 << 20, End: 110 << 20}, zero)
	read(0, 4096) // before the trace
	tr := c.Trace()
	if c.Trace() != nil {
		t.Error("two traces at once")
	}
	if err := v.WriteAt(t.Context(), make([]byte, 1<<20), 4<<20); err != nil {
		t.Fatal(err)
	}
	if err := v.Prefetch(t.Context(), 0, 2<<20, true); err != nil {
		t.Fatal(err)
	}
	select {
	case <-tr.Begun():
		t.Error("begun without a read of the image")
	default:
	}
	read(60<<20+512, 512)
	<-tr.Begun()
	read(4<<20, 1<<20)           // the layer's
	read(100<<20-4096, 10<<20)   // the second of it is empty
	read(200<<20, 1<<20)         // new
	read(0, 64<<10)              // prefetched
	read(60<<20, 3*4096)         // one block of it known
	read(200<<20+512<<10, 1<<20) // half of it known
	read(64*4096-4096, 3*4096)   // over the border of a word
	read(chunkSpan*4096-4096, 8192)
	got := tr.Stop()
	read(8<<20, 4096) // after the trace
	want := []block.Range{
		blockRange(60<<8, 1),
		blockRange(100<<8-1, 1),
		blockRange(200<<8, 256),
		blockRange(0, 16),
		blockRange(60<<8+1, 2),
		blockRange(200<<8+256, 128),
		blockRange(63, 3),
		blockRange(chunkSpan-1, 2),
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("traced\n%v\nwant\n%v", got, want)
	}
	if c.Trace() == nil {
		t.Error("no trace after the first one")
	}
}

// TestTraceInParallel gives each block to one of several readers.
func TestTraceInParallel(t *testing.T) {
	const size, readers = 8 << 20, 8
	c, err := OpenCache(CacheConfig{Name: "image", Image: memdev.Of(pattern(size)), File: newMemFile(size), Map: &memMap{}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	tr := c.Trace()
	var wg sync.WaitGroup
	for i := range uint64(readers) {
		rnd := rand.New(rand.NewPCG(i, 1))
		wg.Go(func() {
			for range 2000 {
				off := rnd.Int64N(size - 64<<10)
				c.note(off, 1+rnd.IntN(64<<10))
			}
		})
	}
	wg.Wait()
	c.note(0, size)
	got := tr.Stop()
	slices.SortFunc(got, func(a, b block.Range) int { return int(a.Off/block.Size - b.Off/block.Size) })
	end := int64(0)
	for _, r := range got {
		if r.Off != end {
			t.Fatalf("%v after %d", r, end)
		}
		end = r.End
	}
	if end != size {
		t.Errorf("ends at %d", end)
	}
}

// TestTraceIsBounded stops noting when there is too much.
func TestTraceIsBounded(t *testing.T) {
	open := func(size int64) *Cache {
		c, err := OpenCache(CacheConfig{Name: "image", Image: sizeOnly(size), File: newMemFile(0), Map: &memMap{}})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := open(4 << 40)
	tr := c.Trace()
	for off := int64(0); off < 2<<30; off += 1 << 20 {
		c.note(off, 1<<20)
	}
	total := int64(0)
	for _, r := range tr.Stop() {
		total += r.Len()
	}
	if total != traceBlocks*block.Size {
		t.Errorf("%d bytes noted", total)
	}
	tr = c.Trace()
	for i := range int64(2 * traceRuns) {
		c.note(i*2*block.Size, 1)
	}
	if got := tr.Stop(); len(got) != traceRuns {
		t.Errorf("%d ranges noted", len(got))
	}
}

type sizeOnly int64

func (s sizeOnly) Size() int64 { return int64(s) }
func (s sizeOnly) ReadAt(ctx context.Context, p []byte, off int64) error {
	clear(p)
	return nil
}

// TestTraceAlloc: reads of what is here allocate nothing while they are
// traced.
func TestTraceAlloc(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	const size = 1 << 20
	r := newRig(t)
	c := r.cache(memdev.Of(pattern(size)))
	defer c.Close()
	p := make([]byte, 4096)
	if err := c.warm(t.Context(), block.Range{Off: 0, End: size}); err != nil {
		t.Fatal(err)
	}
	tr := c.Trace()
	defer tr.Stop()
	off := int64(0)
	c.note(0, 1)                               // makes the chunk
	if n := testing.AllocsPerRun(200, func() { // each is a first read
		if done, err := c.TryReadAt(p, off); !done || err != nil {
			t.Fatal(done, err)
		}
		off += 4096
	}); n != 0 {
		t.Errorf("%v allocations for a read", n)
	}
}

func BenchmarkTraced4K(b *testing.B) {
	const size = 64 << 20
	c, err := OpenCache(CacheConfig{Name: "image", Image: sizeOnly(size), File: newMemFile(size), Map: &memMap{}})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	note := func(b *testing.B) {
		for b.Loop() {
			c.note(rand.Int64N(size/block.Size)*block.Size, block.Size)
		}
	}
	b.Run("no trace", note)
	tr := c.Trace()
	defer tr.Stop()
	b.Run("trace", note)
}
