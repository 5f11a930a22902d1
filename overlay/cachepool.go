package overlay

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"skylun/block"
)

// Pool bounds what the caches of a node hold together. When that is too much,
// or the space is wanted for what guests write, regions of regionSize leave, the
// one that was used the longest time ago first, whichever cache it is of; none of
// a cache that is pinned, none that a fetch is about to fill, none that a read
// waits for.
//
// A region leaves in this order:
//
//  1. its blocks become absent: who reads them from now on fetches
//  2. that becomes durable, together with what else left in the same pass. A hole
//     punched before would be found after a crash, as damage.
//  3. the hole is counted, so that who took the blocks for present reads again
//     (cacheread.go), and punched, where no fetch has filled it meanwhile
//
// What counts as held is what is present in the maps, what is about to be
// written, and what has left and is not punched. So it is right after a crash
// without being stored; what the file then still has of blocks that are absent is
// given back in the background.
//
// Time is a clock that moves when something is stored and every so many reads.
// A read compares and perhaps stores one number.
type Pool struct {
	max  int64 // bytes, 0: as many as there are
	log  *slog.Logger
	room atomic.Int64 // bytes that are not to be exceeded lest the disk gets full

	clock  atomic.Uint64
	stale  atomic.Bool   // others may leave than those in victims, and earlier
	passes atomic.Uint64 // that have freed something

	evicting sync.Mutex // held by a pass; taken before the mutex of fetches, that before mu
	victims  []victim   // guarded by evicting: the next ones to leave, the last one first
	last     int64      // guarded by evicting: what the last pass has freed

	mu       sync.Mutex
	caches   []*Cache // guarded by mu
	reserved int64    // guarded by mu: about to be written

	stopped          atomic.Bool
	evicted, gaveWay atomic.Int64

	fullLog sparingly
}

// PoolStats are the figures of a Pool, in bytes.
type PoolStats struct {
	Limit   int64 `json:"limit_bytes"`    // 0: none
	Held    int64 `json:"held_bytes"`     // by all caches
	Pinned  int64 `json:"pinned_bytes"`   // of it: by caches that are pinned
	Evicted int64 `json:"evicted_bytes"`  // that have left since the pool was made
	GaveWay int64 `json:"gave_way_bytes"` // of these: because the space was wanted for something else
}

const (
	tickReads = 512 // reads between two ticks of the clock

	passBytes = 64 << 20 // what a pass frees at least, or a sixteenth of the limit: it costs a sync
	wayBytes  = 16 << 20 // what is freed at least for a write that met a full disk

	maxVictims = 64 << 10
)

// errPoolFull says why a copy is not kept.
var errPoolFull = errors.New("the caches hold as much as they may, and nothing of it can leave")

// NewPool returns a pool whose caches hold max bytes at most, 0: any number.
func NewPool(max int64, log *slog.Logger) *Pool {
	p := &Pool{max: max, log: log}
	p.room.Store(math.MaxInt64)
	p.clock.Store(recencyRanks + 1)
	return p
}

// victim is a region that may leave.
type victim struct {
	cache *Cache
	off   int64
	used  uint64
}

// Stop makes the caches keep nothing more. It is called before several are closed:
// what a closed one holds counts no more, and the others would take its place.
func (p *Pool) Stop() { p.stopped.Store(true) }

func (p *Pool) join(c *Cache) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.caches = append(p.caches, c)
	p.stale.Store(true)
}

// leave returns when no pass touches c any more.
func (p *Pool) leave(c *Cache) {
	p.evicting.Lock()
	defer p.evicting.Unlock()
	p.victims = slices.DeleteFunc(p.victims, func(v victim) bool { return v.cache == c })
	p.mu.Lock()
	defer p.mu.Unlock()
	p.caches = slices.DeleteFunc(p.caches, func(x *Cache) bool { return x == c })
}

func (p *Pool) list() []*Cache {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.caches)
}

// held returns what counts. The caller holds mu.
func (p *Pool) held() int64 {
	n := p.reserved
	for _, c := range p.caches {
		cached, _, _ := c.copy.counts()
		n += cached + c.leaving
	}
	return n
}

// limit returns what may be held now.
func (p *Pool) limit() int64 {
	limit := p.room.Load()
	if p.max > 0 {
		limit = min(limit, p.max)
	}
	return limit
}

// Stats returns the figures now.
func (p *Pool) Stats() PoolStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := PoolStats{Limit: p.max, Held: p.held(), Evicted: p.evicted.Load(), GaveWay: p.gaveWay.Load()}
	for _, c := range p.caches {
		if c.Pinned() {
			cached, _, _ := c.copy.counts()
			s.Pinned += cached
		}
	}
	return s
}

// fits tells whether n bytes may be brought that nobody has asked for. An eighth of
// the pool is left to readers: else what a pass has freed for them would be filled
// again at once, and leave again.
func (p *Pool) fits(n int64) bool {
	limit := p.limit()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held()+n <= limit-limit/8
}

// reserve makes room for n bytes that are about to be written, or fails; evict
// tells whether others may leave for them. The caller calls release afterwards.
func (p *Pool) reserve(n int64, evict bool) error {
	for {
		if p.stopped.Load() {
			return block.ErrClosed
		}
		pass := p.passes.Load()
		p.mu.Lock()
		limit := p.limit()
		over := p.held() + n - limit
		if over <= 0 {
			p.reserved += n
			p.mu.Unlock()
			return nil
		}
		p.mu.Unlock()
		if n > limit || !evict || p.free(over, min(passBytes, limit/16), pass, nil) == 0 {
			return errPoolFull
		}
	}
}

// release takes back a reserve in the same step in which done, if it is not nil,
// makes present what was written.
func (p *Pool) release(n int64, done func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reserved -= n
	if done != nil {
		done()
	}
	p.clock.Add(1)
}

// KeepFree tells the pool that so many bytes are free on the local disk, and how
// many are to stay so: it holds no more than that allows, and frees what it can
// when it holds more already. It returns how much it has freed.
func (p *Pool) KeepFree(free, want int64) int64 {
	p.mu.Lock()
	held := p.held()
	p.mu.Unlock()
	room := max(0, held+free-want)
	p.room.Store(room)
	if held <= room {
		return 0
	}
	return p.free(held-room, min(wayBytes, want/16), p.passes.Load(), &p.gaveWay)
}

// Trim frees what is held beyond the limit, as after a start with a lower one,
// until ctx ends.
func (p *Pool) Trim(ctx context.Context) {
	for ctx.Err() == nil {
		pass := p.passes.Load()
		p.mu.Lock()
		over := p.held() - p.limit()
		p.mu.Unlock()
		if over <= 0 || p.free(min(over, passBytes), 0, pass, nil) == 0 {
			return
		}
	}
}

// giveWay makes room for a write that met a full disk, and tells whether it is
// worth another try. pass is what passes was before the write.
func (p *Pool) giveWay(n int64, pass uint64) bool {
	return p.free(n, wayBytes, pass, &p.gaveWay) > 0
}

// free makes regions leave that hold want bytes together, and some more, if there
// are such. It returns how much has become free: also by another pass that ended
// after passes was pass. count, if any, counts it too.
func (p *Pool) free(want, more int64, pass uint64, count *atomic.Int64) (freed int64) {
	p.evicting.Lock()
	defer p.evicting.Unlock()
	if p.passes.Load() != pass {
		return p.last
	}
	begun := p.clock.Add(1)
	if p.stale.Swap(false) {
		p.victims = nil
	}
	left, fresh := int64(0), false
	for left < want+more {
		if len(p.victims) == 0 {
			if fresh || left >= want {
				break
			}
			p.find(begun)
			fresh = true
			continue
		}
		v := p.victims[len(p.victims)-1]
		p.victims = p.victims[:len(p.victims)-1]
		left += v.cache.evict(regionOf(v.off), v.used)
	}
	for _, c := range p.list() {
		p.mu.Lock()
		n := c.leaving // also what an earlier pass could not record
		p.mu.Unlock()
		if n > 0 {
			if err := c.punchLeft(); err != nil {
				if p.fullLog.now() {
					p.log.Warn("cannot make room in the cache", "image", c.name, "error", err)
				}
				continue
			}
			freed += n
		}
	}
	p.evicted.Add(freed)
	if count != nil {
		count.Add(freed)
	}
	if p.last = freed; freed > 0 {
		p.passes.Add(1)
	}
	return freed
}

// find lists who may leave: regions that hold something and were not used since
// the clock was begun, the one that was used the longest time ago last.
func (p *Pool) find(begun uint64) {
	for _, c := range p.list() {
		if !c.Pinned() {
			p.victims = c.victims(p.victims, begun)
		}
	}
	slices.SortStableFunc(p.victims, func(a, b victim) int { return -cmp.Compare(a.used, b.used) })
	if n := len(p.victims) - maxVictims; n > 0 {
		p.victims = slices.Clone(p.victims[n:])
	}
}

// victims appends the regions that hold something and were not used since begun.
func (c *Cache) victims(list []victim, begun uint64) []victim {
	for off := int64(0); off < c.Size(); {
		st, end := c.copy.at(off)
		if st != present {
			off = end
			continue
		}
		r := regionOf(off)
		if used := c.regions.last(off); used < begun {
			list = append(list, victim{c, r.Off, used})
		}
		off = r.End
	}
	return list
}

// evict makes r, of one region, absent, unless the region was used after used, is
// being read or filled, or the cache is pinned. It returns how many bytes have
// left.
func (c *Cache) evict(r block.Range, used uint64) int64 {
	f := &c.fetches
	f.mu.Lock() // no fetch begins
	defer f.mu.Unlock()
	if c.Pinned() || c.regions.last(r.Off) != used || c.regions.at(r.Off).reading.Load() > 0 ||
		slices.ContainsFunc(f.list, func(o *fetch) bool { return !o.r.Intersect(r).Empty() }) {
		return 0
	}
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	n := c.copy.drop(r)
	if n > 0 {
		c.left = append(c.left, r)
		c.leaving += n
	}
	return n
}

// punchLeft makes durable what has left, and gives its space back. Only a pass
// calls it.
func (c *Cache) punchLeft() error {
	if err := c.copy.commit(context.Background()); err != nil {
		return err
	}
	for _, r := range c.left {
		if err := c.punch(r); err != nil {
			return err
		}
	}
	c.left = nil
	c.pool.mu.Lock()
	c.leaving = 0
	c.pool.mu.Unlock()
	return nil
}

// punch gives back the space of those blocks of r that are not present.
func (c *Cache) punch(r block.Range) error {
	r = r.Intersect(block.Range{Off: 0, End: c.Size()})
	c.regions.own(r)
	defer c.regions.disown(r)
	for off := r.Off; off < r.End; {
		st, end := c.copy.at(off)
		end = min(end, r.End)
		if st != present {
			for at := off; at < end; at = regionOf(at).End {
				c.regions.at(at).punched.Add(1)
			}
			if err := c.copy.file.Punch(off, end-off); err != nil {
				return localError(err)
			}
		}
		off = end
	}
	return nil
}
