package overlay

import (
	"sync"
	"sync/atomic"

	"skylun/block"
)

// What a cache knows beside the states of its blocks it knows by region,
// regionSize bytes: when it was used last, and the sums of its blocks. A read
// takes no lock for that.
//
// Regions come in groups, which are made when one of them is read or filled:
// an image of a terabyte that nobody has read costs some kilobytes.

const groupRegions = 64

type cacheRegion struct {
	used    atomic.Uint64 // the pool's clock when it was read or filled last
	reading atomic.Int32  // reads of it that wait for the disk
	punched atomic.Uint32 // counts the holes that were punched, before they were
	sums    atomic.Pointer[regionSums]
}

// cacheRegions are the regions of a cache, and their locks.
type cacheRegions struct {
	groups []atomic.Pointer[[groupRegions]cacheRegion]

	// A fill, which writes the bytes and the sums of absent blocks and then
	// makes these present, holds its regions shared. Who punches holds them
	// exclusively: what it finds absent nobody is writing. They are taken in
	// ascending order, before the mutex of sparse.
	locks [regionLocks]sync.RWMutex

	// sums is held while the sums of a region are loaded or changed, so that
	// what is in memory is what is in the file. It is taken after locks.
	sums [regionLocks]sync.Mutex
}

func (x *cacheRegions) init(size int64) {
	regions := block.Ceil(size, regionSize) / regionSize
	x.groups = make([]atomic.Pointer[[groupRegions]cacheRegion], block.Ceil(regions, groupRegions)/groupRegions)
}

// at returns the region of the byte at off.
func (x *cacheRegions) at(off int64) *cacheRegion {
	i := off / regionSize
	p := &x.groups[i/groupRegions]
	g := p.Load()
	if g == nil {
		p.CompareAndSwap(nil, new([groupRegions]cacheRegion))
		g = p.Load()
	}
	return &g[i%groupRegions]
}

// last returns when the region of the byte at off was used last, 0: that is not
// known.
func (x *cacheRegions) last(off int64) uint64 {
	i := off / regionSize
	if g := x.groups[i/groupRegions].Load(); g != nil {
		return g[i%groupRegions].used.Load()
	}
	return 0
}

func (x *cacheRegions) share(r block.Range) {
	eachRegion(r, func(i int) bool { x.locks[i].RLock(); return true })
}

func (x *cacheRegions) unshare(r block.Range) {
	eachRegion(r, func(i int) bool { x.locks[i].RUnlock(); return true })
}

func (x *cacheRegions) own(r block.Range) {
	eachRegion(r, func(i int) bool { x.locks[i].Lock(); return true })
}

func (x *cacheRegions) disown(r block.Range) {
	eachRegion(r, func(i int) bool { x.locks[i].Unlock(); return true })
}

// touch remembers that the region was used now. Most reads find that somebody
// has done so.
func (g *cacheRegion) touch(now uint64) {
	if g.used.Load() != now {
		g.used.Store(now)
	}
}

// regionOf returns the region that the byte at off is in.
func regionOf(off int64) block.Range {
	off = block.Floor(off, regionSize)
	return block.Range{Off: off, End: off + regionSize}
}
