package overlay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"skylun/block"
	"skylun/overlay/prefetch"
)

// A Prefetcher fills the caches of a node that somebody wants to be filled. It
// is one goroutine, which asks the governor what may be sent, gives each image
// its turn, and begins fetches; those belong to their caches. Readers tell the
// governor when they wait for the store, with a lock that is held for some
// comparisons.
type Prefetcher struct {
	cfg    PrefetcherConfig
	wake   chan struct{} // something has changed
	cancel context.CancelFunc
	run    sync.WaitGroup

	mu       sync.Mutex         // taken before that of fetches
	governor *prefetch.Governor // guarded by mu
	images   []*prefetched      // guarded by mu: whose caches are open
	rnd      *rand.Rand         // guarded by mu

	looked   time.Time // when Load was asked last; the goroutine's, as what follows
	load     Load      // the last one that the governor was told
	loadedAt time.Time
}

// PrefetcherConfig says what NewPrefetcher makes.
type PrefetcherConfig struct {
	Rate  int64             // bytes/s that filling takes at most, all images together; 0: any
	Hours prefetch.Schedule // when whole images may be fetched
	Log   *slog.Logger

	// Load tells what else goes on. It is asked often while something is
	// being filled, so it must not take long; nil: nothing is known.
	Load func() Load

	// KeepFree is how many bytes of local space filling leaves for others.
	KeepFree int64
}

// Load is what goes on in a node besides prefetch.
type Load struct {
	Commands  uint64    // that initiators have sent so far
	Queue     int       // reads in the queue of the busiest local disk
	Throttled uint64    // requests that the store has refused so far for being too many
	Until     time.Time // until when it wants to be left alone, if it said so
}

const (
	loadEvery    = 20 * time.Millisecond
	hourglass    = time.Minute // when the goroutine looks if nothing happens: the clock may be set
	commitFill   = 64 << 20    // bytes filled between two commits: so none takes long
	roomEvery    = 200 * time.Millisecond
	roomLeast    = 16 << 20 // with less filling waits
	roomAgain    = 10 * time.Second
	exhaustedFor = time.Second
	fullWeight   = 4 // turns of an image that is to be filled fast, for one of another
	rateWindow   = time.Second
)

// NewPrefetcher starts a Prefetcher. Close ends it.
func NewPrefetcher(cfg PrefetcherConfig) *Prefetcher {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	seed := rand.Uint64
	p := &Prefetcher{cfg: cfg, wake: make(chan struct{}, 1), rnd: rand.New(rand.NewPCG(seed(), seed()))}
	p.governor = prefetch.NewGovernor(cfg.Rate, rand.New(rand.NewPCG(seed(), seed())))
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	p.run.Go(func() { p.loop(ctx) })
	return p
}

// Close ends it. Fetches that are under way belong to their caches.
func (p *Prefetcher) Close() {
	p.cancel()
	p.run.Wait()
}

// kick makes the goroutine look again.
func (p *Prefetcher) kick() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *Prefetcher) loop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		wait := p.pump(ctx)
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		case <-timer.C:
		}
	}
}

// pump begins what may be begun and returns when to look again.
func (p *Prefetcher) pump(ctx context.Context) time.Duration {
	for ctx.Err() == nil {
		x, mode, n, wait := p.choose(p.sample())
		if x == nil {
			return wait
		}
		run, ok := x.find(n, mode)
		if !ok {
			if mode != prefetch.Urgent {
				p.exhausted(x)
			}
			continue
		}
		p.mu.Lock()
		now := time.Now()
		o := x.cache.begin(run, forFill, func(o *fetch) { p.ended(x, o, now) })
		if o != nil { // nobody was faster
			p.governor.Sent(now, mode, o.r.Len())
			weight := int64(1)
			if mode != prefetch.Idle {
				weight = fullWeight
			}
			x.served += o.r.Len() / weight
		}
		p.mu.Unlock()
	}
	return hourglass
}

// choose returns whose turn it is, how, and how much it may fetch; or nil and
// how long nothing may be sent unless something happens.
func (p *Prefetcher) choose(l *Load) (next *prefetched, mode prefetch.Mode, n int64, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	wait = hourglass
	closed := p.cfg.Hours.Closed(now)
	for _, x := range p.images {
		x.ready = false
		m, ok := x.wants()
		if !ok {
			continue
		}
		if m != prefetch.Urgent && closed > 0 {
			x.state, x.reason = StateWaiting, "for the hours in which prefetch is allowed"
			wait = min(wait, closed)
			continue
		}
		if d := x.backoff.Left(now); d > 0 {
			x.state, x.reason = StateWaiting, fmt.Sprintf("after an error, for %v: %v", d.Round(time.Second), x.failure)
			wait = min(wait, d)
			continue
		}
		if d := x.exhausted.Sub(now); d > 0 {
			x.state, x.reason = StateFilling, ""
			wait = min(wait, d)
			continue
		}
		if full := x.full(now, p.cfg.KeepFree); full != "" {
			x.state, x.reason = StateWaiting, full
			wait = min(wait, roomAgain)
			continue
		}
		x.ready = true
		if next == nil || x.served < next.served {
			next, mode = x, m
		}
	}
	if next == nil {
		return nil, 0, 0, wait
	}
	if l != nil {
		p.observe(now, *l)
	}
	n = p.governor.FetchSize()
	may := p.governor.May(now, mode, n)
	for _, x := range p.images {
		if x.ready {
			x.state, x.reason = StateFilling, may.Why
			if may.Why != "" {
				x.state = StateYielding
			}
		}
	}
	if !may.Now {
		if may.After > 0 {
			wait = min(wait, may.After)
		}
		if p.cfg.Load != nil {
			wait = min(wait, loadEvery)
		}
		return nil, 0, 0, wait
	}
	return next, mode, n, 0
}

// sample returns what else goes on, if it is time to look; nil: it is not. It
// is asked without the lock, which readers take.
func (p *Prefetcher) sample() *Load {
	if p.cfg.Load == nil || time.Since(p.looked) < loadEvery {
		return nil
	}
	p.looked = time.Now()
	l := p.cfg.Load()
	return &l
}

// observe tells the governor what else goes on. The caller holds mu.
func (p *Prefetcher) observe(now time.Time, l Load) {
	if d := now.Sub(p.loadedAt); d < 50*loadEvery { // else it is not what goes on now
		p.governor.Busy(now, float64(l.Commands-p.load.Commands)/d.Seconds(), l.Queue)
		if l.Throttled > p.load.Throttled {
			p.governor.Throttled(now, l.Until)
			for _, x := range p.images {
				x.cache.throttled()
			}
		}
	}
	p.load, p.loadedAt = l, now
}

// exhausted notes that nothing of x is left that is not under way.
func (p *Prefetcher) exhausted(x *prefetched) {
	_, _, missing := x.cache.copy.counts()
	if missing == 0 {
		// What nobody has to fetch any more is to be known after a crash, too.
		x.cache.copy.background()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	x.exhausted = time.Now().Add(exhaustedFor)
	if missing == 0 && !x.told {
		x.told = true
		p.cfg.Log.Info("all of the image is local: the store is not needed for it any more", "image", x.cache.name)
	}
}

// ended is told about each fetch that pump has begun.
func (p *Prefetcher) ended(x *prefetched, o *fetch, began time.Time) {
	err := errors.Join(o.err, o.lost)
	p.mu.Lock()
	now := time.Now()
	p.governor.Done(now, o.r.Len(), now.Sub(began), err == nil)
	switch {
	case err == nil:
		if _, _, missing := x.cache.copy.counts(); missing == 0 {
			x.exhausted = time.Time{} // to find out
		}
		x.backoff.Done()
		x.filled.Add(o.r.Len())
		x.count(now, o.r.Len())
		if x.uncommitted += o.r.Len(); x.uncommitted >= commitFill {
			x.uncommitted = 0
			x.cache.copy.background()
		}
	case !errors.Is(err, block.ErrClosed):
		x.exhausted = time.Time{}
		x.backoff.Failed(now, p.rnd)
		x.failure = err
	}
	p.mu.Unlock()
	p.kick()
}

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
