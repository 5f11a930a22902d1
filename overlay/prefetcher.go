package overlay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
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
