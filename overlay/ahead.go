package overlay

import (
	"context"
	"sync"
	"sync/atomic"

	"skylun/block"
	"skylun/overlay/prefetch"
)

// A follower watches what is read of an image through one device, so that what
// sequential readers are about to read is fetched ahead of them, and counts
// what prefetch and sharing were good for. A read of what is local costs a few
// comparisons and allocates nothing.
type follower struct {
	cache    *Cache
	strategy atomic.Uint32
	seen     regionSet // what was read through this device
	shared   atomic.Int64

	mu      sync.Mutex // held shortly; a read that does not get it at once is not watched
	streams prefetch.Streams
}

const (
	followRegion = 64 << 10 // the grain in which first reads are counted
	aheadMost    = 32 << 20 // bytes under way ahead of the readers of one image; more is not begun
)

// regionSet is a set of regions of an image.
type regionSet []atomic.Uint64

func newRegionSet(size int64) regionSet {
	return make(regionSet, (size+followRegion*64-1)/(followRegion*64))
}

func (s regionSet) has(i int64) bool { return s[i/64].Load()>>(i%64)&1 != 0 }

// add tells whether the region was not in the set.
func (s regionSet) add(i int64) bool { return s[i/64].Or(1<<(i%64))>>(i%64)&1 == 0 }

func (s regionSet) remove(i int64) { s[i/64].And(^uint64(1 << (i % 64))) }

func newFollower(c *Cache) *follower { return &follower{cache: c, seen: newRegionSet(c.Size())} }

// read tells of a read of n bytes at off, which may go beyond the image. absent
// calls f with the parts of a range, within the image, that the device would
// read from the image.
func (w *follower) read(off, n int64, waited bool, absent func(r block.Range, f func(block.Range))) {
	if n = min(n, w.cache.Size()-off); n <= 0 {
		return
	}
	for i := off / followRegion; i <= (off+n-1)/followRegion; i++ {
		if !w.seen.has(i) {
			w.first(i, waited)
		}
	}
	if Strategy(w.strategy.Load()) == PrefetchOff || !w.mu.TryLock() {
		return
	}
	w.streams.SetSpare(w.cache.spareAhead(), w.cache.guesses.full.Load())
	a, ok := w.streams.Read(off, n, waited)
	if ok {
		w.streams.SetWindow(w.cache.window())
	}
	w.mu.Unlock()
	if ok && !w.cache.isKnown(off) {
		w.fetch(a, absent)
	}
}

// first counts the first read of a region through this device.
func (w *follower) first(i int64, waited bool) {
	if !w.seen.add(i) {
		return
	}
	p := &w.cache.prefetched
	again := !p.read.add(i) // another device has read it
	n := min(followRegion, w.cache.Size()-i*followRegion)
	switch {
	case waited:
	case again:
		p.shared.Add(n)
		w.shared.Add(n)
	case p.brought.has(i):
		p.brought.remove(i)
		p.used.Add(n)
		p.hits.Add(1)
	}
}

// fetch begins to fetch ahead what is neither local nor under way, as far as
// there is room for it.
func (w *follower) fetch(a prefetch.Ahead, absent func(r block.Range, f func(block.Range))) {
	all := block.Range{Off: 0, End: w.cache.Size()}
	r := a.First
	for range a.Count {
		in := r.Intersect(all).Outward(block.Size)
		if in.Empty() || a.Every != 0 && w.cache.spareAhead() <= 0 {
			return
		}
		absent(in, w.cache.ahead)
		r.Off, r.End = r.Off+a.Every, r.End+a.Every
	}
}

// ahead begins to fetch what of r is neither local nor under way.
func (c *Cache) ahead(r block.Range) {
	for r.Len() > 0 {
		run, ok := c.absentRun(r)
		if !ok || c.prefetched.aheadFlight.Load() >= aheadMost {
			return
		}
		run.End = min(run.End, block.Floor(run.Off, fetchMax)+fetchMax)
		c.begin(run, forStream, nil)
		r.Off = run.End
	}
}

// absentRun returns the first run of r that is neither local nor under way.
func (c *Cache) absentRun(r block.Range) (run block.Range, ok bool) {
	for off := r.Off; off < r.End; {
		st, end := c.copy.at(off)
		end = min(end, r.End)
		if st == absent {
			if run := c.fetches.free(block.Range{Off: off, End: end}); !run.Empty() {
				return run, true
			}
		}
		off = end
	}
	return block.Range{}, false
}

// Reader returns a device that reads the image through its cache, such as a
// disc in a drive, with what is fetched ahead of it.
func (c *Cache) Reader(s Strategy) *CacheReader {
	r := &CacheReader{cache: c, follower: newFollower(c)}
	r.follower.strategy.Store(uint32(s))
	return r
}

// CacheReader reads an image through its cache.
type CacheReader struct {
	cache    *Cache
	follower *follower
}

// Size implements block.Reader.
func (r *CacheReader) Size() int64 { return r.cache.Size() }

// ReadAt implements block.Reader.
func (r *CacheReader) ReadAt(ctx context.Context, p []byte, off int64) error {
	waited := !r.cache.holds(off, int64(len(p)))
	err := r.cache.ReadAt(ctx, p, off)
	if err == nil {
		r.follower.read(off, int64(len(p)), waited, whole)
	}
	return err
}

// TryReadAt implements block.TryReader.
func (r *CacheReader) TryReadAt(p []byte, off int64) (done bool, err error) {
	done, err = r.cache.TryReadAt(p, off)
	if done && err == nil {
		r.follower.read(off, int64(len(p)), false, whole)
	}
	return done, err
}

// whole is what a device reads from the image that has nothing of its own.
func whole(r block.Range, f func(block.Range)) { f(r) }

// holds tells whether n bytes at off are local, as far as the image has them.
func (c *Cache) holds(off, n int64) bool {
	for end := min(off+n, c.Size()); off < end; {
		st, e := c.copy.at(off)
		if st == absent {
			return false
		}
		off = e
	}
	return true
}

var (
	_ block.Reader    = (*CacheReader)(nil)
	_ block.TryReader = (*CacheReader)(nil)
)
