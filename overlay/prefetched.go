package overlay

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"skylun/block"
	"skylun/overlay/prefetch"
)

// prefetched is what prefetch knows of an image.
type prefetched struct {
	cache *Cache
	p     *Prefetcher // nil: nothing is filled

	brought, read regionSet // regions that prefetch has brought and nobody has read; that somebody has

	filled, ahead, used, hits, late, shared, errors atomic.Int64

	aheadFlight atomic.Int64 // bytes under way ahead of readers

	known atomic.Pointer[known] // nil: there is no profile

	filling, lacking atomic.Bool // somebody wants all of it; there is no room for that

	ordering sync.Mutex
	order    *prefetch.Order // guarded by ordering

	mu    sync.Mutex   // taken after that of the Prefetcher
	users map[any]user // guarded by mu

	// Guarded by the mutex of the Prefetcher.
	state       PrefetchState
	reason      string
	served      int64 // bytes, by weight
	uncommitted int64
	backoff     prefetch.Backoff
	failure     error
	ready       bool      // something may be sent for it, as far as the governor allows
	looked      time.Time // when the space was looked at
	lacks       string    // why there is not enough of it
	exhausted   time.Time // until then nothing is looked for: all that is left was under way
	told        bool
	rate        float64
	counted     int64
	since       time.Time
}

// user is what somebody who uses the image wants.
type user struct {
	strategy Strategy
	paused   bool
}

func (x *prefetched) init(c *Cache, p *Prefetcher) {
	x.cache, x.p, x.users = c, p, map[any]user{}
	x.brought, x.read = newRegionSet(c.Size()), newRegionSet(c.Size())
	x.order = prefetch.NewOrder(c.Size())
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.images = append(p.images, x)
}

// leave ends the filling of a cache that is being closed.
func (x *prefetched) leave() {
	if x.p == nil {
		return
	}
	x.p.mu.Lock()
	defer x.p.mu.Unlock()
	x.p.images = slices.DeleteFunc(x.p.images, func(y *prefetched) bool { return x == y })
}

// want says what a user of the image wants; the strategy off and not paused: nothing any more.
func (x *prefetched) want(who any, s Strategy, paused bool) {
	x.mu.Lock()
	if s == PrefetchOff {
		delete(x.users, who)
	} else {
		x.users[who] = user{s, paused}
	}
	_, now := x.mostLocked()
	x.filling.Store(now >= PrefetchIdle && x.p != nil)
	x.mu.Unlock()
	x.again()
}

// again makes the Prefetcher look at the image again.
func (x *prefetched) again() {
	if x.p == nil {
		return
	}
	x.p.mu.Lock()
	x.exhausted = time.Time{}
	least := int64(-1)
	for _, y := range x.p.images {
		if _, ok := y.wants(); ok && y != x && (least < 0 || y.served < least) {
			least = y.served
		}
	}
	x.served = max(x.served, least) // what it did not get while it wanted nothing is not made up for
	x.p.mu.Unlock()
	x.p.kick()
}

// most returns the most that users want, and the most that those want who
// have not paused.
func (x *prefetched) most() (asked, now Strategy) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.mostLocked()
}

// mostLocked is most. The caller holds mu.
func (x *prefetched) mostLocked() (asked, now Strategy) {
	for _, u := range x.users {
		asked = max(asked, u.strategy)
		if !u.paused {
			now = max(now, u.strategy)
		}
	}
	return asked, now
}

// wholly tells whether all of the image is going to be fetched.
func (x *prefetched) wholly() bool { return x.filling.Load() && !x.lacking.Load() }

// wants tells how the image is to be filled, if it is. The caller holds the mutex of
// the Prefetcher.
func (x *prefetched) wants() (m prefetch.Mode, ok bool) {
	_, s := x.most()
	if s == PrefetchOff {
		return 0, false
	}
	if _, _, missing := x.cache.copy.counts(); missing == 0 && x.told {
		return 0, false
	}
	x.ordering.Lock()
	urgent := x.order.Urgent()
	x.ordering.Unlock()
	switch {
	case urgent:
		return prefetch.Urgent, true
	case s == PrefetchFull:
		return prefetch.Full, true
	case s == PrefetchIdle:
		return prefetch.Idle, true
	}
	return 0, false
}

// full says why the local disk takes no more, if it does not. The caller holds
// the mutex of the Prefetcher.
func (x *prefetched) full(now time.Time, keep int64) string {
	if !x.looked.IsZero() && now.Sub(x.looked) < roomEvery {
		return x.lacks
	}
	x.looked, x.lacks = now, ""
	defer func() { x.lacking.Store(x.lacks != "") }()
	if !x.cache.Pinned() && !x.cache.pool.fits(roomLeast) {
		x.lacks = "the caches hold as much as they may"
		return x.lacks
	}
	f, ok := x.cache.copy.file.(interface{ Free() (int64, error) })
	if !ok {
		return ""
	}
	if free, err := f.Free(); errors.Is(err, errors.ErrUnsupported) {
		return ""
	} else if err != nil {
		x.lacks = fmt.Sprintf("the free space is not known: %v", err)
	} else if free < keep+roomLeast {
		x.lacks = "the local disk is to keep its free space"
	}
	return x.lacks
}

// find returns what to fetch next, n bytes at most.
func (x *prefetched) find(n int64, mode prefetch.Mode) (block.Range, bool) {
	x.ordering.Lock()
	defer x.ordering.Unlock()
	return x.order.Next(n, mode == prefetch.Urgent, x.cache.absentRun)
}

// count measures the rate. The caller holds the mutex of the Prefetcher.
func (x *prefetched) count(now time.Time, n int64) {
	x.counted += n
	switch d := now.Sub(x.since); {
	case d > 5*rateWindow: // it begins, or begins again
		x.rate, x.counted, x.since = 0, 0, now
	case d >= rateWindow:
		rate := float64(x.counted) / d.Seconds()
		if x.rate == 0 {
			x.rate = rate
		}
		x.rate += (rate - x.rate) / 2
		x.counted, x.since = 0, now
	}
}

// begun and settled are told about each fetch that nobody waits for.
func (x *prefetched) begun(o *fetch) {
	if o.why == forStream {
		x.aheadFlight.Add(o.r.Len())
	}
}

func (c *Cache) settled(o *fetch) {
	x := &c.prefetched
	if o.why == forStream {
		x.aheadFlight.Add(-o.r.Len())
	}
	if err := errors.Join(o.err, o.lost); err != nil {
		if !errors.Is(err, block.ErrClosed) {
			x.errors.Add(1)
		}
		return
	}
	if o.why == forStream {
		x.ahead.Add(o.r.Len())
	}
	for i := block.Ceil(o.r.Off, followRegion) / followRegion; i < (o.r.End+followRegion-1)/followRegion; i++ {
		if !x.read.has(i) {
			x.brought.add(i)
		}
	}
}

// waits and waited enclose the wait of a reader for the store.
func (c *Cache) waits(off int64) {
	x := &c.prefetched
	if x.p == nil {
		return
	}
	if x.ordering.TryLock() { // it is no more than a hint
		x.order.Missed(off)
		x.ordering.Unlock()
	}
	x.p.mu.Lock()
	x.p.governor.Waits(time.Now())
	x.p.mu.Unlock()
}

func (c *Cache) waited(n int64) {
	if p := c.prefetched.p; p != nil {
		p.mu.Lock()
		p.governor.Waited(time.Now(), n)
		p.mu.Unlock()
	}
}

// localRead tells that a reader waited for the local disk for d.
func (c *Cache) localRead(d time.Duration) {
	if p := c.prefetched.p; p != nil {
		p.mu.Lock()
		p.governor.Local(time.Now(), d)
		p.mu.Unlock()
	}
}

func (c *Cache) throttled() {
	c.fetches.mu.Lock()
	c.fetches.sizer.Throttled()
	c.fetches.mu.Unlock()
}

// aheadLeast is the least that a window may grow to, as a stream goes on: what a
// link of 200 MB/s brings in 80 ms. A window begins small and doubles, so a
// short stream wastes no more by it.
const aheadLeast = 16 << 20

// window returns how far to read ahead of a reader at most.
func (c *Cache) window() int64 {
	c.fetches.mu.Lock()
	defer c.fetches.mu.Unlock()
	return max(c.fetches.sizer.Window(), aheadLeast)
}

// SetProfile says which ranges readers will want soon, in that order: they are
// fetched first, if anybody wants any prefetch, and also while readers wait.
func (c *Cache) SetProfile(ranges []block.Range) {
	x := &c.prefetched
	k := newKnown(ranges)
	x.known.Store(&k)
	x.ordering.Lock()
	x.order.SetProfile(slices.Clone(ranges))
	x.ordering.Unlock()
	x.again()
}

// SetPrefetch says how much of its image the volume wants before anybody reads
// it. While it is paused, it wants nothing.
func (v *Volume) SetPrefetch(s Strategy, paused bool) {
	if v.base == nil {
		return
	}
	v.base.prefetched.want(v, s, paused)
	if paused {
		s = PrefetchOff
	}
	v.follower.strategy.Store(uint32(s))
}
